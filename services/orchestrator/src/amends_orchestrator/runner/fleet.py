"""All runs in this process's memory: keeps them, adopts claimed ones, and releases them when it drains.

Only this module knows which runs are here, and how many more fit. Called by the API, by the claimer, and by the
composition root for the drain.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol
from uuid import UUID

import structlog
from amends_saga.engine import RunState, replay
from amends_saga.engine import events as ev
from amends_saga.engine.ledger import UnreadableJournalError
from amends_saga.journal import decode

from amends_orchestrator.journal.records import Claimed, JournalRefusal
from amends_orchestrator.journal.telling import Announcement
from amends_orchestrator.observe import RUNS_ENDED, RUNS_HOT, RUNS_HOT_BYTES, RUNS_LOST
from amends_orchestrator.runner.host import RunHost
from amends_orchestrator.runner.live import LiveRun
from amends_orchestrator.runner.ports import PinnedDefinition
from amends_orchestrator.runner.summary import state_of

RUN_LOST = "run.lost"
RUN_BROKEN = "run.broken"
RUN_PARKED = "run.parked"
RELEASE_FAILED = "run.give_back_failed"

CLAIM_AGAIN_AFTER = timedelta(seconds=30)
AT_LEISURE = 4
"""Up to this many runs in memory, the processor has time to work ahead."""

_log = structlog.get_logger(__name__)


class ReleaseClaim(Protocol):
    """Releases the claim of a run that cannot be driven here, so that it shows as stalled."""

    async def __call__(
        self, run_id: UUID, fence: int, after: timedelta, reason: str, message: str, event: Announcement | None
    ) -> None:
        """Release the run, with the event that tells of it.

        Raises the database's errors; the run is claimed later, when the lease has run out.
        """
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of what a process keeps in memory."""

    hot_runs: int = 2000
    passivate_after: timedelta = timedelta(seconds=2)
    backlog: int = 5000
    """Journal rows that may wait before starts are refused."""
    hot_bytes: int = 64 * 1024 * 1024
    """The most bytes of the journals of the runs in memory; a single run that is larger is driven anyway."""
    backlog_bytes: int = 16 * 1024 * 1024
    """Bytes of journal rows that may wait before starts are refused."""


