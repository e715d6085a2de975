"""Orders in Postgres: every function is one change inside a transaction that its caller owns.

`api.py` and `order_process.py` call it. Every change touches one order's row, so nothing here can deadlock. The column
`follow_up_at` is the service's to-do list: `followup.py` claims what is due; code that leaves work sets it.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import asyncpg
from amends_events import with_event

from shop.orders.events.v1.orders_pb2 import (
    OrderConfirmed,
    OrderDispatched,
    OrderPlaced,
    OrderRefunded,
    OrderRejected,
)
from shop.types.v1 import types_pb2
from shop_orders.domain import (
    Address,
    Content,
    Fulfilment,
    Line,
    Money,
    Order,
    OrderClosed,
    OrderState,
    unknown,
)

if TYPE_CHECKING:
    from amends_chassis.database import Connection
    from amends_events import Outbox

GRACE = timedelta(seconds=5)
"""How long PlaceOrder has to start the saga itself before the follow-up does it."""

FIRST_CHECK = timedelta(seconds=1)
"""How long after its start a saga is asked for its end for the first time."""

DEADLINE = "DEADLINE"
"""Why an order is rejected that took too long, for programs."""

FULFILMENTS: Mapping[Fulfilment, types_pb2.Fulfilment.ValueType] = {
    Fulfilment.ORCHESTRATED: types_pb2.FULFILMENT_ORCHESTRATED,
    Fulfilment.CHOREOGRAPHED: types_pb2.FULFILMENT_CHOREOGRAPHED,
}

WAKE = timedelta(seconds=5)
"""An order that a customer asks for is followed up within this time, even if its next turn was later."""

_ADD = with_event(
    "INSERT INTO orders (order_id, digest, customer_id, currency, total_minor, card_token,"
    " recipient, street, city, postal_code, country, fulfilment, follow_up_at, deadline)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, now() + $13::interval, now() + $14::interval)"
    " ON CONFLICT (order_id) DO NOTHING RETURNING version, told_at[version] AS occurred_at",
    14,
    timed=True,
)
_CONFIRM = with_event(
    "UPDATE orders SET state = 'confirmed', tracking_id = $2, payment_id = $3, card_token = NULL, attention = NULL,"
    " ended_at = now(), follow_up_at = now(), follow_up_tries = 0, version = version + 1,"
    " told_at = told_at || clock_timestamp()"
    " WHERE order_id = $1 RETURNING version, told_at[version] AS occurred_at",
    3,
    timed=True,
)
_REJECT = with_event(
    "UPDATE orders SET state = 'rejected', reason = $2, code = $3, card_token = NULL, attention = NULL,"
    " follow_up_at = NULL, ended_at = now(), version = version + 1, told_at = told_at || clock_timestamp()"
    " WHERE order_id = $1 AND state = 'pending' RETURNING version, told_at[version] AS occurred_at",
    3,
    timed=True,
)
_REFUND = with_event(
    "UPDATE orders SET state = 'refunded', card_token = NULL, attention = $2, follow_up_at = NULL,"
    " ended_at = now(), version = version + 1, told_at = told_at || clock_timestamp()"
    " WHERE order_id = $1 AND state = 'pending' RETURNING version, told_at[version] AS occurred_at",
    2,
    timed=True,
)
_DISPATCHED = with_event(
    "UPDATE orders SET follow_up_at = NULL, version = version + 1, told_at = told_at || clock_timestamp()"
    " WHERE order_id = $1 AND state = 'confirmed' AND follow_up_at IS NOT NULL"
    " RETURNING version, told_at[version] AS occurred_at",
    1,
    timed=True,
)

_LOCK = """
SELECT state, tracking_id, payment_id, customer_id, currency, total_minor, fulfilment,
       coalesce(deadline <= now(), false) AS is_late
