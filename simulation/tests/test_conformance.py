"""The simulated database does what Postgres does: each statement that it stands in for, on the same rows.

It recognises statements by their text, so it would not see a condition that is wrong or missing. Here both execute the
orchestrator's own text with the same parameters. What they answer, and all rows afterwards, must agree. There is a run
for each combination of what a condition looks at, so a condition that is left out on one side shows.
"""

import itertools
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio
from amends_chassis.database import Database as Chassis
from amends_chassis.migrations import migrate
from amends_embedded import Postgres
from amends_events import Outbox
from amends_orchestrator.announcer import PUBLISHES
from amends_orchestrator.journal import claims, decisions, leases, reader, statements
from amends_orchestrator.journal.batch import Batch, JournalRow, PendingStart
from amends_orchestrator.journal.connection import connector
from amends_orchestrator.journal.ids import RunIds
from amends_orchestrator.journal.partitions import make_partitions
from amends_orchestrator.journal.records import JournalRefusal, NewRun, RunChange, State
from amends_orchestrator.journal.tail import Tail
from amends_orchestrator.journal.telling import Announcement
from amends_simulation.database import STATEMENTS, SimulatedDatabase
from google.protobuf.message import Message

from amends.events.v1.runs_pb2 import RunEnded, RunResolved, RunStalled, RunStarted

MINUTE = timedelta(minutes=1)
NEAR = timedelta(seconds=20)
"""Times that differ by less are the same: the two are not asked at the same moment. Those that matter are minutes."""
FENCE = 3
MANY, ROOMY = 1000, 1 << 30
OUTBOX = Outbox("/test", PUBLISHES)
ORDERED = (reader._JOURNAL, reader._JOURNALS)
"""Statements that say in which order they answer."""

LIVE, GONE, FORGOTTEN = (UUID(int=number) for number in (1, 2, 3))
"""Processes: one whose lease stands, one whose lease has run out, and one without a row."""
NEWCOMER, NO_RUN = UUID(int=4), UUID(int=5)

TABLES = {
    "run": f"SELECT {reader.COLUMNS} FROM run ORDER BY id",
    "journal": "SELECT run_id, seq, fence, record FROM journal ORDER BY run_id, seq",
    "process": "SELECT id, expires_at FROM process ORDER BY id",
    "outbox": "SELECT key::uuid, version, type FROM outbox ORDER BY seq",
    "deliveries": "SELECT webhook, key::uuid, version, type FROM webhook_delivery ORDER BY webhook, seq",
}

