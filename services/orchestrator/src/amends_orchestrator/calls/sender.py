"""Makes attempts: counts and times each one, and records a span for each run whose trace is sampled.

Every live run sends its calls through here.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import replace

import grpc
from amends_chassis.context import traceparent as current_traceparent
from amends_resilience.durations import format_duration

from amends_orchestrator.calls.channels import attempt
from amends_orchestrator.calls.metadata import CallMetadata
from amends_orchestrator.calls.ports import Answer
from amends_orchestrator.calls.router import ProtectedRoute

# Opens a span called by the first argument in the trace of the second, with attributes; sets the current trace.
Spans = Callable[[str, str, dict[str, str]], AbstractContextManager[None]]
_SAMPLED = "-01"
DEADLINE_EXCEEDED: int = grpc.StatusCode.DEADLINE_EXCEEDED.value[0]


class Sender:
    """Makes attempts, with one span each for runs whose trace is sampled."""

    def __init__(self, spans: Spans) -> None:
        self._spans = spans

    def send(
        self, protected: ProtectedRoute, request: bytes, metadata: CallMetadata, traceparent: str
    ) -> Awaitable[Answer]:
        """Make one attempt within its policy's timeout. Raises only CancelledError."""
        if not traceparent:
            return measured(protected, request, metadata)
        if not traceparent.endswith(_SAMPLED):
            return measured(protected, request, (*metadata, ("traceparent", traceparent)))
        return self._spanned(protected, request, metadata, traceparent)

    async def _spanned(
        self, protected: ProtectedRoute, request: bytes, metadata: CallMetadata, traceparent: str
    ) -> Answer:
        route, said = protected.route, dict(metadata)
        attributes = {
            "amends.run_id": said["amends-run-id"],
            "amends.step": said["amends-step"],
            "amends.operation": said["amends-operation"],
            "rpc.service": route.service,
            "rpc.method": route.method,
        }
        with self._spans(f"{route.service}/{route.method}", traceparent, attributes):
            return await measured(
                protected, request, (*metadata, ("traceparent", current_traceparent() or traceparent))
            )


async def measured(protected: ProtectedRoute, request: bytes, metadata: CallMetadata) -> Answer:
    """Make one attempt; count and time it. Raises only CancelledError."""
    route = protected.route
    began = time.perf_counter()
    allowed = route.policy.timeout
    answer = await attempt(route.invoke, request, metadata, allowed.total_seconds())
    took = time.perf_counter() - began
    protected.seconds.observe(took)
    protected.count(answer.code)
    if answer.code == DEADLINE_EXCEEDED and took >= allowed.total_seconds():
        # gRPC's own message differs from version to version, and never contains the time.
        return replace(answer, message=f"no answer within {format_duration(allowed)}")
    return answer