FROM orders WHERE order_id = $1 FOR UPDATE
"""
_NOTE_PAPERS = """
UPDATE orders SET tracking_id = coalesce($2, tracking_id), payment_id = coalesce($3, payment_id)
WHERE order_id = $1 AND state = 'pending' AND fulfilment = 'choreographed' RETURNING tracking_id, payment_id
"""

_ORDER = """
SELECT o.*,
       ARRAY(SELECT sku FROM order_line l WHERE l.order_id = o.order_id ORDER BY sku) AS skus,
       ARRAY(SELECT quantity FROM order_line l WHERE l.order_id = o.order_id ORDER BY sku) AS quantities
FROM orders o
"""


async def digest_of(connection: "Connection", order_id: str) -> bytes | None:
    """Read the digest of the content that the order was placed with; None when there is no such order."""
    digest: bytes | None = await connection.fetchval("SELECT digest FROM orders WHERE order_id = $1", order_id)
    return digest


async def add(
    connection: "Connection",
    outbox: "Outbox",
    order_id: str,
    content: Content,
    total: Money,
    unit_prices: Mapping[str, Money],
    deadline: timedelta | None = None,
) -> bool:
    """Write down a new PENDING order; False when there is one with this id already.

    `deadline` is that of a choreographed order, of which the card is kept elsewhere; None for an orchestrated one.
    """
    address = content.address
    fulfilment = Fulfilment.ORCHESTRATED if deadline is None else Fulfilment.CHOREOGRAPHED
    placed = outbox.row(
        OrderPlaced(
            order_id=order_id,
            customer_id=content.customer_id,
            lines=[types_pb2.Line(sku=line.sku, quantity=line.quantity) for line in content.lines],
            total=types_pb2.Money(currency=total.currency, minor=total.minor),
            fulfilment=FULFILMENTS[fulfilment],
            unit_prices=[
                types_pb2.Money(currency=unit_prices[line.sku].currency, minor=unit_prices[line.sku].minor)
                for line in content.lines
            ],
        )
    )
    added = await connection.fetchval(
        _ADD,
        order_id,
        content.digest(order_id),
        content.customer_id,
        total.currency,
        total.minor,
        content.card_token if deadline is None else None,
        address.recipient,
        address.street,
        address.city,
        address.postal_code,
        address.country,
        fulfilment,
        GRACE if deadline is None else deadline,
        deadline,
        *placed.values,
    )
    if not added:
        return False
    await connection.execute(
        "INSERT INTO order_line (order_id, sku, quantity, unit_minor)"
        " SELECT $1, line.* FROM unnest($2::text[], $3::int[], $4::bigint[]) AS line",
        order_id,
        [line.sku for line in content.lines],
        [line.quantity for line in content.lines],
        [unit_prices[line.sku].minor for line in content.lines],
    )
    return True


async def order_of(connection: "Connection", order_id: str) -> Order:
    """Read an order. Raises OrderUnknown."""
    row = await connection.fetchrow(f"{_ORDER} WHERE o.order_id = $1", order_id)
    if row is None:
        raise unknown(order_id)
    return _order(row)


async def page(
    connection: "Connection", customer_id: str | None, before: tuple[datetime, str] | None, size: int
) -> Sequence[Order]:
    """Read up to `size` orders, newest first, of one customer or all, older than the order `before`."""
    placed_at, order_id = before or (None, None)
    rows = await connection.fetch(
        f"{_ORDER} WHERE ($1::text IS NULL OR o.customer_id = $1)"
        " AND ($2::timestamptz IS NULL OR (o.placed_at, o.order_id) < ($2, $3))"
        " ORDER BY o.placed_at DESC, o.order_id DESC LIMIT $4",
        customer_id,
        placed_at,
        order_id,
        size,
    )
    return [_order(row) for row in rows]


async def started(connection: "Connection", order_id: str, run_id: str) -> None:
    """Note the run of the order's saga and erase the card's token, which the orchestrator has now."""
    await connection.execute(
        "UPDATE orders SET run_id = $2, card_token = NULL, refused_since = NULL, attention = NULL, follow_up_tries = 0,"
        " follow_up_at = CASE state WHEN 'pending' THEN now() + $3::interval ELSE follow_up_at END"
        " WHERE order_id = $1 AND run_id IS NULL",
        order_id,
        run_id,
        FIRST_CHECK,
    )


async def confirm(connection: "Connection", outbox: "Outbox", order_id: str, tracking_id: str, payment_id: str) -> None:
    """Make the order CONFIRMED, its stock to be dispatched next; again with the same papers: nothing.

    Raises OrderUnknown, OrderClosed.
    """
    row = await _locked(connection, order_id)
    if row is None:
        raise unknown(order_id)
    if row["state"] == OrderState.CONFIRMED and (row["tracking_id"], row["payment_id"]) == (tracking_id, payment_id):
        return
    if row["state"] != OrderState.PENDING:
        raise OrderClosed(f"order {order_id} was {row['state']} before")
    confirmed = outbox.row(
        OrderConfirmed(
            order_id=order_id,
            tracking_id=tracking_id,
            payment_id=payment_id,
            customer_id=row["customer_id"],
            total=types_pb2.Money(currency=row["currency"], minor=row["total_minor"]),
            fulfilment=_fulfilment_of(row),
        )
    )
    await connection.execute(_CONFIRM, order_id, tracking_id, payment_id, *confirmed.values)


async def note_papers(
    connection: "Connection", outbox: "Outbox", order_id: str, *, tracking_id: str = "", payment_id: str = ""
) -> None:
    """Note the payment or the parcel of a choreographed order, and make it CONFIRMED when it has both.

    Nothing changes for another order, nor for one that is not PENDING any more.
    """
    row = await connection.fetchrow(_NOTE_PAPERS, order_id, tracking_id or None, payment_id or None)
    if row is not None and row["tracking_id"] and row["payment_id"]:
        await confirm(connection, outbox, order_id, row["tracking_id"], row["payment_id"])


async def reject(connection: "Connection", outbox: "Outbox", order_id: str, reason: str, code: str = "") -> None:
    """Make the order REJECTED if it is still PENDING; nothing is left to do then. `code` is why, for programs."""
    row = await _locked(connection, order_id)
    if row is None or row["state"] != OrderState.PENDING:
        return
    rejected = outbox.row(
        OrderRejected(
            order_id=order_id,
            reason=reason,
            code=code,
            customer_id=row["customer_id"],
            fulfilment=_fulfilment_of(row),
        )
    )
    await connection.execute(_REJECT, order_id, reason, code, *rejected.values)


async def reject_choreographed(
    connection: "Connection", outbox: "Outbox", order_id: str, reason: str, code: str
) -> None:
    """Make a choreographed order REJECTED if it is still PENDING, because somebody refused. Others stay as they are."""
    row = await _locked(connection, order_id)
    if row is not None and row["fulfilment"] == Fulfilment.CHOREOGRAPHED:
        await reject(connection, outbox, order_id, reason, code)


async def reject_late(connection: "Connection", outbox: "Outbox", order_id: str) -> bool:
    """Make a choreographed order REJECTED if it is still PENDING after its deadline; tell whether that has passed."""
    row = await _locked(connection, order_id)
    if row is None or not row["is_late"]:
        return False
    await reject(connection, outbox, order_id, "the order took too long", DEADLINE)
    return True


async def refund(connection: "Connection", outbox: "Outbox", order_id: str, to_do: str) -> None:
    """Make the order REFUNDED if it is still PENDING. `to_do` says what a person has to see to."""
    row = await _locked(connection, order_id)
    if row is not None:
        refunded = outbox.row(OrderRefunded(order_id=order_id, customer_id=row["customer_id"]))
        await connection.execute(_REFUND, order_id, to_do, *refunded.values)


async def _locked(connection: "Connection", order_id: str) -> asyncpg.Record | None:
    """Lock the order's row: what becomes of a PENDING order is decided by whoever has it first."""
    return await connection.fetchrow(_LOCK, order_id)


