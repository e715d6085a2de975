"""The statement that takes facts into a projection: orders and all sums at once, whatever comes twice or late.

A row of `order_fact` knows which versions of each service it has seen. A fact that tells nothing new changes nothing;
one that does sets what it tells, and the sums grow by the difference between the row after it and the row before,
never by the number of events. Rows are locked in the order of their keys, orders before sums, so that consumers of
different topics never wait for each other in circles. Made once for each projection by `projection.py`.
"""

from collections.abc import Iterable

from shop_reporting.facts import EVENTS, SOURCES, Kind

ALL_KINDS = tuple(Kind)
assert set(EVENTS) == set(ALL_KINDS)

_UNDONE = Kind.REJECTED.bit | Kind.ORDER_REFUNDED.bit


def has(marks: str, *kinds: Kind) -> str:
    """Return the condition that one of these has happened."""
    return f"({marks} & {sum(kind.bit for kind in kinds)}) <> 0"


def settled(marks: str) -> str:
    """Return the condition that nothing is to come any more: the order is confirmed, or all done for it is undone."""

    def undone(done: Kind, by: Kind) -> str:
        return f"(NOT {has(marks, done)} OR {has(marks, by)})"

    rejected = " AND ".join(
        (
            has(marks, Kind.REJECTED),
            undone(Kind.RESERVED, Kind.RELEASED),
            undone(Kind.TAKEN, Kind.PAYMENT_REFUNDED),
            undone(Kind.BOOKED, Kind.CANCELLED),
        )
    )
    refunded = f"{has(marks, Kind.ORDER_REFUNDED)} AND {undone(Kind.TAKEN, Kind.PAYMENT_REFUNDED)}"
    return f"({has(marks, Kind.CONFIRMED)} OR ({rejected}) OR ({refunded}))"


def _open_since(marks: str, placed_at: str) -> str:
    return f"CASE WHEN NOT {settled(marks)} THEN {placed_at} END"


def _listed(parts: Iterable[str]) -> str:
    return ", ".join(parts)


def _among(kinds: Iterable[Kind]) -> str:
    return f"kind IN ({_listed(str(int(kind)) for kind in kinds)})"


_SEEN = {source.name: f"{source.name}_seen" for source in SOURCES}
_VALUES = {
    # column: (of which fact, which column of it)
    **{kind.column: (kind, "at") for kind in ALL_KINDS},
    "fulfilment": (Kind.PLACED, "code"),
    "currency": (Kind.PLACED, "currency"),
    "total_minor": (Kind.PLACED, "minor"),
    "code": (Kind.REJECTED, "code"),
    "reason": (Kind.REJECTED, "reason"),
    "taken_currency": (Kind.TAKEN, "currency"),
    "taken_minor": (Kind.TAKEN, "minor"),
    "refunded_currency": (Kind.PAYMENT_REFUNDED, "currency"),
    "refunded_minor": (Kind.PAYMENT_REFUNDED, "minor"),
}
"""Each is told by one kind of fact, which happens to an order once: so the first that comes is as good as the last."""


def _day(column: str) -> str:
    return f"({column} AT TIME ZONE 'UTC')::date"


def _grown(marks: str, gate: int) -> str:
    """Return what counts since the row before: all of it once `gate` has happened, then what is new."""
    return (
        f"CASE WHEN marks_before & {gate} <> 0 THEN {marks} & ~marks_before WHEN {marks} & {gate} <> 0 THEN {marks}"
        " ELSE 0 END"
    )


def _counts(kinds: Iterable[Kind], of: str) -> str:
    return _listed(f"count(*) FILTER (WHERE {has(of, kind)}) AS {_count(kind)}" for kind in kinds)


def _count(kind: Kind) -> str:
    return kind.column.removesuffix("_at")


def _added(table: str, columns: Iterable[str]) -> str:
    return _listed(f"{column} = {table}.{column} + excluded.{column}" for column in columns)


FUNNEL = (
    Kind.PLACED,
    Kind.RESERVED,
    Kind.TAKEN,
    Kind.BOOKED,
    Kind.CONFIRMED,
    Kind.REJECTED,
    Kind.ORDER_REFUNDED,
    Kind.DISPATCHED,
)
UNDONE = (
    Kind.RESERVED,
    Kind.RELEASED,
    Kind.TAKEN,
    Kind.PAYMENT_REFUNDED,
    Kind.BOOKED,
    Kind.CANCELLED,
)
_SALES = ("placed", "placed_minor", "taken", "taken_minor", "refunded", "refunded_minor")
FROM_PARAMETERS = (
    "SELECT * FROM unnest($1::text[], $2::smallint[], $3::bigint[], $4::timestamptz[], $5::text[], $6::bigint[],"
    " $7::text[], $8::text[], $9::smallint[])"
    " AS fact (order_id, kind, version, at, currency, minor, code, reason, shard)"
)
"""Facts as `facts.columns` gives them."""


