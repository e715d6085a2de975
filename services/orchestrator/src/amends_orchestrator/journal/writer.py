"""The group-commit writer: one task, one connection, one statement in flight for the whole process.

While a statement waits for the disk, rows gather, and the next statement takes them all: so a single run waits only for
its own commit. A row that nobody waits for does not start a statement. It goes with the next row that somebody does
wait for, or after a moment. The runner and StartRun queue rows here and are called back.

A statement ends in one of three ways. It commits: everybody is told, except the runs whose fence is not ours any more.
The connection fails: nobody knows whether it committed, so it is sent again until it is answered; if it had committed,
its rows collide with themselves, and `recovery` finds them there. A row is refused: `recovery` finds the run it belongs
to, and the others are written without it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Iterable
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import structlog
from amends_resilience import Backoff

from amends_orchestrator.journal import recovery
from amends_orchestrator.journal.batch import Batch, JournalRow, OnWritten, PendingStart, StartAnswer
from amends_orchestrator.journal.connection import Connect
from amends_orchestrator.journal.records import JournalRefusal, NewRun, RunChange
from amends_orchestrator.journal.statements import HOLDERS
from amends_orchestrator.journal.tail import Tail
from amends_orchestrator.journal.telling import Announcement
from amends_orchestrator.observe import JOURNAL_BATCH, JOURNAL_REFUSED, JOURNAL_SECONDS

JOURNAL_UNREACHABLE = "journal.unreachable"
JOURNAL_REACHABLE = "journal.reachable"

MAXIMUM_ROWS = 512
MAXIMUM_BYTES = 4 * 1024 * 1024
UNHURRIED = timedelta(milliseconds=10)
"""How long a row that nobody waits for is kept, so that it may share a statement."""

# The database will refuse such a row or statement, however often it is sent.
REFUSED = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.ProgramLimitExceededError)

_log = structlog.get_logger(__name__)


class JournalWriter:
    """Queues rows and writes them in order. `run` is the task; everything else may be called from the same loop."""

    def __init__(self, connect: Connect, *, backoff: Backoff | None = None) -> None:
        self._connect = connect
        self._backoff = backoff or Backoff(initial=timedelta(milliseconds=50), maximum=timedelta(seconds=2))
        self._connection: asyncpg.Connection[Any] | None = None
        self._queue: deque[JournalRow | PendingStart] = deque()
        self.backlog_bytes = 0
        """Bytes of the rows that wait for the statement in flight."""
        self.taken = 0
        """Bytes of all rows that runs have queued so far."""
        self._wake = asyncio.Event()
        """Set while somebody waits for a row that is queued."""
        self._later: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self.reachable = asyncio.Event()
        self.reachable.set()

    @property
    def backlog(self) -> int:
        """Return the number of rows that wait for the statement in flight."""
        return len(self._queue)

    def append(
        self,
        tail: Tail,
        seq: int,
        record: bytes,
        change: RunChange | None = None,
        *,
        hurried: bool = True,
        event: Announcement | None = None,
    ) -> None:
        """Queue the row `seq` of a run and tell its listener later. A closed tail takes nothing.

        `hurried` tells that the run waits for this row. `event` is committed with it.
        """
        if tail.refusal is not None:
            return
        self._queue.append(JournalRow(tail, seq, record, change, event))
        size = len(record)
        tail.size += size
        self.taken += size
        self.backlog_bytes += size
        if hurried:
            self._signal()
        elif self._later is None:
            self._idle.clear()
            self._later = asyncio.get_running_loop().call_later(UNHURRIED.total_seconds(), self._signal)

    def start(
        self, new: NewRun, answered: OnWritten, until: float | None = None, event: Announcement | None = None
    ) -> None:
        """Queue a new run with its first record; answer when it is durable, or its key exists already.

        After `until` (the loop's clock) the row is not sent any more, and the answer is TimeoutError. `event` is
        committed with the run, if it is a new one.
        """
        self._queue.append(PendingStart(new, answered, until, event))
        self.backlog_bytes += len(new.record)
        self._signal()

    async def flushed(self) -> None:
        """Return when no row is queued or in flight."""
        if self._queue:
            self._signal()
        await self._idle.wait()

    async def run(self) -> None:
        """Write for ever, until the process cancels it. Rows of a statement that is cut short may be durable."""
        try:
            while True:
                if not self._queue:
                    self._idle.set()
                await self._wake.wait()
                # Let callbacks that are ready run first, so that their rows share the statement.
                await asyncio.sleep(0)
                await self._write(self._take())
        finally:
            if self._later is not None:
                self._later.cancel()
            if self._connection is not None:
                self._connection.terminate()
                self._connection = None

    def _signal(self) -> None:
        if not self._wake.is_set():
            self._wake.set()
            self._idle.clear()

    def _take(self) -> Batch:
        """Return the next rows in order, of one owner for each run: a statement compares one fence for a run.

        The rows that an earlier owner in this process left are refused before the next owner's rows are sent. Later
        rows of a run are never in the statement that inserts its row into table run.
        """
        entries: list[JournalRow | PendingStart] = []
        started: set[UUID] = set()
        tails: dict[UUID, Tail] = {}
        size = 0
        while self._queue and len(entries) < MAXIMUM_ROWS and size < MAXIMUM_BYTES:
            entry = self._queue[0]
            if isinstance(entry, PendingStart):
                started.add(entry.new.id)
                size += len(entry.new.record)
            elif entry.tail.id in started or tails.setdefault(entry.tail.id, entry.tail) is not entry.tail:
                break
            else:
                size += len(entry.record)
            entries.append(self._queue.popleft())
        self.backlog_bytes -= size
        if not self._queue:
            self._wake.clear()
        if self._later is not None:
            self._later.cancel()
            self._later = None
        return Batch.of(entries)

    async def _write(self, batch: Batch) -> None:
        """Write a batch, for as long as it takes."""
        attempt = 0
        while len(batch := give_up(batch, asyncio.get_running_loop().time())):
            try:
                lost = await self._commit(batch)
            except REFUSED as error:
                batch = await self._isolate(batch, error)
            except Exception as error:  # the next attempt may succeed, and no row may be lost
                attempt += 1
                await self._lost(error, attempt)
            else:
                tell(batch, lost)
                break
        if not self.reachable.is_set():
            _log.info(JOURNAL_REACHABLE, attempts=attempt)
            self.reachable.set()

    async def _commit(self, batch: Batch) -> set[UUID]:
        """Send a batch once; return the runs refused for their fence, and the starts whose key exists."""
        connection = self._connection
        if connection is None or connection.is_closed():
            connection = self._connection = await self._connect()
        began = time.perf_counter()
        refused = await connection.fetch(batch.sql(), *batch.parameters())
        JOURNAL_SECONDS.observe(time.perf_counter() - began)
        JOURNAL_BATCH.observe(len(batch))
        lost = {row[0] for row in refused}
        if lost and batch.starts:
            await self._answer_known([start for start in batch.starts if start.new.id in lost], connection)
        return lost

    async def _answer_known(self, starts: list[PendingStart], connection: asyncpg.Connection[Any]) -> None:
        """Answer starts whose key exists: also our own, if the answer of the first commit was lost."""
        names = [start.new.namespace for start in starts], [start.new.key for start in starts]
        rows = await connection.fetch(HOLDERS, *names)
        holders = {(row["namespace"], row["idempotency_key"]): row for row in rows}
        for start in starts:
            row = holders.get((start.new.namespace, start.new.key))
            if row is None:  # That run was deleted meanwhile: its retention is over, so the key is free again.
                self._queue.appendleft(start)
                self.backlog_bytes += len(start.new.record)
                self._wake.set()
            else:
                created = row["id"] == start.new.id
                start.answered(StartAnswer(created, row["id"], bytes(row["payload"])))

    async def _isolate(self, batch: Batch, error: Exception) -> Batch:
        """Remove rows that can never be written or are there already; return those to be sent again."""
        connection = self._connection
        if connection is None or connection.is_closed():
            return batch
        try:
            present = await recovery.present(connection, batch)
        except Exception as failure:
            await self._lost(failure, 1)
            return batch
        done, collided = recovery.compare(batch, present)
        refuse(batch, collided, JournalRefusal.COLLISION)
        tell(Batch.of(row for row in batch.rows if row.tail.id in done), set())
        rest = batch.without([*collided, *done])
        if rest.single or (collided or done):
            if rest.single and not (collided or done):
                refuse_single(rest, error)
                return Batch()
            return rest
        for half in rest.halves():
            await self._write(half)
        return Batch()

    async def _lost(self, error: Exception, attempt: int) -> None:
        """Drop the connection and wait; refuse nothing, because the rows may be durable."""
        if self.reachable.is_set():
            self.reachable.clear()
            _log.warning(JOURNAL_UNREACHABLE, error=type(error).__name__, detail=str(error))
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
        await asyncio.sleep(self._backoff.delay(attempt, random.random).total_seconds())


def give_up(batch: Batch, now: float) -> Batch:
    """Answer the starts that are too late; return the batch without them.

    If one of them was sent before, its row may be durable. The claimer finds that run later, because the database says
    that we own it.
    """
    late = batch.late(now)
    if not late:
        return batch
    for start in late:
        start.answered(TimeoutError("the caller has given up"))
    return batch.without(start.new.id for start in late)


def tell(batch: Batch, lost: set[UUID]) -> None:
    """Tell the listeners of a committed batch; `lost` are the runs that were refused for their fence."""
    for start in batch.starts:
        if start.new.id not in lost:
            start.answered(StartAnswer(True, start.new.id, start.new.payload))
    last = {row.tail.id: row.seq for row in batch.rows}
    for run_id, tail in batch.tails.items():
        if run_id in lost:
            JOURNAL_REFUSED.labels(reason=JournalRefusal.FENCED.name).inc()
            tail.close(JournalRefusal.FENCED)
        else:
            tail.listener.durable(last[run_id])


def refuse(batch: Batch, runs: Iterable[UUID], refusal: JournalRefusal) -> None:
    """Close the tails of these runs."""
    for run_id in runs:
        JOURNAL_REFUSED.labels(reason=refusal.name).inc()
        batch.tails[run_id].close(refusal)


def refuse_single(batch: Batch, error: Exception) -> None:
    """Refuse the only run of a batch, because its row is bad."""
    for start in batch.starts:
        JOURNAL_REFUSED.labels(reason=JournalRefusal.BAD_ROW.name).inc()
        start.answered(error)
    refuse(batch, batch.tails, JournalRefusal.BAD_ROW)
