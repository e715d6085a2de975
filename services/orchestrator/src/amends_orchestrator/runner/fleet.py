"""All runs in this process's memory: starts them, adopts claimed ones, and releases them.

Only this module knows which runs are here. Called by the API (StartRun, ResolveRun, CancelRun), by the claimer, and by
the composition root for the drain.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Protocol
from uuid import UUID

import structlog
from amends_saga.engine import RunState, initial, replay, start
from amends_saga.engine import events as ev
from amends_saga.engine.ledger import UnreadableJournalError
from amends_saga.journal import RULES_VERSION, decode, encode, secret_for

from amends_orchestrator.calls.metadata import CallMetadata
from amends_orchestrator.calls.ports import Answer
from amends_orchestrator.calls.router import ProtectedRoute, Router
from amends_orchestrator.journal.batch import StartAnswer
from amends_orchestrator.journal.ids import RunIds
from amends_orchestrator.journal.records import Claimed, JournalRefusal, NewRun
from amends_orchestrator.journal.writer import JournalWriter
from amends_orchestrator.observe import RUNS_ENDED, RUNS_HOT, RUNS_HOT_BYTES, RUNS_LOST, RUNS_STARTED
from amends_orchestrator.runner.live import LiveRun
from amends_orchestrator.runner.ports import PinnedDefinition, RunInfo
from amends_orchestrator.runner.summary import state_of

RUN_LOST = "run.lost"
RUN_BROKEN = "run.broken"
RUN_PARKED = "run.parked"
GIVE_BACK_FAILED = "run.give_back_failed"

GIVE_BACK_AFTER = timedelta(seconds=30)
AT_LEISURE = 4
"""Up to this many runs in memory, the processor has time to work ahead."""

_log = structlog.get_logger(__name__)


class Caller(Protocol):
    """Makes attempts; `calls.sender.Sender` in production."""

    def send(
        self, protected: ProtectedRoute, request: bytes, metadata: CallMetadata, traceparent: str
    ) -> Awaitable[Answer]:
        """Make one attempt. Raises only CancelledError."""
        ...


class GiveBack(Protocol):
    """Releases a run that cannot be driven here, so that it shows as stalled."""

    async def __call__(self, run_id: UUID, fence: int, after: timedelta, reason: str, message: str) -> None:
        """Release the run. Raises the database's errors; the run is claimed later, when the lease has run out."""
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


@dataclass(frozen=True, slots=True)
class Begun:
    """A durable run: started by this call, or before with the same key."""

    run_id: UUID
    created: bool
    same: bool
    """Whether the run that has the key was started with the same saga and input."""
    live: LiveRun | None


