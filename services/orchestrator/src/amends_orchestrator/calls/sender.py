"""Makes attempts: counts them, times them, and lets each sampled one be a span of its run's trace.

Called by the fleet for every call under way.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from amends_chassis.context import traceparent as current_traceparent

from amends_orchestrator.calls.channels import attempt
from amends_orchestrator.calls.metadata import Metadata
from amends_orchestrator.calls.ports import Answer
from amends_orchestrator.calls.router import Way

# Opens a span called by the first argument in the trace of the second, with attributes; sets the current trace.
Spans = Callable[[str, str, dict[str, str]], AbstractContextManager[None]]
_SAMPLED = "-01"


class Sender:
    """Makes attempts, one span each for runs whose trace is sampled."""

    def __init__(self, spans: Spans) -> None:
        self._spans = spans

    async def send(self, way: Way, request: bytes, metadata: Metadata, traceparent: str, step: str) -> Answer:
        """One attempt, for as long as its policy's timeout. Raises nothing but CancelledError."""
        if not traceparent:
            return await self._send(way, request, metadata)
        if not traceparent.endswith(_SAMPLED):
            return await self._send(way, request, (*metadata, ("traceparent", traceparent)))
        route = way.route
        attributes = {"amends.run_id": metadata[0][1], "amends.step": step, "rpc.service": route.service}
        with self._spans(f"{route.service}/{route.method}", traceparent, attributes):
            return await self._send(way, request, (*metadata, ("traceparent", current_traceparent() or traceparent)))

    async def _send(self, way: Way, request: bytes, metadata: Metadata) -> Answer:
        route = way.route
        began = time.perf_counter()
        answer = await attempt(route.invoke, request, metadata, route.policy.timeout.total_seconds())
        way.seconds.observe(time.perf_counter() - began)
        way.count(answer.code)
        return answer