Table = list[tuple[Any, ...]]
Statement = tuple[str, Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Rows:
    """What both databases hold at the beginning."""

    runs: tuple[dict[str, Any], ...]
    journal: dict[UUID, list[tuple[int, int, bytes]]]
    leases: dict[UUID, datetime]

    @property
    def ids(self) -> list[UUID]:
        return [run["id"] for run in self.runs]

    def next_seq(self, run: UUID) -> int:
        return len(self.journal[run]) + 1

    def simulated(self, now: datetime) -> SimulatedDatabase:
        """Return a simulated database with these rows whose clock stands at `now`."""
        made = SimulatedDatabase(Random(0), now=lambda: now)
        made.runs = {run["id"]: dict(run) for run in self.runs}
        made.keys = {(run["namespace"], run["idempotency_key"]): run["id"] for run in self.runs}
        made.journal = {run: list(records) for run, records in self.journal.items()}
        made.leases = dict(self.leases)
        return made

    async def insert(self, connection: asyncpg.Connection) -> None:
        """Write these rows to Postgres."""
        columns = reader.COLUMNS.split(", ")
        await connection.copy_records_to_table(
            "run", records=[tuple(run[column] for column in columns) for run in self.runs], columns=columns
        )
        entries = [(run, *record) for run, records in self.journal.items() for record in records]
        await connection.copy_records_to_table("journal", records=entries)
        await connection.executemany(
            "INSERT INTO process (id, name, expires_at) VALUES ($1, '', $2)", [*self.leases.items()]
        )


def a_run(number: int, now: datetime, run: UUID, facts: tuple[Any, ...]) -> dict[str, Any]:
    owner, due, state, rules, stalled = facts
    # Each is due at another time, and neither the oldest nor the newest first.
    due_at = now + due * MINUTE * (1 + number * 7 % 241) if due else None
    return {
        "id": run,
        "namespace": f"namespace{number % 2}",
        "saga": "saga",
        "idempotency_key": f"key{number // 2}",
        "payload": b"payload%d" % number,
        "digest": b"digest",
        "rules": rules,
        "owner": owner,
        "fence": FENCE,
        "state": state,
        "started_at": now - 300 * MINUTE,
        "ended_at": now - MINUTE if state >= State.COMPLETED else None,
        "due_at": due_at,
        "traceparent": "",
        "step": "charge",
        "reason": "BEFORE" if stalled else "",
        "message": "as before" if stalled else "",
        "skipped_by_person": number % 3,
        "stalled_since": now - 200 * MINUTE if stalled else None,
        "next_attempt_at": now + 200 * MINUTE if stalled else None,
    }


def run_ids() -> RunIds:
    ids = RunIds()
    ids.synchronise(datetime.now(UTC))
    return ids


def all_combinations() -> Rows:
    """Runs of every owner, time, state and version of the rules."""
    ids, now = run_ids(), datetime.now(UTC)
    facts = itertools.product((None, LIVE, GONE, FORGOTTEN), (None, -1, 1), State, (1, 2), (False, True))
    runs = tuple(a_run(number, now, ids.next(), each) for number, each in enumerate(facts))
    journal = {
        run["id"]: [(seq, min(seq, FENCE), b"record %d" % seq * (1 + number % 5)) for seq in range(1, 2 + number % 4)]
        for number, run in enumerate(runs)
    }
    return Rows(runs, journal, {LIVE: now + 60 * MINUTE, GONE: now - 60 * MINUTE})


@pytest.fixture(scope="module")
def rows() -> Rows:
    return all_combinations()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def both(postgres: Postgres, rows: Rows) -> AsyncIterator["Both"]:
    """Both databases with a run for each combination; what a test changes is undone."""
    url = await postgres.create("conformance", "conformance")
    await migrate(Chassis(url), "amends_orchestrator.migrations")
    connection = await connector(url, "conformance")()
    await make_partitions(connection)
    await rows.insert(connection)
    yield Both(connection, rows)
    await connection.close()
    await postgres.drop("conformance", "conformance")


class Both:
    """The two databases, each with the same rows."""

    def __init__(self, connection: asyncpg.Connection, rows: Rows) -> None:
        self._connection = connection
        self._rows = rows
        self._other = rows.simulated(datetime.now(UTC))
        self.mistakes: dict[str, str] = {}
        """Statements that Postgres gets with a mistake in them."""

    async def assert_agree(self, *asked: Statement, count: bool = False) -> None:
        """Execute statements one after the other in both, and assert that each answer agrees, and at the end all rows.

        `count` is for statements that may choose among rows as they like: the number of rows is compared. Afterwards
        everything is as it was at the beginning.
        """
        async with self._undone():
            for sql, values in asked:
                expected, found = await self._real(sql, values), self._simulated(sql, values)
                if count:
                    assert len(found) == len(expected), sql
                elif sql in ORDERED:
                    assert_same(found, expected, sql)
                else:
                    assert_same(in_order(found), in_order(expected), sql)
            if not count:
                for table, found in self._tables().items():
                    assert_same(found, as_tuples(await self._connection.fetch(TABLES[table])), table)

    async def assert_refuse(self, error: type[Exception], *asked: Statement) -> None:
        """Execute one statement after the other, the last of which both must refuse."""
        async with self._undone():
            for sql, values in asked[:-1]:
                assert_same(in_order(self._simulated(sql, values)), in_order(await self._real(sql, values)), sql)
            with pytest.raises(error):
                self._simulated(*asked[-1])
            with pytest.raises(error):
                await self._real(*asked[-1])

    @asynccontextmanager
    async def _undone(self) -> AsyncIterator[None]:
        self._other = self._rows.simulated(await self._connection.fetchval("SELECT clock_timestamp()"))
        transaction = self._connection.transaction()
        await transaction.start()
        try:
            yield
        finally:
            await transaction.rollback()

    async def _real(self, sql: str, values: Sequence[Any]) -> Table:
        return as_tuples(await self._connection.fetch(self.mistakes.get(sql, sql), *values))

    def _simulated(self, sql: str, values: Sequence[Any]) -> Table:
        return as_tuples(self._other.execute(sql, list(values)))

    def _tables(self) -> dict[str, Table]:
        other, columns = self._other, reader.COLUMNS.split(", ")
        return {
            "run": in_order([tuple(run[column] for column in columns) for run in other.runs.values()]),
            "journal": in_order([(run, *entry) for run, entries in other.journal.items() for entry in entries]),
            "process": in_order(list(other.leases.items())),
            "outbox": list(other.outbox),
            "deliveries": sorted(other.deliveries, key=lambda delivery: delivery[0]),
        }


def as_tuples(rows: Iterable[Any]) -> Table:
    return [tuple(row.values()) if hasattr(row, "values") else tuple(row) for row in rows]


def in_order(rows: Table) -> Table:
    return sorted(rows, key=lambda row: [str(value) for value in row[:2]])


def assert_same(found: Table, expected: Table, what: str) -> None:
    """Compare rows; times are the same when they are near."""
    assert len(found) == len(expected), f"{what}: {len(found)} rows, and {len(expected)} in Postgres"
    for one, other in zip(found, expected, strict=True):
        assert len(one) == len(other), what
        shown = tuple(right if near(left, right) else left for left, right in zip(one, other, strict=True))
        assert shown == other, what


def near(one: Any, other: Any) -> bool:
    of_time = isinstance(other, datetime | timedelta) and isinstance(one, type(other))
    return of_time and bool(abs(one - other) < NEAR)


# ------------------------------------------------------------------ claims


@pytest.mark.parametrize("process", [LIVE, GONE, NEWCOMER], ids=["live", "late", "new"])
@pytest.mark.parametrize("rules", [1, 2])
async def test_claims_take_the_same_runs(both: Both, rows: Rows, process: UUID, rules: int):
    await both.assert_agree((claims._CLAIM, (process, MANY, rules, ROOMY)), (claims._CLAIM, (NEWCOMER, MANY, 2, ROOMY)))
    for limit, room in ((5, ROOMY), (5, 30), (5, 1), (5, 0), (3, 60)):
        await both.assert_agree((claims._CLAIM, (process, limit, rules, room)))
    await both.assert_agree(*((claims._CLAIM_ONE, (run, process, rules)) for run in (*rows.ids, NO_RUN)))


async def test_a_claim_fills_up_with_runs_of_processes_that_are_gone(both: Both, rows: Rows):
    now = datetime.now(UTC)
    due = sum(run["owner"] is None and run["due_at"] is not None and run["due_at"] < now for run in rows.runs)
    await both.assert_agree((claims._CLAIM, (NEWCOMER, due + 3, 2, ROOMY)), count=True)


@pytest.mark.parametrize("fence", [FENCE - 1, FENCE, FENCE + 1])
async def test_the_same_runs_are_given_back(both: Both, rows: Rows, fence: int):
    for reason in ("", "BAD_ROW"):
        given = (fence, 5 * MINUTE, reason, "a row was refused")
        await both.assert_agree(*((claims._RELEASE, (run, *given)) for run in (*rows.ids, NO_RUN)))
    given = (fence, 5 * MINUTE, "BAD_ROW", "a row was refused")
    events = {run: an_event(run, RunStalled).values for run in (*rows.ids, NO_RUN)}
    await both.assert_agree(*((claims._RELEASE_AND_TELL, (run, *given, *event)) for run, event in events.items()))


async def test_what_a_process_owns_and_when_the_next_run_is_due_are_the_same(both: Both):
    await both.assert_agree(*((claims._OWNED, (process,)) for process in (LIVE, GONE, FORGOTTEN, NEWCOMER)))
    all_that_is_due = (claims._CLAIM, (NEWCOMER, MANY, 2, ROOMY))
    await both.assert_agree((claims._NEXT_DUE, ()), all_that_is_due, (claims._NEXT_DUE, ()))
    nothing = Rows((), {}, {})
    assert nothing.simulated(datetime.now(UTC)).execute(claims._NEXT_DUE, []) == [(None,)]


async def test_leases_are_made_renewed_and_ended_alike(both: Both):
    for process in (LIVE, GONE, NEWCOMER):
        renewals = [(leases._RENEW, (process, "name", lease)) for lease in (10 * MINUTE, 20 * MINUTE)]
        await both.assert_agree(*renewals, (leases._END, (process,)))
    await both.assert_agree((leases._END, (FORGOTTEN,)))


# ------------------------------------------------------------------ the writer's statements


CHANGES = tuple(
    RunChange(state, release, due, "step", "reason", "message", 2, stalled, next_attempt)
    for state in State
    for release in (False, True)
    for due in (None, 3 * MINUTE)
    for stalled, next_attempt in ((None, None), (4 * MINUTE, None), (None, 5 * MINUTE))
)


class Nobody:
    """Hears nothing."""

    def durable(self, seq: int) -> None: ...
    def refused(self, refusal: JournalRefusal) -> None: ...


def tail(run: UUID, fence: int = FENCE) -> Tail:
    return Tail(run, fence, Nobody())


def statement(*entries: JournalRow | PendingStart) -> Statement:
    batch = Batch.of(entries)
    return batch.sql(), batch.parameters()


def a_start(namespace: str, key: str, owner: UUID | None) -> PendingStart:
    new = NewRun(run_ids().next(), namespace, "saga", key, b"asked", b"digest", 2, owner, "trace", b"started")
    return PendingStart(new, lambda _: None)


TELLING = ((True, ()), (True, ("one",)), (False, ("one", "two")), (False, ()))
"""Whether the broker is told, and which webhooks are."""


def an_event(run: UUID, kind: type[Message] = RunEnded) -> Announcement:
    return Announcement(OUTBOX.row(kind(run_id=str(run)), {}), *TELLING[run.int // 7 % len(TELLING)])


def told(row: JournalRow) -> JournalRow:
    return replace(row, event=an_event(row.tail.id)) if row.seq % 2 else row


def rows_to_write(rows: Rows) -> list[JournalRow]:
    """Rows of every run, some of which have another owner by now; with every change, and some without one."""
    written = []
    for number, run in enumerate(rows.ids):
        to = tail(run, FENCE + (0, 0, -1, 0, 1)[number % 5])
        first = rows.next_seq(run)
        written.append(JournalRow(to, first, b"first", None))
        if number % 7:
            written.append(JournalRow(to, first + 1, b"second", CHANGES[number % len(CHANGES)]))
    return written


STARTS = tuple(
    (namespace, key, owner)
    for namespace in ("namespace0", "namespace1", "namespace2")
    for key, owner in (("key0", LIVE), ("key1", None), ("another", None), ("one more", LIVE))
)


async def test_batches_of_many_runs_write_the_same(both: Both, rows: Rows):
    written = rows_to_write(rows)
    starts = [a_start(*start) for start in STARTS]
    await both.assert_agree(statement(*written))
    await both.assert_agree(statement(*(JournalRow(row.tail, row.seq, row.record, None) for row in written)))
    await both.assert_agree(statement(*starts))
    await both.assert_agree(statement(*starts, *written), statement(*(a_start(*start) for start in STARTS)))
    starts = [replace(start, event=an_event(start.new.id, RunStarted)) for start in starts[1:]] + starts[:1]
    await both.assert_agree(statement(*map(told, written)))
    await both.assert_agree(statement(*starts))
    await both.assert_agree(statement(*starts, *map(told, written)), statement(*starts))
    await both.assert_agree(statement(JournalRow(tail(NO_RUN), 1, b"", CHANGES[0]), *written))


async def test_batches_of_one_run_write_the_same(both: Both, rows: Rows):
    for fence in (FENCE - 1, FENCE, FENCE + 1):
        batches = [statement(JournalRow(tail(NO_RUN, fence), 1, b"", CHANGES[0]))]
        for number, run in enumerate(rows.ids):
            to, seq, change = tail(run, fence), rows.next_seq(run), CHANGES[number % len(CHANGES)]
            one, next_one = JournalRow(to, seq, b"record", None), JournalRow(to, seq + 1, b"next", change)
            batches.append(statement(one, next_one) if number % 2 else statement(told(one), told(next_one)))
        await both.assert_agree(*batches)
    starts = [a_start(*start) for start in STARTS]
    await both.assert_agree(*map(statement, starts))
    await both.assert_agree(*(statement(replace(start, event=an_event(start.new.id, RunStarted))) for start in starts))


async def test_a_number_that_is_taken_is_refused_by_both(both: Both, rows: Rows):
    one, other = rows.ids[:2]
    taken = JournalRow(tail(one), rows.next_seq(one) - 1, b"again", None)
    beside = JournalRow(tail(other), rows.next_seq(other), b"beside", None)
    await both.assert_refuse(asyncpg.UniqueViolationError, statement(taken))
    await both.assert_refuse(asyncpg.UniqueViolationError, statement(beside, taken))
    await both.assert_agree(statement(JournalRow(tail(one, FENCE - 1), taken.seq, b"again", None), beside))


async def test_what_a_writer_looks_up_after_a_failure_is_the_same(both: Both, rows: Rows):
    asked = [(run, seq) for run in (*rows.ids, NO_RUN) for seq in (0, 1, 3)]
    await both.assert_agree((statements.PRESENT, ([run for run, _ in asked], [seq for _, seq in asked])))
    names = [(namespace, key) for namespace, key, _ in STARTS]
    await both.assert_agree((statements.HOLDERS, ([name for name, _ in names], [key for _, key in names])))


# ------------------------------------------------------------------ reads, and decisions of people


async def test_runs_and_journals_are_read_alike(both: Both, rows: Rows):
    for run in (rows.ids[0], rows.ids[3], NO_RUN):
        await both.assert_agree((reader._RUN, (run,)))
        await both.assert_agree(*((reader._JOURNAL, (run, after, limit)) for after in (0, 1, 9) for limit in (1, 2, 9)))
    await both.assert_agree((reader._JOURNALS, ([*rows.ids[7::-1], NO_RUN],)))


async def test_decisions_are_recorded_alike(both: Both, rows: Rows):
    made: list[Statement] = []
    for number, run in enumerate((*rows.ids, NO_RUN)):
        made.append((decisions._LOCK, (run,)))
        made.append((decisions._CLAIM, (run, LIVE, FENCE + 1, State(1 + number % 2), "told")))
        if run is not NO_RUN:
            made.append((decisions._RECORD, (run, rows.next_seq(run), FENCE + 1, b"decided")))
            further = (run, rows.next_seq(run) + 1, FENCE + 1, b"decided", *an_event(run, RunResolved).values)
            made.append((decisions._RECORD_AND_TELL, further))
    await both.assert_agree(*made)
    again = (decisions._RECORD, (rows.ids[0], 1, FENCE + 1, b"decided"))
    await both.assert_refuse(asyncpg.UniqueViolationError, again)


def test_every_statement_of_the_simulation_is_compared():
    """A statement that the simulation learns needs a test above."""
    names = {
        sql: f"{module.__name__.rpartition('.')[2]}.{name}"
        for module in (claims, decisions, leases, reader, statements)
        for name, sql in vars(module).items()
        if isinstance(sql, str) and sql in STATEMENTS
    }
    assert names.keys() == STATEMENTS.keys()
    source = Path(__file__).read_text()
    assert [name for name in names.values() if f"{name}," not in source] == []


FIRST = re.compile(r"(?<=WHERE )[^()\n]+? AND ")
LATER = re.compile(r" AND (?:[^()\n]|\([^()]*\))+?(?= AND |\)|\n|$)")


async def all_claims(both: Both, rows: Rows) -> None:
    for process in (LIVE, GONE):
        await test_claims_take_the_same_runs(both, rows, process, 1)


async def all_that_is_given_back(both: Both, rows: Rows) -> None:
    for fence in (FENCE, FENCE - 1):
        await test_the_same_runs_are_given_back(both, rows, fence)


async def all_times(both: Both, rows: Rows) -> None:
    await test_what_a_process_owns_and_when_the_next_run_is_due_are_the_same(both)


MISTAKES = [
    pytest.param(compare, sql, sql[: found.start()] + sql[found.end() :], id=found[0].strip())
    for sql, compare in (
        (claims._CLAIM, all_claims),
        (claims._CLAIM_ONE, all_claims),
        (claims._RELEASE, all_that_is_given_back),
        (claims._NEXT_DUE, all_times),
        (statements.PRESENT, test_what_a_writer_looks_up_after_a_failure_is_the_same),
        (statements.HOLDERS, test_what_a_writer_looks_up_after_a_failure_is_the_same),
    )
    for found in (*FIRST.finditer(sql), *LATER.finditer(sql))
    # min() passes over rows without a time, and those that stand in the index only help to find it.
    if found[0] != " AND due_at IS NOT NULL"
]


@pytest.mark.parametrize(("compare", "sql", "wrong"), MISTAKES)
async def test_a_condition_that_is_left_out_is_seen(
    both: Both, rows: Rows, compare: Callable[[Both, Rows], Awaitable[None]], sql: str, wrong: str
):
    both.mistakes = {sql: wrong}
    try:
        with pytest.raises((AssertionError, asyncpg.PostgresError, asyncpg.InterfaceError)):
            await compare(both, rows)
    finally:
        both.mistakes = {}
