"""The SQL of the writer: one statement a batch, made of the parts that the batch needs.

The statement locks the rows of the runs it writes for, in the order of their ids, and compares fences on what it
locked. A takeover therefore either waits for it or makes it see the new fence; without the lock a row could be
committed after the new owner has read the journal. NO KEY UPDATE is taken rather than SHARE, which would do,
because some of the rows are updated too, and a lock that is never raised cannot deadlock.

What a batch brings comes as one array for each column; a batch of one run brings plain values instead, which cost
both ends less.

`(x IN (SELECT ...)) IS TRUE` keeps the planner from a nested loop over both lists: it guesses ten rows for an array of
any length. `connect` forces generic plans, because planning takes longer than running.
"""

from __future__ import annotations

from collections.abc import Mapping

from amends_events.outbox import COLUMNS

from amends_orchestrator.journal.records import State
from amends_orchestrator.journal.telling import DELIVERY_COLUMNS, OUTBOX_COLUMNS

# The columns of each part with their types, in the order of its parameters. Those of a start begin with the columns of
# its first record, which are used alone too.
HELD = {"id": "uuid", "fence": "bigint"}
ROW = {"run_id": "uuid", "seq": "bigint", "fence": "bigint", "record": "bytea"}
CHANGE = {
    "id": "uuid",
    "state": "smallint",
    "release": "boolean",
    "due": "interval",
    "step": "text",
    "reason": "text",
    "message": "text",
    "skipped": "integer",
    "stalled": "interval",
    "next_attempt": "interval",
}
START = {
    "id": "uuid",
    "record": "bytea",
    "namespace": "text",
    "saga": "text",
    "idempotency_key": "text",
    "payload": "bytea",
    "digest": "bytea",
    "rules": "smallint",
    "owner": "uuid",
    "traceparent": "text",
}
EVENT = {"run_id": "uuid", "version": "bigint", **COLUMNS, "publish": "boolean", "webhooks": "text"}
WEBHOOKS_ARE_JOINED_BY = " "

_OWNED = """
owned AS MATERIALIZED (
    SELECT run.id FROM run JOIN {held} ON run.id = held.id AND run.fence = held.fence
    ORDER BY run.id FOR NO KEY UPDATE OF run
)"""

_APPENDED = """
appended AS (
    INSERT INTO journal (run_id, seq, fence, record)
    SELECT run_id, seq, fence, record FROM {row} WHERE (run_id IN (SELECT id FROM owned)) IS TRUE
)"""

_CHANGED = """
changed AS (
    UPDATE run SET
        state = change.state, owner = CASE WHEN change.release THEN NULL ELSE run.owner END,
        due_at = clock_timestamp() + change.due,
        ended_at = CASE WHEN change.state >= {completed} THEN clock_timestamp() END,
        step = change.step, reason = change.reason, message = change.message, skipped_by_person = change.skipped,
        stalled_since = clock_timestamp() - change.stalled, next_attempt_at = clock_timestamp() + change.next_attempt
    FROM {change}
    WHERE run.id = change.id AND (change.id IN (SELECT id FROM owned)) IS TRUE
)"""

_STARTED = """
started AS (
    INSERT INTO run (id, namespace, saga, idempotency_key, payload, digest, rules, owner, due_at, traceparent,
                     fence, state)
    SELECT id, namespace, saga, idempotency_key, payload, digest, rules, owner,
           CASE WHEN owner IS NULL THEN clock_timestamp() END, traceparent, 1, 1
    FROM {start}
    ORDER BY namespace, idempotency_key
    ON CONFLICT (namespace, idempotency_key) DO NOTHING
    RETURNING id
), first AS (
    INSERT INTO journal (run_id, seq, fence, record)
    SELECT id, 1, 1, record FROM {record} WHERE (id IN (SELECT id FROM started)) IS TRUE
)"""

