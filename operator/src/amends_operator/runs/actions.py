"""Carries out what `next_step` asks for: calls to the orchestrator, and writes to the API server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import grpc
import structlog

from amends.saga.v1 import run_service_pb2 as pb
from amends_operator.kube.client import Client, NotFoundError
from amends_operator.kube.events import Events
from amends_operator.kube.objects import Body, Key, Objects, ResourceKind
from amends_operator.kube.statuses import Statuses
from amends_operator.orchestrator import OrchestratorClient, OrchestratorRefusedError, SeenRun
from amends_operator.runs.observed import FINALIZER, Missing, Observed, OrchestratorAnswer, OrchestratorRefusal
from amends_operator.runs.steps import (
    Acknowledge,
    CarryOut,
    Delete,
    Do,
    Log,
    Look,
    OrchestratorCall,
    PutFinalizer,
    RecordDecision,
    RefreshSaga,
    RemoveAnnotations,
    RemoveFinalizer,
    Report,
    StartRun,
    Undo,
    WriteEvent,
)

REASON = "the SagaRun was deleted"
ACTOR = "amends-operator"
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RunActions:
    """The hands of the reconciler of SagaRuns. Every method raises AwayError, OrchestratorRefusedError, ApiError."""

    client: Client
    objects: Objects
    statuses: Statuses
    orchestrator: OrchestratorClient
    events: Events
    refresh_saga: Callable[[Key], None]

    async def ask(self, key: Key, seen: Observed, step: Look | OrchestratorCall) -> Observed:
        """Ask the orchestrator, and return the look with what it said."""
        if isinstance(step, Look):
            return replace(seen, run=await self._look(key, step))
        if isinstance(step, StartRun):
            return await self._start(key, seen, step)
        refusal = await self._refusal(step)
        run = await self.orchestrator.run(step.run_id)
        return replace(seen, run=run, answer=OrchestratorAnswer(step, refusal))

    async def write(self, key: Key, body: Body, step: Do) -> bool:
        """Carry out a step that asks the orchestrator nothing; return whether it wrote a status that is new."""
        match step:
            case Report(fields, conditions, tell):
                return await self.statuses.put(key, body, fields, conditions, tell)
            case RecordDecision(resolution):
                await self.statuses.note(key, body, "lastResolution", resolution)
            case Acknowledge():
                await self.statuses.observed(key, body)
            case WriteEvent(reason, message, warning, once):
                await self.events.tell(key, body, reason, message, warning=warning, once=once)
            case PutFinalizer():
                finalizers = [*(body["metadata"].get("finalizers") or []), FINALIZER]
                await self._patch(key, body, {"finalizers": finalizers})
            case RemoveFinalizer():
                await self._remove_finalizer(key, body)
            case RemoveAnnotations(names):
                await self._patch(key, body, {"annotations": dict.fromkeys(names)})
            case Delete():
                await self.client.delete(key, body["metadata"]["uid"])
            case RefreshSaga(name):
                self.refresh_saga(Key(ResourceKind.SAGA, key.namespace, name))
            case Log(event, facts, warning):
                (_log.warning if warning else _log.info)(event, run=key.full_name, **facts)
        return False

    async def _look(self, key: Key, step: Look) -> SeenRun | Missing:
        try:
            if step.run_id:
                return await self.orchestrator.run(step.run_id)
            return await self.orchestrator.run_of_key(key.namespace, step.key)
        except OrchestratorRefusedError as error:
            if error.code is grpc.StatusCode.NOT_FOUND:
                return Missing(f"{error.reason}: {error}")
            raise

    async def _start(self, key: Key, seen: Observed, step: StartRun) -> Observed:
        try:
            run = await self.orchestrator.start(key.namespace, step.saga, step.key, dict(step.data), seen.limits.quick)
        except OrchestratorRefusedError as error:
            return replace(seen, answer=OrchestratorAnswer(step, _refusal_of(error)))
        return replace(seen, run=run, answer=OrchestratorAnswer(step))

    async def _refusal(self, step: CarryOut | Undo) -> OrchestratorRefusal | None:
        """Carry a decision or an undo out; return the orchestrator's no, None when it said yes."""
        try:
            match step:
                case CarryOut(decision, run_id, True):
                    await self.orchestrator.cancel(run_id, decision.reason, decision.actor)
                case CarryOut(decision, run_id, False):
                    await self.orchestrator.resolve(decision.request(run_id))
                case Undo(run_id, None):
                    await self.orchestrator.cancel(run_id, REASON, ACTOR)
                case Undo(run_id, int(seq)):
                    await self.orchestrator.resolve(
                        pb.ResolveRunRequest(
                            run_id=run_id,
                            resolution=pb.RESOLUTION_COMPENSATE,
                            expected_seq=seq,
                            reason=REASON,
                            actor=ACTOR,
                        )
                    )
        except ValueError as error:
            return OrchestratorRefusal("", str(error))
        except OrchestratorRefusedError as error:
            return _refusal_of(error)
        return None

    async def _remove_finalizer(self, key: Key, body: Body) -> None:
        finalizers = [name for name in body["metadata"].get("finalizers") or [] if name != FINALIZER]
        try:
            await self._patch(key, body, {"finalizers": finalizers or None})
        except NotFoundError:
            return  # nothing is left to guard

    async def _patch(self, key: Key, body: Body, metadata: Mapping[str, Any]) -> None:
        """Change metadata of the object, if it is still what was read."""
        version = body["metadata"]["resourceVersion"]
        patch = {"metadata": {**metadata, "resourceVersion": version}}
        self.objects.written(ResourceKind.RUN, await self.client.patch(key, patch))


def _refusal_of(error: OrchestratorRefusedError) -> OrchestratorRefusal:
    return OrchestratorRefusal(error.reason, str(error), not_found=error.code is grpc.StatusCode.NOT_FOUND)
