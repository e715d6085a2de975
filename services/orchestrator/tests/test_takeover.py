"""Takeovers against a commit that is held open, in both orders, in two real sessions; leases and claims."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest
from amends_orchestrator.journal import claims, leases
from amends_orchestrator.journal.batch import Batch, JournalRow
from amends_orchestrator.journal.connection import Connect
from amends_orchestrator.journal.reader import read_journal, read_run
from amends_orchestrator.journal.records import RunChange, State
from amends_testkit.waiting import eventually

from .journal_helpers import Journal

RULES = 1


async def waits_for_lock(connection: asyncpg.Connection, pid: int) -> bool:
    return await connection.fetchval("SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $1", pid)


shapes = pytest.mark.parametrize("alone", [True, False], ids=["alone", "beside another run"])
"""A statement about one run takes plain values, one about several takes arrays."""


async def beside(journal: Journal, alone: bool) -> list[JournalRow]:
    return [] if alone else [JournalRow(await journal.run(), 2, b"beside", None)]


@shapes
async def test_a_takeover_waits_for_the_open_commit_of_the_old_owner_and_reads_its_row(
    journal: Journal, connect: Connect, connection: asyncpg.Connection, alone: bool
):
    tail = await journal.run()
    old, new = await connect(), await connect()
    batch = Batch.of([JournalRow(tail, 2, b"intent", None), *await beside(journal, alone)])
    assert batch.single is alone
    transaction = old.transaction()
    await transaction.start()
    assert await old.fetch(batch.sql(), *batch.parameters()) == []

    second = uuid4()
    await leases.end(connection, journal.process)
    assert await claims.claim(new, second, rules=RULES) == [], "a run that is just being written is left alone"
    taking = asyncio.create_task(claims.claim_one(new, second, tail.id, rules=RULES))
    await eventually(lambda: waits_for_lock(connection, new.get_server_pid()))
    await transaction.commit()
    taken = await taking
    assert taken is not None
    assert taken.fence == 2
    [claimed] = await claims.load(new, [taken])
    assert [record.record for record in claimed.records] == [b"started", b"intent"]
    await old.close()
    await new.close()


@shapes
async def test_a_row_of_the_old_owner_waits_for_the_open_claim_and_is_refused(
    journal: Journal, connect: Connect, connection: asyncpg.Connection, alone: bool
):
    tail = await journal.run()
    old, new = await connect(), await connect()
    others = await beside(journal, alone)
    batch = Batch.of([JournalRow(tail, 2, b"late", RunChange(State.COMPLETED, release=True)), *others])
    await leases.end(connection, journal.process)
    transaction = new.transaction()
    await transaction.start()
    claimed_runs = {run.id: run for run in await claims.claim(new, uuid4(), rules=RULES)}
    assert claimed_runs.keys() == {tail.id, *(other.tail.id for other in others)}
    taken = claimed_runs[tail.id]
    writing = asyncio.create_task(old.fetch(batch.sql(), *batch.parameters()))
    await eventually(lambda: waits_for_lock(connection, old.get_server_pid()))
    await transaction.commit()
    assert sorted(row[0] for row in await writing) == sorted(claimed_runs)
    [claimed] = await claims.load(new, [taken])
    assert [record.record for record in claimed.records] == [b"started"]
    run = await read_run(connection, tail.id)
    assert run is not None
    assert (run.state, run.fence) == (State.RUNNING, 2)
    for other in others:
        assert [record.record for record in await read_journal(connection, other.tail.id)] == [b"started"]
    await old.close()
    await new.close()


async def test_two_claimers_share_the_due_runs_and_none_is_taken_twice(
    journal: Journal, connect: Connect, connection: asyncpg.Connection
):
    for n in range(100):
        await journal.start(f"k{n}", owned=False)
    first, second = await connect(), await connect()
    one, two = uuid4(), uuid4()
    found: list[UUID] = []
    while True:
        rounds = await asyncio.gather(
            claims.claim(first, one, rules=RULES), claims.claim(second, two, rules=RULES, limit=7)
        )
        taken = [run for batch in rounds for run in batch]
        found += [run.id for run in taken]
        assert all(run.fence == 2 for run in taken)
        if not taken:
            break
    assert len(found) == len(set(found)) == 100
    await first.close()
    await second.close()


async def test_runs_of_a_process_are_left_alone_until_its_lease_has_run_out(
    journal: Journal, connection: asyncpg.Connection
):
    answer = await journal.start("k")
    assert await claims.claim(connection, uuid4(), rules=RULES) == []
    await leases.end(connection, journal.process)
    other = uuid4()
    [run] = await claims.claim(connection, other, rules=RULES)
    assert (run.id, run.owner, run.fence) == (answer.run_id, other, 2)
    renewal = await leases.renew(connection, journal.process, "test", timedelta(minutes=1))
    assert renewal.late


async def test_a_process_whose_heartbeat_was_late_takes_none_of_its_own_runs_over(
    journal: Journal, connection: asyncpg.Connection
):
    answer = await journal.start("k")
    await leases.end(connection, journal.process)
    assert await claims.claim(connection, journal.process, rules=RULES) == [], "it still drives them"
    other = uuid4()
    [run] = await claims.claim(connection, other, rules=RULES)
    assert (run.id, run.owner) == (answer.run_id, other)


async def test_who_has_lost_a_run_cannot_give_it_back_over_the_head_of_its_new_owner(
    journal: Journal, connection: asyncpg.Connection
):
    tail = await journal.run()
    await leases.end(connection, journal.process)
    [taken] = await claims.claim(connection, uuid4(), rules=RULES)
    await claims.release(connection, tail.id, 1, timedelta(), "BAD_ROW", "a row was refused")
    await claims.release(connection, tail.id, 1, timedelta(), "", "")
    assert await read_run(connection, tail.id) == taken


async def test_the_row_of_a_dead_process_is_kept_until_nobody_has_to_be_taken_over_from_it(
    journal: Journal, connection: asyncpg.Connection
):
    answer = await journal.start("k")
    idle, recent = uuid4(), uuid4()
    for process in (idle, recent):
        await leases.renew(connection, process, "test", timedelta(minutes=5))
    await connection.execute(
        "UPDATE process SET expires_at = clock_timestamp() - interval '2 hours' WHERE id <> $1", recent
    )
    await connection.execute(
        "UPDATE process SET expires_at = clock_timestamp() - interval '50 min' WHERE id = $1", recent
    )
    await leases.forget(connection)
    kept = {row[0] for row in await connection.fetch("SELECT id FROM process")}
    assert kept == {journal.process, recent}
    [run] = await claims.claim(connection, idle, rules=RULES)
    assert run.id == answer.run_id
    await leases.forget(connection)
    assert {row[0] for row in await connection.fetch("SELECT id FROM process")} == {recent}


async def test_a_run_that_is_given_back_without_a_reason_is_shown_as_before(
    journal: Journal, connection: asyncpg.Connection
):
    tail = await journal.run()
    await claims.release(connection, tail.id, 1, timedelta(), "UNREADABLE", "no such version")
    [taken] = await claims.claim(connection, journal.process, rules=RULES)
    await claims.release(connection, tail.id, taken.fence, timedelta(), "", "")
    run = await read_run(connection, tail.id)
    assert run is not None
    assert run.owner is None
    assert run.due_at is not None
    assert (run.reason, run.message, run.stalled_since) == ("UNREADABLE", "no such version", taken.stalled_since)
    assert run.next_attempt_at == taken.next_attempt_at


async def test_a_run_with_rules_that_this_release_does_not_know_is_left_alone(
    journal: Journal, connection: asyncpg.Connection
):
    answer = await journal.start("k", owned=False)
    await connection.execute("UPDATE run SET rules = 2 WHERE id = $1", answer.run_id)
    assert await claims.claim(connection, uuid4(), rules=1) == []
    assert await claims.claim_one(connection, uuid4(), answer.run_id, rules=1) is None
    assert len(await claims.claim(connection, uuid4(), rules=2)) == 1


async def test_a_released_run_is_due_again_after_its_delay_and_not_before(
    journal: Journal, connection: asyncpg.Connection
):
    tail = await journal.run()
    journal.append(tail, 2, change=RunChange(State.RUNNING, release=True, due=timedelta(hours=1)))
    await journal.durable(tail, 2)
    assert await claims.claim(connection, uuid4(), rules=RULES) == []
    due = await claims.next_due(connection)
    assert due is not None
    assert timedelta(minutes=59) < due < timedelta(minutes=61)
    await connection.execute("UPDATE run SET due_at = clock_timestamp()")
    assert len(await claims.claim(connection, uuid4(), rules=RULES)) == 1


async def test_a_run_that_is_given_back_is_visibly_stalled(journal: Journal, connection: asyncpg.Connection):
    tail = await journal.run()
    await claims.release(connection, tail.id, 1, timedelta(seconds=30), "BAD_ROW", "a row was refused")
    run = await read_run(connection, tail.id)
    assert run is not None
    assert run.owner is None
    assert run.stalled_since is not None
    assert (run.reason, run.message) == ("BAD_ROW", "a row was refused")
    assert len(await read_journal(connection, tail.id)) == 1
