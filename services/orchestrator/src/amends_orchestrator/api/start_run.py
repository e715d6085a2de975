"""StartRun: starts runs. A caller that sends a key gets one run, however often it asks.

The key is looked at first. The statement that starts a run also finds the run that has the key. If a start is refused
earlier (for the saga, the input or a busy journal), the key is looked up before the refusal is returned. So a caller
that asks again always learns of its run, even if the saga has changed or was deleted since.

The answer comes when the start is durable; with `wait`, when the run has ended or is parked. It leaves out the input
and the responses, which GetRun returns: making JSON of them would cost more than running the saga.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID

from amends_chassis.context import traceparent
from amends_chassis.errors import (
    AlreadyExists,
    DomainError,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unavailable,
)
from amends_resilience import deadline
from amends_saga.compiled import CompiledSaga
from amends_saga.jsonform import InputError

from amends.saga.v1 import run_service_pb2 as pb
from amends_orchestrator.api.convert import RunView, run_message
from amends_orchestrator.api.long_poll import live_settled, row_settled
from amends_orchestrator.api.payloads import Payloads
from amends_orchestrator.api.request_checks import duration_of
from amends_orchestrator.api.views import AT_ONCE, Views, check_timeline
from amends_orchestrator.calls.ports import RouteError
from amends_orchestrator.journal.reader import read_journal, read_run_by_key
from amends_orchestrator.journal.records import RunRow, State
from amends_orchestrator.runner.fleet import Fleet
from amends_orchestrator.runner.host import RunHost
from amends_orchestrator.runner.live import LiveRun
from amends_orchestrator.runner.ports import DefinitionError
from amends_orchestrator.runner.starts import Begun, RunStarts, payload_of
from amends_orchestrator.runner.summary import state_of

LONGEST_KEY = 255
LONGEST_WAIT = timedelta(minutes=5)
ANSWER_MARGIN = timedelta(milliseconds=50)


class RunStarter:
    """Starts runs, or finds those that were started with the same key."""

    def __init__(self, host: RunHost, fleet: Fleet, starts: RunStarts, views: Views) -> None:
        self._host = host
        self._fleet = fleet
        self._starts = starts
        self._views = views

    async def start(self, request: pb.StartRunRequest) -> pb.StartRunResponse:
        """Start a run, or find the one with the key. Raises the DomainErrors that the contract names."""
        _check_key(request.idempotency_key)
        check_timeline(request.timeline)
        patience = _patience(request)
        namespace = request.namespace or "default"
        try:
            definition, digest = await self._definition(namespace, request.saga)
            begun = await self._begin(definition, digest, namespace, request)
        except DomainError:
            row = await self._row(namespace, request.idempotency_key)
            if row is None:
                raise
            return await self._found(row, request, patience)
        if not begun.same:
            row = await self._views.row(begun.run_id)
            return await self._found(row, request, patience)
        if request.wait:
            await _wait(self._views, begun.run_id, begun.live, patience)
        live = begun.live
        if live is None or not begun.created or not _durable(live):
            return await self._answer(begun.run_id, request, created=begun.created)
        # All that the run in memory shows is durable, or will be before anything depends on it.
        now = self._host.now()
        view = RunView.of_live(live.info, live.state, digest, request.idempotency_key, now)
        run = run_message(definition, view, live.state, now, Payloads())
        records = await read_journal(self._views.pool, begun.run_id) if request.timeline else ()
        timeline = await self._views.events(begun.run_id, digest, records, request.timeline)
        return pb.StartRunResponse(run=run, created=True, timeline=timeline)

    async def _begin(
        self, definition: CompiledSaga, digest: bytes, namespace: str, request: pb.StartRunRequest
    ) -> Begun:
        data = await self._input(definition, request)
        if self._fleet.overloaded:
            raise Unavailable("JOURNAL_BUSY", "The journal cannot take more runs now; try the same call again.")
        key, trace = request.idempotency_key, traceparent() or ""
        return await self._starts.begin(
            definition, digest, namespace=namespace, key=key, data=data, traceparent=trace, within=deadline.remaining()
        )

    async def _definition(self, namespace: str, name: str) -> tuple[CompiledSaga, bytes]:
        registry = self._views.registry
        if not name:
            raise InvalidArgument("SAGA_UNNAMED", "Give the saga's name.")
        saga = await registry.saga(namespace, name)
        if saga is None:
            raise NotFound("SAGA_UNKNOWN", "There is no such saga.", namespace=namespace, saga=name)
        if not saga.ready:
            raise FailedPrecondition("SAGA_NOT_READY", f"The saga cannot be started: {saga.message}", saga=name)
        try:
            compiled = await registry.pinned(saga.digest)
            registry.check_granted(namespace, compiled)
            return compiled, saga.digest
        except (DefinitionError, RouteError) as error:
            why = str(error).rstrip(".")
            raise FailedPrecondition("SAGA_NOT_READY", f"The saga cannot be started: {why}.", saga=name) from None

    async def _input(self, definition: CompiledSaga, request: pb.StartRunRequest) -> bytes:
        if request.ByteSize() <= AT_ONCE:
            return _parse(definition, request)
        async with self._views.threads:
            return await asyncio.to_thread(_parse, definition, request)

    # ------------------------------------------------------------ a run that was there already

    async def _row(self, namespace: str, key: str) -> RunRow | None:
        """Return the row of the run with a key, after every start with it in this process. Raises asyncpg errors."""
        await self._starts.started(namespace, key)
        return await read_run_by_key(self._views.pool, namespace, key)

    async def _found(self, row: RunRow, request: pb.StartRunRequest, patience: timedelta) -> pb.StartRunResponse:
        """Return the answer for a run that was started before. Raises AlreadyExists if another run was asked for."""
        if row.saga != request.saga or not await self._same_input(row, request):
            raise AlreadyExists(
                "KEY_REUSED",
                "This key was used with another saga or input.",
                run_id=str(row.id),
                namespace=row.namespace,
            )
        if request.wait:
            await _wait(self._views, row.id, self._fleet.get(row.id), patience)
        return await self._answer(row.id, request, created=False)

    async def _same_input(self, row: RunRow, request: pb.StartRunRequest) -> bool:
        """Return whether the input means the same to the definition that the run is pinned to."""
        try:
            definition = await self._views.registry.pinned(row.digest)
        except DefinitionError as error:
            # Not a refusal: the run exists, and another replica may be able to compare.
            raise Unavailable(
                "RUN_UNREADABLE", f"There is a run with this key, but it cannot be read here: {error}."
            ) from None
        try:
            data = await self._input(definition, request)
        except InvalidArgument:
            return False
        return payload_of(row.saga, data) == row.payload

    async def _answer(self, run_id: UUID, request: pb.StartRunRequest, *, created: bool) -> pb.StartRunResponse:
        """Return the answer, read from the durable row and journal."""
        run, timeline = await self._views.with_timeline(await self._views.row(run_id), request.timeline)
        return pb.StartRunResponse(run=run, created=created, timeline=timeline)


def _check_key(key: str) -> None:
    if not 1 <= len(key) <= LONGEST_KEY or not key.isprintable():
        raise InvalidArgument("KEY_INVALID", f"idempotency_key takes 1 to {LONGEST_KEY} printable characters.")


def _parse(definition: CompiledSaga, request: pb.StartRunRequest) -> bytes:
    try:
        match request.WhichOneof("input"):
            case "binary":
                return definition.check_input(request.binary)
            case "json_text":
                return definition.parse_input(request.json_text)
            case _:
                return definition.parse_input(request.json)
    except InputError as error:
        raise InvalidArgument("INPUT_INVALID", f"The input does not fit: {error}", field=error.path) from None


def _patience(request: pb.StartRunRequest) -> timedelta:
    """Return how long the caller waits: as it asked, within its deadline. Raises InvalidArgument."""
    wanted = LONGEST_WAIT
    if request.HasField("wait_timeout"):
        wanted = duration_of("wait_timeout", request.wait_timeout)
    left = deadline.remaining(ANSWER_MARGIN)
    return max(min(wanted, LONGEST_WAIT if left is None else left), timedelta())


def _durable(live: LiveRun) -> bool:
    """Return whether this process's state of the run is in the journal; it is not after a release or a loss."""
    state = live.state
    if live.gone:
        return (state.ended or state.parked is not None) and state.durable >= state.seq
    return state_of(state) is State.RUNNING or state.durable >= state.seq


async def _wait(views: Views, run_id: UUID, live: LiveRun | None, within: timedelta) -> None:
    began = asyncio.get_running_loop().time()
    if live is not None:
        if not await live_settled(live, within):
            return
        if live.state.settled and (live.state.ended or live.state.parked is not None):
            return
    waited = timedelta(seconds=asyncio.get_running_loop().time() - began)
    await row_settled(views.pool, run_id, max(within - waited, timedelta()))