def _fulfilment_of(row: asyncpg.Record) -> types_pb2.Fulfilment.ValueType:
    return FULFILMENTS[Fulfilment(row["fulfilment"])]


async def refused(connection: "Connection", order_id: str, steady: timedelta) -> bool:
    """Note that the orchestrator refuses the order and knows no run of it; True when it has for `steady` by now."""
    is_steady = await connection.fetchval(
        "UPDATE orders SET refused_since = coalesce(refused_since, now())"
        " WHERE order_id = $1 AND state = 'pending' RETURNING refused_since <= now() - $2::interval",
        order_id,
        steady,
    )
    return bool(is_steady)


async def not_refused(connection: "Connection", order_id: str) -> None:
    """Forget refusals: a question about the order was not answered, so a run may begin after all."""
    await connection.execute(
        "UPDATE orders SET refused_since = NULL WHERE order_id = $1 AND refused_since IS NOT NULL", order_id
    )


async def needs_attention(connection: "Connection", order_id: str, why: str | None) -> None:
    """Say what a person has to decide before a PENDING order can go on; None without such a decision."""
    await connection.execute(
        "UPDATE orders SET attention = $2 WHERE order_id = $1 AND state = 'pending' AND attention IS DISTINCT FROM $2",
        order_id,
        why,
    )


