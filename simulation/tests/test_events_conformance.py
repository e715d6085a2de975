"""The tables of the simulation do what Postgres does: each statement of relay and consumer, on the same rows.

Both execute the library's own text with the same parameters, in autocommit, while another session holds a row. What
they answer, and all rows afterwards, must agree.
"""

import asyncio
import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

import asyncpg
import pytest_asyncio
from amends_embedded import Postgres
from amends_events import INBOX, OUTBOX, Outbox, leases, parked, partition, relay, with_event
from amends_simulation.events.statements import NOTE, PAY, STATEMENTS
from amends_simulation.events.tables import EventTables, SimulatedSession
from amends_simulation.virtual import database_now, run_virtually

from shop.payments.events.v1.payments_pb2 import PaymentTaken

TEXTS = {
    PAY: with_event(
        "INSERT INTO payment VALUES ($1, 1) ON CONFLICT (order_id) DO UPDATE SET version = payment.version + 1"
        " RETURNING version",
        1,
    ),
    NOTE: "INSERT INTO effect (consumer, event_id, key, version) VALUES ($1, $2, $3, $4)",
}
"""What the two statements of the simulation's own stand for."""
OWN = """
CREATE TABLE payment (order_id text PRIMARY KEY, version bigint NOT NULL);
CREATE TABLE effect (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, consumer text, event_id uuid, key text, version bigint);
"""
KEYS = {
    "payment": ("order_id",),
    "outbox": ("seq",),
    "inbox": ("consumer", "event_id"),
    "inbox_position": ("consumer", "topic", "partition"),
    "inbox_member": ("consumer", "owner"),
    "inbox_parked": ("consumer", "topic", "partition", "position"),
    "effect": ("number",),
}
TOPIC, MINUTE = "t", timedelta(minutes=1)
ONE, TWO, THREE, FOUR = (UUID(int=number) for number in range(1, 5))
Statement = tuple[str, tuple[Any, ...]]
Table = dict[tuple[Any, ...], dict[str, Any]]


HOLD, LET_GO = "another session holds a position", "it lets go"


def payment(order_id: str) -> tuple[Any, ...]:
    return Outbox("/test", [PaymentTaken]).row(PaymentTaken(order_id=order_id)).values


def parks(at: int, event_id: UUID, key: str, reason: str) -> tuple[Any, ...]:
    return ("c", TOPIC, 0, at, event_id, key, "type", json.dumps({"id": str(event_id)}), b"p%d" % at, reason, "", 5)


def story() -> list[Statement]:
    """Return statements in an order in which each finds rows that it has to leave alone."""
    pays = [(PAY, (key, *payment(key))) for key in ("o-1", "o-2", "o-1")]
    at = datetime(2030, 1, 1, tzinfo=UTC)
    place = ("c", TOPIC, 0)
    return [
        *pays,
        (relay._READ, ([pays[0][1][2], pays[1][1][2]], [pays[0][1][3], pays[1][1][3]], [0, 0], 1)),
        (relay._READ, ([pays[0][1][2], "other"], [pays[0][1][3], 0], [1, 0], 10)),
        (relay._BACKLOG, (10,)),
        (relay._BACKLOG, (2,)),
        (relay._DELETE, ([1, 3, 99],)),
        (leases._MAKE, ("c", [TOPIC, TOPIC, TOPIC, TOPIC], [0, 1, 2, 3])),
        (leases._MAKE, ("c", [TOPIC, TOPIC], [3, 4])),
        (leases._MAKE, ("d", [TOPIC], [0])),
        (leases._JOIN, ("c", "a", MINUTE)),
        (leases._JOIN, ("c", "a", 2 * MINUTE)),
        (leases._JOIN, ("c", "gone", -MINUTE)),
        (leases._JOIN, ("c", "long gone", -100 * MINUTE)),
        (leases._JOIN, ("d", "long gone", -100 * MINUTE)),
        (leases._FORGET, ("c",)),
        (leases._MEMBERS, ("c",)),
        (leases._CLAIM, ("c", "gone", -MINUTE, 2, [TOPIC])),
        (leases._CLAIM, ("c", "a", MINUTE, 1, [TOPIC])),
        (HOLD, ("c", TOPIC, 4)),
        (leases._CLAIM, ("c", "b", MINUTE, 9, [TOPIC])),
        (LET_GO, ()),
        (leases._CLAIM, ("c", "a", MINUTE, 9, ["another"])),
        (leases._CLAIM, ("c", "a", MINUTE, 9, ["another", TOPIC])),
        (leases._OWNED, ("c", "b")),
        (HOLD, ("c", TOPIC, 1)),
        (leases._RENEW, ("c", "b", 9 * MINUTE)),
        (LET_GO, ()),
        (leases._RENEW, ("d", "b", MINUTE)),
        (leases._RELEASE, ("c", TOPIC, 1, "b", 1)),
        (leases._RELEASE, ("c", TOPIC, 1, "a", 2)),
        (leases._RELEASE, ("c", TOPIC, 2, "b", 1)),
        (leases._LEAVE, ("c", "gone")),
        (leases._LEAVE, ("d", "a")),
        (partition._ADVANCE, (*place, 2, TWO, at, 2, [ONE, TWO, TWO])),
        (partition._ADVANCE, (*place, 5, THREE, at, 2, [TWO, THREE])),
        (partition._ADVANCE, (*place, 9, FOUR, at, 1, [FOUR])),
        (partition._ADVANCE, ("x", TOPIC, 0, 9, FOUR, at, 1, [FOUR])),
        (partition._ADVANCE, ("d", TOPIC, 0, 1, None, None, 0, [])),
        (partition._MINE, (*place, 2)),
        (partition._MINE, (*place, 1)),
        (NOTE, ("c", ONE, "o-1", 1)),
        (parked._TAKEN, (*place, [3], [THREE], [b"p3"])),
        (parked._PARK, parks(3, THREE, "o-1", "failed")),
        (parked._PARK, parks(4, FOUR, "o-1", "after")),
        (parked._PARK, parks(4, FOUR, "o-1", "after")),
        (parked._PARK, parks(2, TWO, "o-2", "after")),
        (parked._TAKEN, (*place, [3, 7], [THREE, ONE], [b"p3", b"p7"])),
        (parked._TAKEN, (*place, [3, 7], [ONE, ONE], [b"p3", b"p7"])),
        (parked._TAKEN, (*place, [3], [None], [b"p3"])),
        (parked._BLOCKED, place),
        (parked._BLOCKED, ("c", TOPIC, 1)),
        (parked._DECIDED, place),
        (parked._FIRST, (*place, "o-1")),
        (parked._FIRST, (*place, "o-9")),
        (parked._DECIDE, (*place, 3, "retry", "me", "because")),
        (parked._DECIDED, place),
        (parked._AGAIN, (*place, 3, "undecodable", "no", 1)),
        (parked._DECIDED, place),
        (parked._RELEASE, (*place, 3, 1)),
        (parked._DECIDED, place),
        (parked._FIRST, (*place, "o-1")),
        (parked._BLOCKED, place),
        (parked._PARK, parks(3, THREE, "o-1", "failed")),
        (parked._MAKE_ROOM, place),
    ]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def url(postgres: Postgres) -> str:
    made = await postgres.create("events_conformance", "events_conformance")
    connection = await asyncpg.connect(made)
    await connection.execute(OUTBOX + INBOX + OWN)
    await connection.close()
    return made