# The order of a run's events is that of their numbers, which rows get as they come. The filter is applied first, so the
# rows of the runs are locked before an event has its number.
_TOLD = """
event AS MATERIALIZED (
    SELECT * FROM {event} WHERE (run_id IN ({taken})) IS TRUE
), told AS (
    INSERT INTO outbox ({columns}) SELECT {columns} FROM event WHERE publish
)"""

_DELIVERED = """
delivered AS (
    INSERT INTO webhook_delivery (webhook, {columns})
    SELECT webhook, {columns} FROM event, unnest(string_to_array(webhooks, '{by}')) AS webhook
)"""

_LOST = "SELECT id FROM {held} WHERE id NOT IN (SELECT id FROM owned)"
_KNOWN = "SELECT id FROM {asked} WHERE id NOT IN (SELECT id FROM started)"


def batch_statement(*, starts: bool, rows: bool, changes: bool, events: bool, webhooks: bool, one: bool) -> str:
    """Return the SQL of a batch; it returns the refused ids: fenced runs, and starts whose key exists.

    Its parameters are those of `held` and `row`, of `change`, of `start` and of `event`, as far as they are wanted.
    `one` tells that the batch is about one run: then only the columns of `row` and `event` are arrays. `webhooks` tells
    that some of the events go to webhooks.
    """
    parts: list[str] = []
    answers: list[str] = []
    used = 0

    def take(name: str, columns: Mapping[str, str], *, plain: bool = one) -> str:
        nonlocal used
        source = _source(name, columns, used, plain=plain)
        used += len(columns)
        return source

    if rows:
        answers.append(_LOST.format(held=_source("held", _first(HELD, 1), used, plain=one)))
        parts.append(_OWNED.format(held=take("held", HELD)))
        parts.append(_APPENDED.format(row=take("row", ROW, plain=False)))
    if changes:
        parts.append(_CHANGED.format(change=take("change", CHANGE), completed=int(State.COMPLETED)))
    if starts:
        answers.append(_KNOWN.format(asked=_source("asked", _first(START, 1), used, plain=one)))
        record = _source("made", _first(START, 2), used, plain=one)
        parts.append(_STARTED.format(start=take("start", START), record=record))
    if events:
        taken = " UNION ALL ".join(["SELECT id FROM owned"] * rows + ["SELECT id FROM started"] * starts)
        event = take("brought", EVENT, plain=False)
        parts.append(_TOLD.format(columns=OUTBOX_COLUMNS, event=event, taken=taken))
    if webhooks:
        parts.append(_DELIVERED.format(columns=DELIVERY_COLUMNS, by=WEBHOOKS_ARE_JOINED_BY))
    return "WITH " + ", ".join(parts) + "\n" + "\nUNION ALL ".join(answers)


def _first(columns: Mapping[str, str], count: int) -> dict[str, str]:
    return dict([*columns.items()][:count])


def _source(name: str, columns: Mapping[str, str], before: int, *, plain: bool) -> str:
    """Return SQL for a table of the parameters that follow the first `before`."""
    names = ", ".join(columns)
    if plain:
        values = ", ".join(f"${before + at}::{kind}" for at, kind in enumerate(columns.values(), 1))
        return f"(VALUES ({values})) AS {name} ({names})"
    arrays = ", ".join(f"${before + at}::{kind}[]" for at, kind in enumerate(columns.values(), 1))
    return f"unnest({arrays}) AS {name} ({names})"


# Which rows of a batch are in the journal already, and under which fence.
PRESENT = """
SELECT journal.run_id, journal.seq, journal.fence, journal.record
FROM journal JOIN unnest($1::uuid[], $2::bigint[]) AS asked (run_id, seq)
    ON journal.run_id = asked.run_id AND journal.seq = asked.seq
"""

# The runs that have the keys of refused starts.
HOLDERS = """
SELECT run.id, run.namespace, run.idempotency_key, run.payload
FROM run JOIN unnest($1::text[], $2::text[]) AS asked (namespace, key)
    ON run.namespace = asked.namespace AND run.idempotency_key = asked.key
"""
