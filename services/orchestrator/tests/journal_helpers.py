"""A writer with its task, and listeners that remember what they were told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID

from amends_orchestrator.journal.batch import StartAnswer
from amends_orchestrator.journal.connection import Connect
from amends_orchestrator.journal.ids import RunIds
from amends_orchestrator.journal.records import JournalRefusal, NewRun, RunChange
from amends_orchestrator.journal.tail import Tail
from amends_orchestrator.journal.writer import JournalWriter
from amends_resilience import Backoff
from amends_testkit.waiting import eventually

QUICK = Backoff(initial=timedelta(milliseconds=5), maximum=timedelta(milliseconds=50))


class Heard:
    """What a listener was told."""

    def __init__(self) -> None:
        self.seq = 0
        self.refusal: JournalRefusal | None = None

    def durable(self, seq: int) -> None:
        assert seq > self.seq, "rows become durable in order"
        self.seq = seq

    def refused(self, refusal: JournalRefusal) -> None:
        assert self.refusal is None, "a listener is refused once"
        self.refusal = refusal


class Journal:
    """A writer in its task."""

    def __init__(self, connect: Connect, process: UUID) -> None:
        self.writer = JournalWriter(connect, backoff=QUICK)
        self.process = process
        self.ids = RunIds()
        self.ids.synchronise(datetime.now(UTC))

    @classmethod
    @asynccontextmanager
    async def over(cls, connect: Connect, process: UUID) -> AsyncIterator[Journal]:
        journal = cls(connect, process)
        task = asyncio.create_task(journal.writer.run())
        try:
            yield journal
        finally:
            assert not task.done(), "the writer never gives up"
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def new(self, key: str = "", *, payload: bytes = b"p", owned: bool = True) -> NewRun:
        run_id = self.ids.next()
        owner = self.process if owned else None
        return NewRun(run_id, "default", "saga", key or str(run_id), payload, b"d", 1, owner, "", b"started")

    async def start(self, key: str = "", *, payload: bytes = b"p", owned: bool = True) -> StartAnswer:
        answer: asyncio.Future[StartAnswer] = asyncio.get_running_loop().create_future()

        def answered(what: StartAnswer | Exception) -> None:
            if isinstance(what, Exception):
                answer.set_exception(what)
            else:
                answer.set_result(what)

        self.writer.start(self.new(key, payload=payload, owned=owned), answered)
        return await asyncio.wait_for(answer, 10)

    async def run(self) -> Tail:
        """A started run with a listener of its own."""
        return Tail((await self.start()).run_id, 1, Heard())

    def append(self, tail: Tail, *seqs: int, record: bytes = b"record", change: RunChange | None = None) -> None:
        for seq in seqs:
            self.writer.append(tail, seq, record, change)

    async def durable(self, tail: Tail, seq: int) -> None:
        await eventually(lambda: heard(tail).seq >= seq, what=f"record {seq} is durable")

    async def refused(self, tail: Tail) -> JournalRefusal:
        await eventually(lambda: heard(tail).refusal is not None, what="the run is refused")
        refusal = heard(tail).refusal
        assert refusal is not None
        return refusal


def heard(tail: Tail) -> Heard:
    assert isinstance(tail.listener, Heard)
    return tail.listener