def answer(text: str, rows: Iterable[Any]) -> list[tuple[Any, ...]]:
    found = [tuple(map(seen, dict(row).values())) for row in rows]
    return found if text == parked._DECIDED else sorted(found, key=str)


def seen(value: Any) -> Any:
    """Return what can be compared of a value: of a time, and of one that has passed, on which side of now it is."""
    if isinstance(value, datetime):
        return "then"
    if isinstance(value, timedelta):
        return "some time"
    if isinstance(value, list):
        return sorted(map(seen, value))
    return value


def compared(name: str, rows: Table, now: datetime) -> dict[tuple[Any, ...], Any]:
    """Return the rows of a table with what both know; leases are compared to the minute."""
    left_out = {"event_at", "occurred_at", "at", "parked_at", "decided_by", "decided_because", "decided_at"}
    found = {}
    for key, row in rows.items():
        kept = {column: value for column, value in row.items() if column not in left_out | {*KEYS[name]}}
        if kept.get("lease_until") is not None:
            kept["lease_until"] = round((kept["lease_until"] - now) / MINUTE)
        if "released_at" in kept:
            kept["released_at"] = kept["released_at"] is not None
        found[key] = kept
    return found


async def real(connection: asyncpg.Connection, other: asyncpg.Connection) -> tuple[list[Any], dict[str, Any]]:
    """Return what Postgres answers, and its rows in the end."""
    answers: list[Any] = []
    for text, values in story():
        if text == HOLD:
            await other.execute("BEGIN")
            place = "consumer = $1 AND topic = $2 AND partition = $3"
            await other.execute(f"SELECT FROM inbox_position WHERE {place} FOR UPDATE", *values)
        elif text == LET_GO:
            await other.execute("ROLLBACK")
        else:
            answers.append(answer(text, await connection.fetch(TEXTS.get(text, text), *values)))
    now = await connection.fetchval("SELECT now()")
    tables = {}
    for name, key in KEYS.items():
        rows = [dict(row) for row in await connection.fetch(f"SELECT * FROM {name}")]
        tables[name] = compared(name, {tuple(row[column] for column in key): row for row in rows}, now)
    return answers, tables


async def simulated() -> tuple[list[Any], dict[str, Any]]:
    """Return what the simulation answers, and its rows in the end."""
    tables = EventTables(Random(0), STATEMENTS)
    session, other = SimulatedSession(tables, at_once), SimulatedSession(tables, at_once)
    answers: list[Any] = []
    for text, values in story():
        if text == HOLD:
            await other.lock("inbox_position", values)
        elif text == LET_GO:
            await other.execute("ROLLBACK")
        else:
            answers.append(answer(text, await session.fetch(text, *values)))
    return answers, {name: compared(name, tables.table(name), database_now()) for name in KEYS}


async def at_once() -> None:
    """Wait for nothing."""


async def test_each_statement_answers_as_postgres_does_and_leaves_the_same_rows(url):
    connection, other = await asyncpg.connect(url), await asyncpg.connect(url)
    answers, tables = await real(connection, other)
    await connection.close()
    await other.close()
    theirs, rows = await asyncio.to_thread(run_virtually, simulated())
    asked = [one for one in story() if one[0] not in (HOLD, LET_GO)]
    for (text, values), ours, its in zip(asked, answers, theirs, strict=True):
        if text == relay._READ:  # their ids differ; the rows are compared below
            assert len(ours) == len(its), (text, values)
        else:
            assert ours == its, (text, values)
    for name in KEYS:
        assert rows[name].keys() == tables[name].keys(), name
        for key, row in rows[name].items():
            same = row.keys() - {"event_id", "attributes"}
            assert {one: tables[name][key][one] for one in same} == {one: row[one] for one in same}, (name, key)


def test_every_statement_of_the_simulation_is_compared():
    assert {text for text, _ in story()} >= STATEMENTS.keys() - {"SELECT pg_try_advisory_lock($1, $2)"}