def take(schema: str, facts: str = FROM_PARAMETERS) -> str:
    """Return the statement that takes facts into the projection of a schema; it returns how many new gaps there are."""
    columns = [*_SEEN.values(), *_VALUES]
    patch = [
        *(
            f"coalesce(bit_or(1::bigint << (version - 1)::integer)"
            f" FILTER (WHERE {_among(dict(source.kinds.values()))}), 0) AS {_SEEN[source.name]}"
            for source in SOURCES
        ),
        *(f"max({column}) FILTER (WHERE kind = {int(kind)}) AS {name}" for name, (kind, column) in _VALUES.items()),
    ]
    merged = [
        *(f"{column} = o.{column} | excluded.{column}" for column in _SEEN.values()),
        *(f"{column} = coalesce(o.{column}, excluded.{column})" for column in _VALUES),
    ]
    new = " OR ".join(f"excluded.{column} & ~o.{column} <> 0" for column in _SEEN.values())
    funnel = [_count(kind) for kind in FUNNEL]
    undone = ["orders", *(_count(kind) for kind in UNDONE)]
    return f"""
WITH fact AS ({facts}), patch AS (
    SELECT order_id, min(shard) AS shard, bit_or(1 << kind) AS marks, {_listed(patch)}
    FROM fact GROUP BY order_id
), written AS (
    INSERT INTO {schema}.order_fact AS o (order_id, shard, marks, open_since, {_listed(columns)})
    SELECT order_id, shard, marks, {_open_since("marks", "placed_at")}, {_listed(columns)} FROM patch ORDER BY order_id
    ON CONFLICT (order_id) DO UPDATE SET
        marks_before = o.marks, marks = o.marks | excluded.marks,
        open_since = {_open_since("(o.marks | excluded.marks)", "coalesce(o.placed_at, excluded.placed_at)")},
        {_listed(merged)}
    WHERE {new}
    RETURNING *
), grown AS (
    SELECT *, marks & ~marks_before AS fresh, {_grown("marks", Kind.PLACED.bit)} AS counted,
        {_grown("marks", _UNDONE)} AS ended FROM written
), sale AS (
    SELECT shard, {_day("placed_at")} AS day, currency, 1 AS placed, total_minor AS placed_minor, 0 AS taken,
        0 AS taken_minor, 0 AS refunded, 0 AS refunded_minor FROM grown WHERE {has("fresh", Kind.PLACED)}
    UNION ALL SELECT shard, {_day("taken_at")}, taken_currency, 0, 0, 1, taken_minor, 0, 0
        FROM grown WHERE {has("fresh", Kind.TAKEN)}
    UNION ALL SELECT shard, {_day("payment_refunded_at")}, refunded_currency, 0, 0, 0, 0, 1, refunded_minor
        FROM grown WHERE {has("fresh", Kind.PAYMENT_REFUNDED)}
), sales AS (
    INSERT INTO {schema}.sales_sum AS s (shard, day, currency, {_listed(_SALES)})
    SELECT shard, day, currency, {_listed(f"sum({column})" for column in _SALES)} FROM sale
    GROUP BY shard, day, currency ORDER BY shard, day, currency
    ON CONFLICT (shard, day, currency) DO UPDATE SET {_added("s", _SALES)}
), funnel AS (
    INSERT INTO {schema}.funnel_sum AS s (shard, day, fulfilment, {_listed(funnel)})
    SELECT shard, {_day("placed_at")} AS day, fulfilment, {_counts(FUNNEL, "counted")} FROM grown WHERE counted <> 0
    GROUP BY shard, day, fulfilment ORDER BY shard, day, fulfilment
    ON CONFLICT (shard, day, fulfilment) DO UPDATE SET {_added("s", funnel)}
), undone AS (
    INSERT INTO {schema}.undone_sum AS s (shard, day, code, {_listed(undone)})
    SELECT shard, {_day("coalesce(rejected_at, order_refunded_at)")} AS day,
        CASE WHEN rejected_at IS NULL THEN 'REFUNDED' ELSE coalesce(code, '') END AS code,
        count(*) FILTER (WHERE {has("ended", Kind.REJECTED, Kind.ORDER_REFUNDED)}) AS orders, {_counts(UNDONE, "ended")}
    FROM grown WHERE ended <> 0 GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
    ON CONFLICT (shard, day, code) DO UPDATE SET {_added("s", undone)}
), hole AS (
    SELECT order_id, source FROM written, LATERAL (VALUES {_listed(f"('{n}', {c})" for n, c in _SEEN.items())})
        AS told (source, seen) WHERE seen & (seen + 1) <> 0
), closed AS (
    DELETE FROM {schema}.version_gap AS g USING written AS w WHERE g.order_id = w.order_id
        AND NOT EXISTS (SELECT FROM hole WHERE hole.order_id = g.order_id AND hole.source = g.source)
), gap AS (
    INSERT INTO {schema}.version_gap (order_id, source) SELECT order_id, source FROM hole ORDER BY order_id, source
    ON CONFLICT DO NOTHING RETURNING 1
)
SELECT count(*) FROM gap
"""  # noqa: S608 - names of our own
