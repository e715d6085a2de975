"""The group-commit writer on a real Postgres: order, fences, bad rows, lost answers."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from amends_chassis.database import Database
from amends_orchestrator.journal import writer as writer_module
from amends_orchestrator.journal.batch import StartAnswer
from amends_orchestrator.journal.connection import Connect
from amends_orchestrator.journal.reader import read_journal, read_run
from amends_orchestrator.journal.records import JournalRefusal, RunChange, State
from amends_orchestrator.journal.tail import Tail
from amends_orchestrator.journal.writer import JournalWriter
from amends_testkit.waiting import eventually

from .journal_helpers import Heard, Journal, heard


async def test_rows_of_many_runs_are_kept_in_order_and_without_gaps(journal: Journal, connection: asyncpg.Connection):
    tails = await asyncio.gather(*(journal.run() for _ in range(50)))
    for seq in range(2, 12):
        for tail in tails:
            journal.append(tail, seq, record=b"%d" % seq)
    for tail in tails:
        await journal.durable(tail, 11)
        records = await read_journal(connection, tail.id)
        assert [record.seq for record in records] == list(range(1, 12))
        assert [record.record for record in records[1:]] == [b"%d" % seq for seq in range(2, 12)]


async def test_the_same_key_started_twice_is_one_run_and_both_learn_its_payload(journal: Journal):
    answers = await asyncio.gather(*(journal.start("k", payload=b"one") for _ in range(20)))
    assert len({answer.run_id for answer in answers}) == 1
    assert sum(answer.created for answer in answers) == 1
    later = await journal.start("k", payload=b"two")
    assert (later.created, later.run_id, later.payload) == (False, answers[0].run_id, b"one")


async def test_a_row_may_be_queued_before_the_start_of_its_run_is_durable(
    journal: Journal, connection: asyncpg.Connection
):
    new = journal.new()
    tail = Tail(new.id, 1, Heard())
    answers: list[object] = []
    journal.writer.start(new, answers.append)
    journal.append(tail, 2, 3)
    await journal.durable(tail, 3)
    assert len(answers) == 1
    assert len(await read_journal(connection, new.id)) == 3


async def test_a_change_of_the_run_row_comes_with_the_record(journal: Journal, connection: asyncpg.Connection):
    tail = await journal.run()
    journal.append(tail, 2, change=RunChange(State.COMPLETED, release=True, message="done"))
    await journal.durable(tail, 2)
    run = await read_run(connection, tail.id)
    assert run is not None
    assert (run.state, run.owner, run.message) == (State.COMPLETED, None, "done")
    assert run.ended_at is not None


async def test_rows_under_an_old_fence_are_refused_and_so_is_every_later_row(
    journal: Journal, connection: asyncpg.Connection
):
    lost, kept = await journal.run(), await journal.run()
    await connection.execute("UPDATE run SET fence = 2 WHERE id = $1", lost.id)
    journal.append(lost, 2, change=RunChange(State.COMPLETED, release=True))
    journal.append(kept, 2)
    assert await journal.refused(lost) is JournalRefusal.FENCED
    await journal.durable(kept, 2)
    journal.append(lost, 3)
    await journal.writer.flushed()
    assert len(await read_journal(connection, lost.id)) == 1
    run = await read_run(connection, lost.id)
    assert run is not None
    assert run.state is State.RUNNING


async def test_rows_that_an_earlier_owner_left_in_the_queue_cost_the_next_owner_nothing(
    journal: Journal, connection: asyncpg.Connection
):
    """One process loses a run and takes it again before its writer gets to what it had queued."""
    before = await journal.run()
    await connection.execute("UPDATE run SET fence = 2 WHERE id = $1", before.id)
    now = Tail(before.id, 2, Heard())
    journal.append(before, 2, 3, record=b"of the earlier owner")
    journal.append(now, 2, 3, record=b"of the owner")
    await journal.durable(now, 3)
    assert await journal.refused(before) is JournalRefusal.FENCED
    records = await read_journal(connection, before.id)
    assert [(record.seq, record.fence, record.record) for record in records[1:]] == [
        (2, 2, b"of the owner"),
        (3, 2, b"of the owner"),
    ]


async def test_a_bad_row_among_128_runs_fails_its_run_alone(journal: Journal, connection: asyncpg.Connection):
    tails = await asyncio.gather(*(journal.run() for _ in range(128)))
    bad = tails[77]
    for tail in tails:
        message = "no\x00text" if tail is bad else "text"
        journal.append(tail, 2, change=RunChange(State.RUNNING, message=message))
    for tail in tails:
        journal.append(tail, 3)
    assert await journal.refused(bad) is JournalRefusal.BAD_ROW
    for tail in tails:
        if tail is not bad:
            await journal.durable(tail, 3)
    assert len(await read_journal(connection, bad.id)) == 1


async def test_a_bad_start_fails_alone(journal: Journal):
    results = await asyncio.gather(
        journal.start("good"), journal.start("bad\x00"), journal.start("fine"), return_exceptions=True
    )
    assert [isinstance(result, BaseException) for result in results] == [False, True, False]


async def test_a_row_of_somebody_else_under_our_number_drops_the_run_and_no_other(
    journal: Journal, connection: asyncpg.Connection
):
    theirs, ours = await journal.run(), await journal.run()
    await connection.execute("INSERT INTO journal VALUES ($1, 2, 1, 'somebody else')", theirs.id)
    journal.append(theirs, 2, 3)
    journal.append(ours, 2, 3)
    assert await journal.refused(theirs) is JournalRefusal.COLLISION
    await journal.durable(ours, 3)
    assert [record.seq for record in await read_journal(connection, theirs.id)] == [1, 2]


class LosesAnswers:
    """A connection whose next commits reach the database, but whose answers do not come back."""

    def __init__(self, inner: asyncpg.Connection, plan: list[str]) -> None:
        self._inner = inner
        self._plan = plan

    async def fetch(self, *arguments: Any) -> Any:
        what = self._plan.pop(0) if self._plan else "answer"
        if what == "before":
            raise ConnectionResetError("cut before the statement")
        rows = await self._inner.fetch(*arguments)
        if what == "after":
            raise ConnectionResetError("cut after the commit")
        return rows

    def is_closed(self) -> bool:
        return self._inner.is_closed()

    def terminate(self) -> None:
        self._inner.terminate()


@pytest.mark.parametrize("plan", [["after"], ["before"], ["before", "after"], ["after", "after", "before", "after"]])
async def test_a_commit_whose_answer_is_lost_is_neither_lost_nor_doubled(
    connect: Connect, process, connection: asyncpg.Connection, plan: list[str]
):
    remaining: list[str] = []

    async def losing() -> Any:
        return LosesAnswers(await connect(), remaining)

    async with Journal.over(losing, process) as journal:
        tail = await journal.run()
        remaining.extend(plan)
        journal.append(tail, 2, 3, 4, change=RunChange(State.COMPENSATING, message="kept"))
        answer = await journal.start("key")
        await journal.durable(tail, 4)
        assert answer.created
        assert heard(tail).refusal is None
        assert [record.seq for record in await read_journal(connection, tail.id)] == [1, 2, 3, 4]
        assert len(await read_journal(connection, answer.run_id)) == 1


async def test_when_the_database_is_gone_rows_wait_and_the_journal_says_so(
    connect: Connect, process, connection: asyncpg.Connection
):
    there = asyncio.Event()
    there.set()

    async def sometimes() -> asyncpg.Connection:
        if not there.is_set():
            raise ConnectionRefusedError("gone")
        return await connect()

    async with Journal.over(sometimes, process) as journal:
        tail = await journal.run()
        there.clear()
        others = "FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()"
        await connection.execute(f"SELECT pg_terminate_backend(pid) {others}")
        await eventually(lambda: connection.fetchval(f"SELECT count(*) = 0 {others}"))
        journal.append(tail, 2)
        await eventually(lambda: not journal.writer.reachable.is_set())
        assert heard(tail).seq == 0
        there.set()
        await journal.durable(tail, 2)
        assert journal.writer.reachable.is_set()


async def test_a_closed_tail_takes_nothing_and_tells_its_listener_once():
    listener = Heard()
    tail = Tail(asyncio, 1, listener)  # type: ignore[arg-type]
    tail.close(JournalRefusal.FENCED)
    tail.close(JournalRefusal.BAD_ROW)
    assert listener.refusal is JournalRefusal.FENCED


async def test_a_start_whose_key_became_free_meanwhile_is_written_without_waiting_for_other_rows(
    journal: Journal, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
):
    first, second = journal.new(), journal.new()
    second = dataclasses.replace(second, namespace=first.namespace, key=first.key)
    answers: list[object] = []
    journal.writer.start(first, answers.append)
    await eventually(lambda: len(answers) == 1)
    answer_known = journal.writer._answer_known

    async def forgotten_first(*given: Any) -> None:
        await connection.execute("DELETE FROM run WHERE id = $1", first.id)
        await answer_known(*given)

    monkeypatch.setattr(journal.writer, "_answer_known", forgotten_first)
    journal.writer.start(second, answers.append)
    await eventually(lambda: len(answers) == 2)
    assert answers[1] == StartAnswer(True, second.id, second.payload)


async def test_no_row_that_was_queued_behind_a_refused_one_is_written(
    journal: Journal, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
):
    """They are in later statements than the bad one, and their fence still fits: only their tail says no."""
    monkeypatch.setattr(writer_module, "MAXIMUM_ROWS", 2)
    bad, kept = await journal.run(), await journal.run()
    journal.append(bad, 2, change=RunChange(State.RUNNING, message="no\x00text"))
    journal.append(bad, 3, 4, 5, 6, 7)
    journal.append(kept, 2, 3, 4)
    assert await journal.refused(bad) is JournalRefusal.BAD_ROW
    await journal.durable(kept, 4)
    await journal.writer.flushed()
    assert [record.seq for record in await read_journal(connection, bad.id)] == [1]


async def test_pauses_grow_and_differ_while_the_journal_is_away(connect: Connect, process):
    """Replicas that lost the database together must not knock in step."""
    noted: list[tuple[int, float]] = []

    class Noting:
        def delay(self, attempt: int, uniform: Callable[[], float]) -> timedelta:
            noted.append((attempt, uniform()))
            return timedelta()

    async def away() -> asyncpg.Connection:
        if len(noted) < 5:
            raise ConnectionRefusedError("gone")
        return await connect()

    writer = JournalWriter(away, backoff=Noting())  # type: ignore[arg-type]
    writing = asyncio.create_task(writer.run())
    answered = asyncio.Event()
    journal = Journal(connect, process)
    writer.start(journal.new("k"), lambda _: answered.set())
    await asyncio.wait_for(answered.wait(), 10)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    assert [attempt for attempt, _ in noted] == [1, 2, 3, 4, 5]
    assert len({drawn for _, drawn in noted}) == 5


async def test_commits_are_flushed_whatever_the_databases_default_is(journal_url: str, connect: Connect):
    name = urlsplit(journal_url).path.removeprefix("/")
    connection = await connect()
    await connection.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    await connection.close()
    plain = await asyncpg.connect(journal_url)
    assert await plain.fetchval("SHOW synchronous_commit") == "off"
    await plain.close()
    database = Database(journal_url)  # decisions of people, and what participants commit, go by the pool
    await database.connect()
    connection = await connect()
    assert await connection.fetchval("SHOW synchronous_commit") == "on"
    assert await database.pool.fetchval("SHOW synchronous_commit") == "on"
    await connection.close()
    await database.close()
