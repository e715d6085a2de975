"""What a claim takes of many runs that are due, and what it looks at of many that are not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from amends_orchestrator.journal import claims, leases
from amends_orchestrator.journal.counts import count_runs
from amends_orchestrator.journal.ids import RunIds
from amends_orchestrator.journal.records import State

HOUR = timedelta(hours=1)

# A second between them; the first is due before the others.
_MAKE = """
INSERT INTO run (id, namespace, saga, idempotency_key, payload, digest, rules, fence, state, due_at)
SELECT gen_random_uuid(), 'shop', 'saga', gen_random_uuid()::text, '', '', 1, 1, 1,
       statement_timestamp() + $1 + second * interval '1 second'
FROM generate_series(0, 99) AS second
RETURNING id
"""

_MAKE_NAMED = """
INSERT INTO run (id, namespace, saga, idempotency_key, payload, digest, rules, fence, state, due_at)
SELECT id, 'shop', 'saga', id::text, '', '', 1, 1, 1, statement_timestamp() - interval '1 hour'
FROM unnest($1::uuid[]) AS id
"""


async def a_hundred(connection: asyncpg.Connection, due: timedelta) -> list[UUID]:
    """Runs that wait for an owner, the one that is due first before the others."""
    return [row[0] for row in await connection.fetch(_MAKE, due)]


async def test_runs_are_counted_by_what_they_wait_for(connection: asyncpg.Connection):
    kinds = {
        # state, owner, due, stalled, rules
        "parked": (3, None, None, None, 1),
        "running": (1, uuid4(), None, None, 1),
        "due": (1, None, HOUR, None, 1),
        "due and stalled": (1, None, HOUR, HOUR, 1),
        "of a newer release": (2, None, -HOUR, None, 9),
        "running and stalled": (1, uuid4(), None, HOUR, 9),
        "completed": (4, None, None, None, 9),
    }
    for key, (state, owner, due, stalled, rules) in kinds.items():
        await connection.execute(
            "INSERT INTO run (id, namespace, saga, idempotency_key, payload, digest, fence, state, owner, due_at,"
            " stalled_since, rules) VALUES (gen_random_uuid(), 'shop', 'saga', $1, '', '', 1, $2, $3,"
            " clock_timestamp() + $4, clock_timestamp() - $5::interval, $6)",
            key,
            state,
            owner,
            due,
            stalled,
            rules,
        )
    assert await count_runs(connection, rules=2) == {
        "parked": 1,
        "stalled": 2,
        "waiting": 3,
        "newer_rules": 1,
        "owned": 2,
    }


async def test_those_that_are_due_longest_are_taken_first(connection: asyncpg.Connection):
    younger = await a_hundred(connection, -HOUR)
    older = await a_hundred(connection, -2 * HOUR)
    taken = [{run.id for run in await claims.claim(connection, uuid4(), rules=1)} for _ in range(5)]
    assert taken == [set(part) for part in (older[:64], (*older[64:], *younger[:28]), younger[28:92], younger[92:], ())]


def scans(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "Index Name" in plan:
        yield plan
    for below in plan.get("Plans", ()):
        yield from scans(below)


async def test_runs_that_are_not_due_yet_and_those_that_have_ended_are_not_looked_at(connection: asyncpg.Connection):
    await a_hundred(connection, -HOUR)
    await connection.execute("UPDATE run SET due_at = NULL, state = 4")
    await a_hundred(connection, HOUR)
    await connection.execute("ANALYZE run")
    await connection.execute(f"PREPARE a_claim (uuid, integer, smallint, bigint) AS {claims._CLAIM}")
    found = await connection.fetchval("EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE a_claim (gen_random_uuid(), 64, 1, 1000)")
    looked = {scan["Index Name"]: scan for scan in scans(json.loads(found)[0]["Plan"])}
    assert looked["run_due"]["Index Cond"] == "(due_at <= statement_timestamp())"
    assert looked["run_pkey"]["Index Cond"].startswith("(id = ANY (")
    assert [looked[index].get("Rows Removed by Filter", 0) for index in ("run_due", "run_pkey")] == [0, 0]


@pytest.mark.parametrize("state", [State.PARKED, State.COMPLETED, State.COMPENSATED])
async def test_a_run_that_has_come_to_rest_gets_no_owner(connection: asyncpg.Connection, state: State):
    """It may have come to rest between the look at it and the claim."""
    [resting, *_] = await a_hundred(connection, -HOUR)
    await connection.execute("UPDATE run SET due_at = NULL, state = $2 WHERE id = $1", resting, state)
    assert await claims.claim_one(connection, uuid4(), resting, rules=1) is None
    assert await connection.fetchrow("SELECT owner, fence FROM run WHERE id = $1", resting) == (None, 1)


async def test_one_run_is_taken_from_nobody_or_from_a_process_that_is_gone(connection: asyncpg.Connection):
    [run, *_] = await a_hundred(connection, HOUR)
    first, second = uuid4(), uuid4()
    await leases.renew(connection, first, "test", HOUR)
    taken = await claims.claim_one(connection, first, run, rules=1)
    assert taken is not None
    assert (taken.owner, taken.fence) == (first, 2)
    assert await claims.claim_one(connection, second, run, rules=1) is None
    await leases.end(connection, first)
    taken = await claims.claim_one(connection, second, run, rules=1)
    assert taken is not None
    assert (taken.owner, taken.fence) == (second, 3)


async def test_no_more_are_taken_once_their_journals_fill_the_room(connection: asyncpg.Connection):
    """Each has 3,000 bytes in two records, which the database itself has compressed."""
    ids = RunIds()
    ids.synchronise(datetime.now(UTC))
    first = ids.next()
    runs = [UUID(int=first.int + at) for at in range(20)]
    await connection.execute(_MAKE_NAMED, runs)
    rows = [(run, seq, b"x" * 1_500) for run in runs for seq in (1, 2)]
    await connection.executemany("INSERT INTO journal (run_id, seq, fence, record) VALUES ($1, $2, 1, $3)", rows)
    taken = [len(await claims.claim(connection, uuid4(), rules=1, room=room)) for room in (9_000, 9_001, 1, 0)]
    assert taken == [3, 4, 1, 0]
    assert len(await claims.claim(connection, uuid4(), rules=1)) == 12
