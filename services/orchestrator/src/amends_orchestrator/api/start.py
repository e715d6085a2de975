"""StartRun: the way in, and the hot one. A caller with a key gets one run, however often it asks.

Answered when the start is durable; with `wait` when the run has come to rest. The answer leaves input and responses
out, which GetRun has: making JSON of them would cost more than running the saga.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from amends_chassis.context import traceparent
from amends_chassis.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, Unavailable
from amends_resilience import deadline
from amends_saga.compiled import CompiledSaga
from amends_saga.jsonform import InputError
from google.protobuf.json_format import MessageToDict

from amends.saga.v1 import run_service_pb2 as pb
from amends_orchestrator.api.convert import run_message
from amends_orchestrator.api.views import Views, check_timeline
from amends_orchestrator.api.waiting import live_settled, row_settled
from amends_orchestrator.calls.ports import RouteError
from amends_orchestrator.journal.reader import read_journal
from amends_orchestrator.journal.records import RunRow, State
from amends_orchestrator.runner.claimer import DefinitionError
from amends_orchestrator.runner.fleet import Begun, Fleet
from amends_orchestrator.runner.live import LiveRun
from amends_orchestrator.runner.summary import state_of

LONGEST_KEY = 255
LONGEST_WAIT = timedelta(minutes=5)
ANSWER_MARGIN = timedelta(milliseconds=50)


async def start_run(fleet: Fleet, views: Views, request: pb.StartRunRequest) -> pb.StartRunResponse:
    """Starts or finds a run. Raises DomainErrors as the contract names them."""
    namespace = request.namespace or "default"
    key = request.idempotency_key
    _check_key(key)
    check_timeline(request.timeline)
    definition, digest = await _definition(views, namespace, request.saga)
    data = _input(definition, request)
    if fleet.overloaded:
        raise Unavailable("JOURNAL_BUSY", "The journal cannot take more runs now; try the same call again.")
    begun = await fleet.begin(
        definition, digest, namespace=namespace, key=key, data=data, traceparent=traceparent() or ""
    )
    if not begun.same:
        raise AlreadyExists(
            "KEY_REUSED", "This key was used with another saga or input.", run_id=str(begun.run_id), namespace=namespace
        )
    if request.wait:
        await _wait(views, begun, _patience(request))
    live = begun.live
    if live is not None and begun.created and (not live.gone or live.state.settled):
        run = _live_message(definition, live, namespace, key, digest, fleet)
        records = await read_journal(views.pool, begun.run_id) if request.timeline else ()
        timeline = await views.events(begun.run_id, digest, records, request.timeline)
    else:
        row = await views.row(begun.run_id)
        run, timeline = await views.with_timeline(row, request.timeline, payloads=False)
    return pb.StartRunResponse(run=run, created=begun.created, timeline=timeline)


def _check_key(key: str) -> None:
    if not 1 <= len(key) <= LONGEST_KEY or not key.isprintable():
        raise InvalidArgument("KEY_INVALID", f"idempotency_key takes 1 to {LONGEST_KEY} printable characters.")


async def _definition(views: Views, namespace: str, name: str) -> tuple[CompiledSaga, bytes]:
    if not name:
        raise InvalidArgument("SAGA_UNNAMED", "Give the saga's name.")
    saga = await views.registry.saga(namespace, name)
    if saga is None:
        raise NotFound("SAGA_UNKNOWN", "There is no such saga.", namespace=namespace, saga=name)
    if not saga.ready:
        raise FailedPrecondition("SAGA_NOT_READY", f"The saga cannot be started: {saga.message}", saga=name)
    try:
        compiled = await views.registry.pinned(saga.digest)
        views.registry.check_granted(namespace, compiled)
        return compiled, saga.digest
    except (DefinitionError, RouteError) as error:
        why = str(error).rstrip(".")
        raise FailedPrecondition("SAGA_NOT_READY", f"The saga cannot be started: {why}.", saga=name) from None


def _input(definition: CompiledSaga, request: pb.StartRunRequest) -> bytes:
    try:
        if request.WhichOneof("input") == "binary":
            return definition.check_input(request.binary)
        return definition.parse_input(MessageToDict(request.json))
    except InputError as error:
        raise InvalidArgument("INPUT_INVALID", f"The input does not fit: {error}", field=error.path) from None


def _patience(request: pb.StartRunRequest) -> timedelta:
    """How long the caller waits: as it says, never beyond its deadline."""
    wanted = request.wait_timeout.ToTimedelta() if request.HasField("wait_timeout") else LONGEST_WAIT
    left = deadline.remaining(ANSWER_MARGIN)
    return max(min(wanted, LONGEST_WAIT if left is None else left), timedelta())


async def _wait(views: Views, begun: Begun, within: timedelta) -> None:
    began = asyncio.get_running_loop().time()
    live = begun.live
    if live is not None:
        if not await live_settled(live, within):
            return
        if live.state.settled and (live.state.ended or live.state.parked is not None):
            return
    waited = timedelta(seconds=asyncio.get_running_loop().time() - began)
    await row_settled(views.pool, begun.run_id, max(within - waited, timedelta()))


def _live_message(
    definition: CompiledSaga, live: LiveRun, namespace: str, key: str, digest: bytes, fleet: Fleet
) -> Any:
    """The run as this process knows it; what it shows is durable, or will be before anything depends on it."""
    state = live.state
    now = fleet.now()
    shown = state_of(state)
    row = RunRow(
        id=live.info.id,
        namespace=namespace,
        saga=live.info.saga,
        key=key,
        payload=b"",
        digest=digest,
        rules=0,
        owner=None,
        fence=state.fence,
        state=shown,
        started_at=state.started_at or now,
        ended_at=now if shown in (State.COMPLETED, State.COMPENSATED) else None,
        due_at=None,
        traceparent="",
        step="",
        reason="",
        message="",
        skipped_by_person=state.skipped_by_person,
        stalled_since=None,
        next_attempt_at=None,
    )
    return run_message(definition, row, state, now, payloads=False)