class Fleet:
    """The runs that this process owns. Implements `ports.RunKeeper`."""

    def __init__(self, process: UUID, host: RunHost, release_claim: ReleaseClaim, limits: Limits | None = None) -> None:
        self.process = process
        self.limits = limits or Limits()
        self.passivate_after = self.limits.passivate_after
        self.runs: dict[UUID, LiveRun] = {}
        self.draining = False
        self.capacity_changed = asyncio.Event()
        """Set when the claimer has something to do: runs left the memory, or a new run waits for a claim."""
        self.host = host
        self._writer = host.writer
        self._release_claim = release_claim
        self._empty = asyncio.Event()
        self._empty.set()
        self._came = 0
        """Bytes of runs when they came here, minus the bytes of runs when they left."""

    # ------------------------------------------------------------ what live runs ask and tell

    @property
    def roomy(self) -> bool:
        """Return whether at least half of the memory for runs is free: runs that are held back may stay in it."""
        return 2 * self.spare_runs >= self.limits.hot_runs

    @property
    def at_leisure(self) -> bool:
        """Return whether so few runs are under way that the processor has time to work ahead."""
        return len(self.runs) <= AT_LEISURE

    def soon(self, work: Callable[..., None], *arguments: Any) -> None:
        """Do some work at once; if the process is at leisure, after the call or row just begun is sent."""
        if self.at_leisure:
            self.host.when_sent(work, *arguments)
        else:
            work(*arguments)

    def settled(self, run_id: UUID) -> None:
        """Forget a run that has ended, is parked or was released, durably."""
        run = self.forget(run_id)
        state = state_of(run.state)
        if run.state.ended or run.state.parked is not None:
            RUNS_ENDED.labels(namespace=run.info.namespace, saga=run.info.saga, state=state.name).inc()
        if run.state.parked is not None:
            _log.warning(RUN_PARKED, run_id=run.info.name, saga=run.info.saga, reason=run.state.parked.reason)

    def lost(self, run_id: UUID, refusal: JournalRefusal) -> None:
        """Drop a run whose rows the journal refused: another owner has a newer fence, or a row was bad."""
        run = self.forget(run_id)
        RUNS_LOST.inc()
        _log.warning(RUN_LOST, run_id=run.info.name, fence=run.state.fence, why=refusal.value)
        if refusal is not JournalRefusal.FENCED:
            self.host.spawn(self._release(run, refusal.name, refusal.value))

    def broken(self, run_id: UUID, error: Exception) -> None:
        """Release a run whose engine or expression failed in a way that no rule foresees."""
        run = self.forget(run_id)
        _log.error(RUN_BROKEN, run_id=run.info.name, exc_info=error)
        self.host.spawn(self._release(run, "INTERNAL", "the orchestrator failed; its log says why"))

    async def _release(self, run: LiveRun, reason: str, message: str) -> None:
        try:
            event = self.host.announcer.undrivable(run.info, reason)
            await self._release_claim(run.info.id, run.state.fence, CLAIM_AGAIN_AFTER, reason, message, event)
        except Exception as error:
            _log.warning(RELEASE_FAILED, run_id=run.info.name, error=type(error).__name__)

    # ------------------------------------------------------------ coming and going

    @property
    def spare_runs(self) -> int:
        """Return how many more runs fit into memory."""
        if self.draining or self.spare_bytes <= 0:
            return 0
        return max(self.limits.hot_runs - len(self.runs), 0)

    @property
    def weight(self) -> int:
        """Return the bytes of the journals of the runs in memory, as far as they were read or written here."""
        return self._came + self._writer.taken

    @property
    def spare_bytes(self) -> int:
        """Return how many more bytes fit into memory; negative when runs have grown since they came."""
        return self.limits.hot_bytes - self.weight

    def shed(self) -> None:
        """Release the largest runs until the rest fits into memory: runs grow after they came."""
        over = -self.spare_bytes
        if over <= 0 or len(self.runs) < 2:
            return
        for run in sorted(self.runs.values(), key=lambda run: run.tail.size, reverse=True)[: len(self.runs) - 1]:
            if over <= 0:
                return
            over -= run.tail.size
            run.tell(ev.ReleaseRequested())

    def get(self, run_id: UUID) -> LiveRun | None:
        """Return a run that this process drives, or None."""
        return self.runs.get(run_id)

    @property
    def overloaded(self) -> bool:
        """Return whether the journal is behind or unreachable, so that new starts would only queue here."""
        writer, limits = self._writer, self.limits
        return writer.backlog >= limits.backlog or writer.backlog_bytes >= limits.backlog_bytes

    def adopt(self, definition: PinnedDefinition, claimed: Claimed, asked: ev.Signal | None = None) -> LiveRun:
        """Drive a run whose claim has committed. Raises UnreadableJournalError.

        `asked` is a person's request. The run hears it before it does anything, so that a cancel comes before the
        pivot.
        """
        row = claimed.run
        state = restore(definition, claimed)
        info = self.host.info(row.id, row.namespace, row.saga, row.key, row.traceparent, row.rules)
        before = self.runs.get(row.id)
        if before is not None:  # we lost it and claimed it again before the journal told us
            before.leave()
            self.forget(row.id)
        run = LiveRun(self.host, self, definition, info, state, shown_stalled=row.stalled_since is not None)
        run.tail.size = sum(len(record.record) for record in claimed.records)
        self.keep(run)
        if asked is not None:
            run.tell(asked)
        run.tell(ev.ReleaseRequested() if self.draining else None)
        return run

    def keep(self, run: LiveRun) -> None:
        """Take a run into memory."""
        if not run.tail.size:
            run.tail.size = len(run.state.input)
        self._came += run.tail.size
        self.runs[run.info.id] = run
        self._empty.clear()
        RUNS_HOT.set(len(self.runs))
        RUNS_HOT_BYTES.set(self.weight)

    def forget(self, run_id: UUID) -> LiveRun:
        """Remove a run from memory and return it."""
        run = self.runs.pop(run_id)
        was_full = self.spare_bytes <= 0
        self._came -= run.tail.size
        RUNS_HOT.set(len(self.runs))
        RUNS_HOT_BYTES.set(self.weight)
        if was_full or len(self.runs) + 1 >= self.limits.hot_runs:
            self.capacity_changed.set()
        if not self.runs:
            self._empty.set()
        return run

    async def drain(self, within: timedelta) -> int:
        """Release all runs after the calls under way were answered; return how many did not go in time."""
        self.draining = True
        for run in list(self.runs.values()):
            run.tell(ev.ReleaseRequested())
        try:
            async with asyncio.timeout(within.total_seconds()):
                await self._empty.wait()
                await self._writer.flushed()
        except TimeoutError:
            return len(self.runs)
        return 0

    async def stop(self) -> None:
        """End the calls that are still under way; other processes own their runs now."""
        for run in list(self.runs.values()):
            run.leave()
        self.runs.clear()
        await self.host.stop()


def restore(definition: PinnedDefinition, claimed: Claimed) -> RunState:
    """Return the state with which the owner of a claimed run begins. Raises UnreadableJournalError."""
    plan, row = definition.plan, claimed.run
    try:
        entries = [decode(plan, record.seq, record.fence, record.record) for record in claimed.records]
    except KeyError as error:
        raise UnreadableJournalError(f"the journal names {error}, which the definition does not have") from None
    return replay(plan, str(row.id), row.fence, entries)
