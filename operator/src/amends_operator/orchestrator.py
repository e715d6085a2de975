"""The orchestrator as reconcilers see it: its answers, or one of two errors. Nothing is compiled or decided here."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

import grpc
import grpc.aio
from amends_chassis.clients import Channel
from amends_chassis.text import escape
from google.rpc import error_details_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status

from amends.saga.v1 import definition_service_pb2 as definitions
from amends.saga.v1 import run_pb2
from amends.saga.v1 import run_service_pb2 as runs
from amends.saga.v1.definition_service_pb2_grpc import DefinitionServiceStub
from amends.saga.v1.run_service_pb2_grpc import RunServiceStub

if TYPE_CHECKING:
    from amends_chassis.certificates import Certificates

T = TypeVar("T")
CALL = timedelta(seconds=10)
_AWAY = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
    }
)


_OF_A_PROXY = frozenset(
    {
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.ABORTED,
    }
)
"""What something between us and the orchestrator may say for a while. The orchestrator itself always gives a reason."""


class AwayError(Exception):
    """The orchestrator, or the monitor, does not answer, or not now. Try again later."""


class OrchestratorRefusedError(Exception):
    """The orchestrator, or the monitor, says no, and would say so again. `reason` is its ErrorInfo's."""

    def __init__(self, code: grpc.StatusCode, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True)
class SeenRun:
    """A run as the orchestrator shows it, with the last records of its journal."""

    run: run_pb2.Run
    timeline: Sequence[run_pb2.RunEvent] = ()


