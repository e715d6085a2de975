"""ResolveRun and CancelRun: people's decisions about a run, answered when the decision is durable."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from amends_chassis.errors import Aborted, DomainError, FailedPrecondition, InvalidArgument, NotFound
from amends_resilience import deadline
from amends_saga.engine import events as ev
from amends_saga.jsonform import InputError

from amends.saga.v1 import run_pb2
from amends.saga.v1 import run_service_pb2 as pb
from amends_orchestrator.api.request_checks import check_said
from amends_orchestrator.api.views import Views, parse_run_id
from amends_orchestrator.journal import requests
from amends_orchestrator.journal.records import RunRow, State
from amends_orchestrator.journal.requests import RequestKind, RequestReply
from amends_orchestrator.runner.claimer import Claimer
from amends_orchestrator.runner.fleet import Fleet
from amends_orchestrator.runner.ports import DefinitionError
from amends_orchestrator.runner.request_server import GRANTED, ask_run, log_tried_now, wait_for_reply
from amends_orchestrator.runner.resolution import PersonDecision, ResolutionRefusedError, resolve

_ACTIONS = {
    pb.RESOLUTION_RETRY: ev.ResolutionAction.RETRY,
    pb.RESOLUTION_SKIP: ev.ResolutionAction.SKIP,
    pb.RESOLUTION_COMPENSATE: ev.ResolutionAction.COMPENSATE,
    pb.RESOLUTION_AMEND: ev.ResolutionAction.AMEND,
}
_EFFECTS = {pb.EFFECT_HAPPENED: ev.Effect.HAPPENED, pb.EFFECT_NONE: ev.Effect.NONE}
PATIENCE = timedelta(seconds=8)
_MARGIN = timedelta(milliseconds=500)


class RunDecisions:
    """Takes people's decisions to runs, in this process or in another."""

    def __init__(self, fleet: Fleet, views: Views, claimer: Claimer, max_result_bytes: int) -> None:
        self._most = max_result_bytes
        self._fleet = fleet
        self._views = views
        self._claimer = claimer

    async def resolve(self, request: pb.ResolveRunRequest) -> pb.ResolveRunResponse:
        """Decide about a parked run, try a waiting one now, or park a stalled one. Raises DomainErrors."""
        run_id = parse_run_id(request.run_id)
        check_said("actor", request.actor)
        check_said("reason", request.reason)
        kind = _asks_for(request)
        if kind is not None:
            pending = await self._ask(run_id, kind, request.actor, request.reason)
            return pb.ResolveRunResponse(run=await self._shown(run_id), pending=pending)
        action = _ACTIONS.get(request.resolution)
        if action is None:
            raise InvalidArgument("RESOLUTION_MISSING", "Say what to do: retry, skip, compensate, amend or park.")
        decision = PersonDecision(
            action,
            request.expected_seq,
            request.actor,
            request.reason,
            _EFFECTS.get(request.effect),
            await self._result(run_id, request),
            await self._amendment(run_id, request),
        )
        try:
            await resolve(self._views.pool, self._fleet, self._views.registry, run_id, decision)
        except ResolutionRefusedError as refused:
            raise _refusal(refused.reason, refused.message, run_id) from None
        except DefinitionError as error:
            raise FailedPrecondition("RESOLUTION_NOT_ALLOWED", f"The run cannot be read here: {error}.") from None
        return pb.ResolveRunResponse(run=await self._shown(run_id))

    async def cancel(self, request: pb.CancelRunRequest) -> pb.CancelRunResponse:
        """Ask a run to undo its effects. Raises DomainErrors."""
        run_id = parse_run_id(request.run_id)
        check_said("actor", request.actor)
        check_said("reason", request.reason)
        pending = await self._ask(run_id, RequestKind.CANCEL, request.actor, request.reason)
        return pb.CancelRunResponse(run=await self._shown(run_id), pending=pending)

    async def _ask(self, run_id: UUID, kind: RequestKind, actor: str, reason: str) -> bool:
        """Return True if the request has no answer yet. Raises the DomainError that it was refused with."""
        reply = await self._asked(run_id, kind, actor, reason)
        if reply is not None and not reply.accepted:
            raise _refusal(reply.reason, reply.message, run_id)
        return reply is None

    async def _asked(self, run_id: UUID, kind: RequestKind, actor: str, reason: str) -> RequestReply | None:
        """Return the answer of the run's owner, asking this process first; None when there is none in time.

        A run that nobody owns is claimed here. If another process owns it, the request goes to it through the database.
        A request without an answer in time stays there and outlives every owner.
        """
        left = deadline.remaining(_MARGIN)
        within = PATIENCE if left is None else max(min(left, PATIENCE), timedelta())
        live = self._fleet.get(run_id)
        if live is None:
            row = await self._views.row(run_id)
            if row.state.ended or row.state is State.PARKED:
                return _of_resting(row, kind)
            asked = ev.CancelAsked(actor, reason) if kind is RequestKind.CANCEL else None
            live = await self._claimer.take_one(run_id, asked) if row.owner is None else None
            if live is not None and kind is RequestKind.TRY_NOW:
                log_tried_now(live, actor, reason)
                return GRANTED  # its new owner has tried already
        if live is not None:
            reply = await ask_run(self._fleet, live, kind, actor, reason, within)
            if reply is not None:
                return reply
        request = await requests.ask(self._views.pool, run_id, kind, actor, reason)
        reply = await wait_for_reply(self._views.pool, request, within if live is None else timedelta())
        if reply is not None:
            return reply
        row = await self._views.row(run_id)
        if not row.state.ended and row.state is not State.PARKED:
            return None
        # Store the refusal, so that no owner grants the request later; an answer that an owner wrote first stays.
        await requests.answer(self._views.pool, request, _of_resting(row, kind))
        return await requests.read_answer(self._views.pool, request)

    async def _result(self, run_id: UUID, request: pb.ResolveRunRequest) -> bytes | None:
        """Return the response to assume, serialised as the step's method answers. Raises InvalidArgument."""
        if not request.HasField("result") and not request.result_json:
            return None
        if request.HasField("result") and request.result_json:
            raise InvalidArgument("RESULT_INVALID", "Give result or result_json, not both.", field="result_json")
        size = request.result.ByteSize() + len(request.result_json)
        if size > self._most:
            raise InvalidArgument(
                "RESULT_TOO_LARGE", f"The result has {size:,} bytes; at most {self._most:,} are taken."
            )
        definition, state = await self._views.state(await self._views.row(run_id))
        if state.parked is None or state.parked.step is None:
            return None
        try:
            return definition.parse_response(state.parked.step, request.result_json or request.result)
        except InputError as error:
            raise InvalidArgument("RESULT_INVALID", f"The result does not fit: {error}", field=error.path) from None

    async def _amendment(self, run_id: UUID, request: pb.ResolveRunRequest) -> int | None:
        """Return the step that an AMEND names; None for other decisions, and for a name that the engine refuses."""
        if request.resolution != pb.RESOLUTION_AMEND:
            if request.amendment:
                raise InvalidArgument("AMENDMENT_UNKNOWN", "Only AMEND takes an amendment.", field="amendment")
            return None
        definition, _ = await self._views.state(await self._views.row(run_id))
        return definition.plan.index.get(request.amendment)

    async def _shown(self, run_id: UUID) -> run_pb2.Run:
        return await self._views.run(await self._views.row(run_id))


