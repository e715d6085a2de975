"""An orchestrator that has completed every run before it is started: what is left to measure is the operator.

It answers as the real one does after a saga of three steps, with the run and its timeline. Started by `kubernetes`.
"""

import asyncio
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import grpc.aio

from amends.saga.v1 import definition_service_pb2 as definitions
from amends.saga.v1 import run_pb2, run_service_pb2
from amends.saga.v1.definition_service_pb2_grpc import (
    DefinitionServiceServicer,
    add_DefinitionServiceServicer_to_server,
)
from amends.saga.v1.run_service_pb2_grpc import RunServiceServicer, add_RunServiceServicer_to_server
from amends_bench.process import serve_until_told

STEPS = ("reserve", "charge", "ship")
RECORDS = (
    ("STARTED", ""),
    ("ANSWERED", "reserve"),
    ("ANSWERED", "charge"),
    ("INTENT", "ship"),
    ("ANSWERED", "ship"),
    ("ENDED", ""),
)
DIGEST = "5a" * 32


class RunStandIn(RunServiceServicer):
    """A run service that completes every run at once."""

    async def StartRun(
        self, request: run_service_pb2.StartRunRequest, context: Any
    ) -> run_service_pb2.StartRunResponse:
        """Answer with a completed run."""
        run_id = str(uuid5(NAMESPACE_URL, request.idempotency_key))
        answer = run_service_pb2.StartRunResponse(created=True)
        run = answer.run
        run.run_id, run.namespace, run.saga, run.digest = run_id, request.namespace, request.saga, DIGEST
        run.idempotency_key = request.idempotency_key
        run.state, run.message, run.seq = run_pb2.RUN_STATE_COMPLETED, "COMPLETED", len(RECORDS)
        for moment in (run.started_at, run.ended_at, run.deadline):
            moment.GetCurrentTime()
        for name in STEPS:
            run.steps.add(name=name, state=run_pb2.STEP_STATE_DONE, attempts=1)
        for seq, (kind, step) in enumerate(RECORDS, 1):
            event = answer.timeline.add(run_id=run_id, seq=seq, kind=kind, step=step)
            event.at.GetCurrentTime()
            if kind == "ANSWERED":
                event.operation, event.outcome = run_pb2.OPERATION_ACTION, "ok"
        return answer

    async def ListRuns(
        self, request: run_service_pb2.ListRunsRequest, context: Any
    ) -> run_service_pb2.ListRunsResponse:
        """Answer that no run is open."""
        return run_service_pb2.ListRunsResponse()


class DefinitionStandIn(DefinitionServiceServicer):
    """A definition service that knows no definition."""

    async def ListSagas(self, request: Any, context: Any) -> definitions.ListSagasResponse:
        """Answer with an empty list of sagas."""
        return definitions.ListSagasResponse()

    async def ListParticipants(self, request: Any, context: Any) -> definitions.ListParticipantsResponse:
        """Answer with an empty list of participants."""
        return definitions.ListParticipantsResponse()

    async def ListRetryPolicies(self, request: Any, context: Any) -> definitions.ListRetryPoliciesResponse:
        """Answer with an empty list of retry policies."""
        return definitions.ListRetryPoliciesResponse()


async def main() -> None:
    """Serve until a signal stops the process."""
    server = grpc.aio.server()
    add_RunServiceServicer_to_server(RunStandIn(), server)  # type: ignore[abstract] # the rest is UNIMPLEMENTED
    add_DefinitionServiceServicer_to_server(DefinitionStandIn(), server)  # type: ignore[abstract] # the rest is UNIMPLEMENTED
    await serve_until_told("stand-in", server)


if __name__ == "__main__":
    asyncio.run(main())