class Fleet:
    """The runs that this process owns. Implements `ports.Ground`."""

    def __init__(
        self,
        process: UUID,
        writer: JournalWriter,
        router: Router,
        caller: Caller,
        ids: RunIds,
        give_back: GiveBack,
        limits: Limits | None = None,
    ) -> None:
        self.process = process
        self.writer = writer
        self.limits = limits or Limits()
        self.passivate_after = self.limits.passivate_after
        self.runs: dict[UUID, LiveRun] = {}
        self.draining = False
        self.room = asyncio.Event()
        """Set when the claimer has something to do: runs left the memory, or a new run waits for a claim."""
        self._router = router
        self._caller = caller
        self._ids = ids
        self._give_back = give_back
        self._starting: dict[tuple[str, str], asyncio.Future[Begun]] = {}
        """The last start for each namespace and key that the journal has not answered yet."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._lease_until = 0.0
        self._came = 0
        """Bytes of runs when they came here, minus the bytes of runs when they left."""
        self._secret: bytes | None = None

    @property
    def secret(self) -> bytes:
        """Return the secret of idempotency keys. Raises RuntimeError before `hold_secret`: no run begins without it."""
        if self._secret is None:
            raise RuntimeError("the installation's secret has not been read yet")
        return self._secret

    def hold_secret(self, secret: bytes) -> None:
        """Use the installation's secret for keys from now on."""
        self._secret = secret

    # ------------------------------------------------------------ what the runs need of this process

    def now(self) -> datetime:
        """Return the database's time, as this process estimates it."""
        return self._ids.now()

    @property
    def roomy(self) -> bool:
        """Return whether at least half of the memory for runs is free: runs that are held back may stay in it."""
        return 2 * self.free >= self.limits.hot_runs

    @property
    def at_leisure(self) -> bool:
        """Return whether so few runs are under way that the processor has time to work ahead."""
        return len(self.runs) <= AT_LEISURE

    def when_sent(self, work: Callable[..., None], *arguments: Any) -> None:
        """Do some work after the call or row just begun is sent: two turns of the loop from now."""
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, work, *arguments)

    def leased(self) -> bool:
        """Return whether our lease is still valid."""
        return asyncio.get_running_loop().time() < self._lease_until

    def hold_lease(self, until: float) -> None:
        """Treat the lease as valid until this moment of the loop's clock."""
        self._lease_until = until

    def route(self, namespace: str, service: str, method: str) -> ProtectedRoute:
        """Return how to call a method now. Raises RouteError."""
        return self._router.route(namespace, service, method)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Start a call in a new context, so that it inherits nothing from the code that triggered it."""
        task = asyncio.get_running_loop().create_task(work, context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def send(
        self, protected: ProtectedRoute, request: bytes, metadata: CallMetadata, traceparent: str
    ) -> Awaitable[Answer]:
        """Make one attempt. Raises only CancelledError."""
        return self._caller.send(protected, request, metadata, traceparent)

    def settled(self, run_id: UUID) -> None:
        """Forget a run that has ended, is parked or was released, durably."""
        run = self._forget(run_id)
        state = state_of(run.state)
        if run.state.ended or run.state.parked is not None:
            RUNS_ENDED.labels(namespace=run.info.namespace, saga=run.info.saga, state=state.name).inc()
        if run.state.parked is not None:
            _log.warning(RUN_PARKED, run_id=run.info.name, saga=run.info.saga, reason=run.state.parked.reason)

    def lost(self, run_id: UUID, refusal: JournalRefusal) -> None:
        """Drop a run whose rows the journal refused: another owner has a newer fence, or a row was bad."""
        run = self._forget(run_id)
        RUNS_LOST.inc()
        _log.warning(RUN_LOST, run_id=run.info.name, fence=run.state.fence, why=refusal.value)
        if refusal is not JournalRefusal.FENCED:
            self.spawn(self._give_back_run(run, refusal.name, refusal.value))

    def broken(self, run_id: UUID, error: Exception) -> None:
        """Release a run whose engine or expression failed in a way that no rule foresees."""
        run = self._forget(run_id)
        _log.error(RUN_BROKEN, run_id=run.info.name, exc_info=error)
        self.spawn(self._give_back_run(run, "INTERNAL", "the orchestrator failed; its log says why"))

    async def _give_back_run(self, run: LiveRun, reason: str, message: str) -> None:
        try:
            await self._give_back(run.info.id, run.state.fence, GIVE_BACK_AFTER, reason, message)
        except Exception as error:
            _log.warning(GIVE_BACK_FAILED, run_id=run.info.name, error=type(error).__name__)

    # ------------------------------------------------------------ coming and going

    @property
    def free(self) -> int:
        """Return how many more runs fit into memory."""
        if self.draining or self.room_bytes <= 0:
            return 0
        return max(self.limits.hot_runs - len(self.runs), 0)

    @property
    def weight(self) -> int:
        """Return the bytes of the journals of the runs in memory, as far as they were read or written here."""
        return self._came + self.writer.taken

    @property
    def room_bytes(self) -> int:
        """Return how many more bytes fit into memory; negative when runs have grown since they came."""
        return self.limits.hot_bytes - self.weight

    def shed(self) -> None:
        """Release the largest runs until the rest fits into memory: runs grow after they came."""
        over = -self.room_bytes
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
        writer, limits = self.writer, self.limits
        return writer.backlog >= limits.backlog or writer.backlog_bytes >= limits.backlog_bytes

    async def begin(
        self,
        definition: PinnedDefinition,
        digest: bytes,
        *,
        namespace: str,
        key: str,
        data: bytes,
        traceparent: str,
        within: timedelta | None = None,
    ) -> Begun:
        """Start a run, or find the one that has the key; return when it is durable. `data` is the input.

        `within` is how long the caller waits. After that the start is not sent to the database any more, so that no run
        begins whose caller has given up. Raises TimeoutError then, and the asyncpg error with which the database
        refuses a row.
        """
        run = self._new(definition, namespace, traceparent)
        plan, now = definition.plan, self.now()
        deadline = now + plan.deadline if plan.deadline is not None else None
        state, commands = start(ev.Started(data, deadline), now, run.state, plan)
        first = commands[0]
        assert isinstance(first, ev.Record)
        here = self.free > 0
        payload = payload_of(plan.saga, data)
        new = NewRun(
            run.info.id,
            namespace,
            plan.saga,
            key,
            payload,
            digest,
            RULES_VERSION,
            self.process if here else None,
            traceparent,
            encode(plan, first.entry),
        )
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Begun] = loop.create_future()
        if here:
            run.state = state
            self._keep(run)
        until = loop.time() + within.total_seconds() if within is not None else None
        self._starting[namespace, key] = answer
        self.writer.start(new, lambda what: self._started(run, what, answer, new, here=here), until)
        if here and self.at_leisure:
            self.when_sent(run.resume, commands[1:])
        elif here:
            run.resume(commands[1:])
        return await answer

    async def started(self, namespace: str, key: str) -> None:
        """Return when no start with this key is under way in this process."""
        while (answer := self._starting.get((namespace, key))) is not None:
            await asyncio.wait([answer])

    def _started(
        self, run: LiveRun, what: StartAnswer | Exception, answer: asyncio.Future[Begun], new: NewRun, *, here: bool
    ) -> None:
        if self._starting.get((new.namespace, new.key)) is answer:
            del self._starting[new.namespace, new.key]
        if self.runs.get(run.info.id) is run and (isinstance(what, Exception) or not what.created):
            run.leave()
            self._forget(run.info.id)
        if isinstance(what, Exception):
            if not answer.done():
                answer.set_exception(what)
            return
        live = run if here and what.created else self.runs.get(what.run_id)
        begun = Begun(what.run_id, what.created, what.payload == new.payload, live)
        if what.created:
            RUNS_STARTED.labels(namespace=run.info.namespace, saga=run.info.saga).inc()
            if here:
                run.tell(ev.Durable(1))
            else:
                self.room.set()
        if self.at_leisure:
            self.when_sent(_give, answer, begun)
        else:
            _give(answer, begun)

    def _new(self, definition: PinnedDefinition, namespace: str, traceparent: str) -> LiveRun:
        run_id = self._ids.next()
        secret = secret_for(RULES_VERSION, self.secret)
        info = RunInfo(run_id, namespace, definition.plan.saga, traceparent, secret)
        return LiveRun(self, definition, info, initial(definition.plan, info.name))

    def adopt(self, definition: PinnedDefinition, claimed: Claimed, asked: ev.Signal | None = None) -> LiveRun:
        """Drive a run whose claim has committed. Raises UnreadableJournalError.

        `asked` is a person's request. The run hears it before it does anything, so that a cancel comes before the
        pivot.
        """
        row = claimed.run
        state = restore(definition, claimed)
        secret = secret_for(row.rules, self.secret)
        info = RunInfo(row.id, row.namespace, row.saga, row.traceparent, secret)
        before = self.runs.get(row.id)
        if before is not None:  # we lost it and claimed it again before the journal told us
            before.leave()
            self._forget(row.id)
        run = LiveRun(self, definition, info, state, shown_stalled=row.stalled_since is not None)
        run.tail.size = sum(len(record.record) for record in claimed.records)
        self._keep(run)
        if asked is not None:
            run.tell(asked)
        run.tell(ev.ReleaseRequested() if self.draining else None)
        return run

    def _keep(self, run: LiveRun) -> None:
        if not run.tail.size:
            run.tail.size = len(run.state.input)
        self._came += run.tail.size
        self.runs[run.info.id] = run
        self._empty.clear()
        RUNS_HOT.set(len(self.runs))
        RUNS_HOT_BYTES.set(self.weight)

    def _forget(self, run_id: UUID) -> LiveRun:
        run = self.runs.pop(run_id)
        was_full = self.room_bytes <= 0
        self._came -= run.tail.size
        RUNS_HOT.set(len(self.runs))
        RUNS_HOT_BYTES.set(self.weight)
        if was_full or len(self.runs) + 1 >= self.limits.hot_runs:
            self.room.set()
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
                await self.writer.flushed()
        except TimeoutError:
            return len(self.runs)
        return 0

    async def stop(self) -> None:
        """End the calls that are still under way; other processes own their runs now."""
        for run in list(self.runs.values()):
            run.leave()
        self.runs.clear()
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def payload_of(saga: str, data: bytes) -> bytes:
    """Return what is compared when a key is used again: sha256 of the saga's name and the serialised input."""
    return sha256(saga.encode() + b"\0" + data).digest()


def _give(answer: asyncio.Future[Begun], begun: Begun) -> None:
    if not answer.done():
        answer.set_result(begun)


def restore(definition: PinnedDefinition, claimed: Claimed) -> RunState:
    """Return the state with which the owner of a claimed run begins. Raises UnreadableJournalError."""
    plan, row = definition.plan, claimed.run
    try:
        entries = [decode(plan, record.seq, record.fence, record.record) for record in claimed.records]
    except KeyError as error:
        raise UnreadableJournalError(f"the journal names {error}, which the definition does not have") from None
    return replay(plan, str(row.id), row.fence, entries)