def _asks_for(request: pb.ResolveRunRequest) -> RequestKind | None:
    """Return what is asked of a run that is not parked; None for a decision about a parked one."""
    if request.resolution == pb.RESOLUTION_PARK:
        return RequestKind.PARK
    if request.resolution == pb.RESOLUTION_RETRY and not request.expected_seq:
        return RequestKind.TRY_NOW
    return None


def _of_resting(row: RunRow, kind: RequestKind) -> RequestReply:
    if row.state is State.PARKED:
        if kind is RequestKind.PARK:
            return RequestReply(True)
        if kind is RequestKind.TRY_NOW:
            return RequestReply(False, "STATE_CHANGED", "the run is parked: say at which record")
        return RequestReply(False, "PARKED", "the run is parked: resolve it, for example with `compensate`")
    if kind is RequestKind.CANCEL and row.state is State.COMPENSATED:
        return RequestReply(True)
    return RequestReply(False, "RUN_ENDED", f"the run has ended: {row.state.name}")


def _refusal(reason: str, message: str, run_id: UUID) -> DomainError:
    sentence = f"{message[:1].upper()}{message[1:]}."
    if reason == "RUN_UNKNOWN":
        return NotFound(reason, sentence, run_id=str(run_id))
    kind = Aborted if reason == "STATE_CHANGED" else FailedPrecondition
    return kind(reason, sentence, run_id=str(run_id))