class OrchestratorClient:
    """Calls to one orchestrator, over one channel."""

    def __init__(self, target: str, timeline: int, certificates: Certificates | None = None) -> None:
        """Open the channel; `timeline` is how many records come with a run. Without `certificates` it is plain text."""
        self._timeline = timeline
        self._channel = Channel(target, call_timeout=CALL, certificates=certificates)
        self._runs = RunServiceStub(self._channel)
        self._definitions = DefinitionServiceStub(self._channel)

    async def close(self) -> None:
        """Close the channel to the orchestrator."""
        await self._channel.close()

    async def check(self, manifest: definitions.Manifest, namespace: str) -> list[definitions.Finding]:
        """Return what the checker says about a resource. Raises AwayError, OrchestratorRefusedError."""
        request = definitions.CheckSagaRequest(manifests=[manifest], namespace=namespace)
        return list((await answer_of(self._definitions.CheckSaga(request))).findings)

    async def apply_saga(self, manifest: definitions.Manifest, namespace: str) -> definitions.ApplySagaResponse:
        """Put a Saga in force. Raises AwayError, OrchestratorRefusedError."""
        request = definitions.ApplySagaRequest(manifest=manifest, namespace=namespace)
        return await answer_of(self._definitions.ApplySaga(request))

    async def apply_participant(
        self, manifest: definitions.Manifest, namespace: str, descriptors: bytes
    ) -> definitions.ApplyParticipantResponse:
        """Put a Participant in force. Raises AwayError, OrchestratorRefusedError."""
        request = definitions.ApplyParticipantRequest(manifest=manifest, namespace=namespace, descriptors=descriptors)
        return await answer_of(self._definitions.ApplyParticipant(request))

    async def apply_policy(
        self, manifest: definitions.Manifest, namespace: str
    ) -> definitions.ApplyRetryPolicyResponse:
        """Put a RetryPolicy in force. Raises AwayError, OrchestratorRefusedError."""
        request = definitions.ApplyRetryPolicyRequest(manifest=manifest, namespace=namespace)
        return await answer_of(self._definitions.ApplyRetryPolicy(request))

    async def sagas(self, namespace: str = "", name: str = "") -> list[definitions.SagaInfo]:
        """Return the Sagas in force. Raises AwayError."""
        request = definitions.ListSagasRequest(namespace=namespace, name=name)
        return list((await answer_of(self._definitions.ListSagas(request))).sagas)

    async def participants(self, namespace: str = "") -> list[definitions.ParticipantInfo]:
        """Return the Participants in force. Raises AwayError."""
        request = definitions.ListParticipantsRequest(namespace=namespace)
        return list((await answer_of(self._definitions.ListParticipants(request))).participants)

    async def policies(self, namespace: str = "") -> list[definitions.RetryPolicyInfo]:
        """Return the RetryPolicies in force. Raises AwayError."""
        request = definitions.ListRetryPoliciesRequest(namespace=namespace)
        return list((await answer_of(self._definitions.ListRetryPolicies(request))).retry_policies)

    async def delete_saga(self, namespace: str, name: str) -> None:
        """Take a Saga out of force. Raises AwayError."""
        await answer_of(self._definitions.DeleteSaga(definitions.DeleteSagaRequest(namespace=namespace, name=name)))

    async def delete_participant(self, namespace: str, name: str) -> None:
        """Take a Participant out of force. Raises AwayError."""
        request = definitions.DeleteParticipantRequest(namespace=namespace, name=name)
        await answer_of(self._definitions.DeleteParticipant(request))

    async def delete_policy(self, namespace: str, name: str) -> None:
        """Take a RetryPolicy out of force. Raises AwayError."""
        request = definitions.DeleteRetryPolicyRequest(namespace=namespace, name=name)
        await answer_of(self._definitions.DeleteRetryPolicy(request))

    async def start(self, namespace: str, saga: str, key: str, data: dict[str, Any], wait: timedelta) -> SeenRun:
        """Start a run, or find the one of that key; return it when it rests or `wait` has passed.

        Raises AwayError, OrchestratorRefusedError.
        """
        request = runs.StartRunRequest(namespace=namespace, saga=saga, idempotency_key=key, timeline=self._timeline)
        request.json_text = json.dumps(data)
        if wait > timedelta():
            request.wait = True
            request.wait_timeout.FromTimedelta(wait)
        answer = await answer_of(self._runs.StartRun(request))
        return SeenRun(answer.run, answer.timeline)

    async def run(self, run_id: str) -> SeenRun:
        """Return one run. Raises AwayError, OrchestratorRefusedError (RUN_UNKNOWN)."""
        return await self._seen(runs.GetRunRequest(run_id=run_id))

    async def run_of_key(self, namespace: str, key: str) -> SeenRun:
        """Return the run that was started with a key. Raises AwayError, OrchestratorRefusedError (RUN_UNKNOWN)."""
        return await self._seen(runs.GetRunRequest(namespace=namespace, idempotency_key=key))

    async def _seen(self, request: runs.GetRunRequest) -> SeenRun:
        request.timeline, request.payloads = self._timeline, runs.PAYLOADS_NONE
        answer = await answer_of(self._runs.GetRun(request))
        return SeenRun(answer.run, answer.timeline)

    async def open_runs(self, most: int = 1000) -> list[run_pb2.Run]:
        """Return the newest runs that have not ended, at most `most`. Raises AwayError."""
        states = (run_pb2.RUN_STATE_RUNNING, run_pb2.RUN_STATE_COMPENSATING, run_pb2.RUN_STATE_PARKED)
        request = runs.ListRunsRequest(states=states, page_size=most)
        return list((await answer_of(self._runs.ListRuns(request))).runs)

    async def resolve(self, request: runs.ResolveRunRequest) -> None:
        """Decide about a parked run. Raises AwayError, OrchestratorRefusedError."""
        await answer_of(self._runs.ResolveRun(request))

    async def cancel(self, run_id: str, reason: str, actor: str) -> None:
        """Ask for the compensation of a run. Raises AwayError, OrchestratorRefusedError (PAST_PIVOT)."""
        await answer_of(self._runs.CancelRun(runs.CancelRunRequest(run_id=run_id, reason=reason, actor=actor)))


async def answer_of(call: Awaitable[T]) -> T:
    """Return the answer of a call. Raises AwayError, OrchestratorRefusedError."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise error_of(error) from None


def error_of(error: grpc.aio.AioRpcError) -> AwayError | OrchestratorRefusedError:
    """Return what a failed call means to a reconciler: come back later, or no."""
    message = escape(error.details() or error.code().name)
    reason = ""
    status = rpc_status.from_call(cast("Any", error))
    for detail in status.details if status is not None else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            reason = info.reason
    if error.code() in _AWAY or (not reason and error.code() in _OF_A_PROXY):
        return AwayError(f"{error.code().name}: {message}")
    return OrchestratorRefusedError(error.code(), reason or error.code().name, message)