async def wake(connection: "Connection", order_id: str) -> None:
    """Let a PENDING order be followed up soon, because a customer asks for it; at most once within `WAKE`."""
    await connection.execute(
        "UPDATE orders SET follow_up_at = now(), follow_up_tries = 0"
        " WHERE order_id = $1 AND state = 'pending' AND fulfilment = 'orchestrated'"
        " AND follow_up_at > now() + $2::interval",
        order_id,
        WAKE,
    )


async def dispatched(connection: "Connection", outbox: "Outbox", order_id: str) -> None:
    """Note that the stock of a CONFIRMED order has left; nothing is left to do then."""
    await connection.execute(_DISPATCHED, order_id, *outbox.row(OrderDispatched(order_id=order_id)).values)


async def claim_due(
    connection: "Connection", limit: int, at_most: timedelta, waiting_at_most: timedelta
) -> Sequence[Order]:
    """Claim up to `limit` orders that are due for following up, oldest first.

    A claim postpones the order, each time longer: if the claimant dies, it will be due again. The pause
    grows up to `at_most`, and up to `waiting_at_most` when nothing but the end of the saga or a person is awaited.
    Claimants beside this one get other orders.
    """
    rows = await connection.fetch(
        "WITH due AS MATERIALIZED (SELECT order_id FROM orders WHERE follow_up_at <= now()"
        "   ORDER BY follow_up_at LIMIT $1 FOR UPDATE SKIP LOCKED)"
        " UPDATE orders o SET follow_up_tries = follow_up_tries + 1, follow_up_at = now() + least("
        "   CASE WHEN state = 'pending' AND (run_id IS NOT NULL OR attention IS NOT NULL)"
        "     THEN $3::interval ELSE $2::interval END,"
        "   interval '1 second' * 2 ^ least(follow_up_tries, 10))"
        " FROM due WHERE o.order_id = due.order_id RETURNING o.order_id",
        limit,
        at_most,
        waiting_at_most,
    )
    claimed = await connection.fetch(
        f"{_ORDER} WHERE o.order_id = ANY($1::text[]) ORDER BY o.placed_at", [row["order_id"] for row in rows]
    )
    return [_order(row) for row in claimed]


def _order(row: asyncpg.Record) -> Order:
    return Order(
        order_id=row["order_id"],
        customer_id=row["customer_id"],
        lines=tuple(Line(sku, quantity) for sku, quantity in zip(row["skus"], row["quantities"], strict=True)),
        total=Money(row["currency"], row["total_minor"]),
        address=Address(row["recipient"], row["street"], row["city"], row["postal_code"], row["country"]),
        state=OrderState(row["state"]),
        run_id=row["run_id"],
        tracking_id=row["tracking_id"],
        payment_id=row["payment_id"],
        reason=row["reason"],
        attention=row["attention"],
        placed_at=row["placed_at"],
        card_token=row["card_token"],
        fulfilment=Fulfilment(row["fulfilment"]),
    )
