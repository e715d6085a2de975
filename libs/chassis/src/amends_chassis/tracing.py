"""OpenTelemetry spans, for the calls that are sampled and for nobody else.

The official aio interceptors cost 30 to 40 % of throughput whether or not a call is sampled, so the server
interceptor and the client channels enter them only for sampled calls; for the others the W3C header is handed on as
it came. The SDK and the exporter (30 MB, 0.5 s) are imported only when a process has somewhere to send spans, which is
why `service` imports this module late.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, cast

import grpc
from opentelemetry import context as otel_context
from opentelemetry import trace as otel
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.grpc import aio_client_interceptors, aio_server_interceptor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased

from amends_chassis.context import Trace, current_call, current_trace, enter_trace, in_trace
from amends_chassis.dial import NO_PROXY

_ATTRIBUTES = (
    ("amends-run-id", "amends.run_id"),
    ("amends-step", "amends.step"),
    ("amends-operation", "amends.operation"),
)


_EXPORT_WITHIN = timedelta(seconds=2)
"""For one batch, retries included; also bounds how long the end of a process waits for an endpoint that is away."""


class Tracing:
    """The destination of this process's spans, and the official interceptors bound to it."""

    def __init__(self, service: str, processor: SpanProcessor) -> None:
        """Send the spans of `service` to `processor`."""
        # Only sampled traces come here (context.trace_from decides), so a root span is always recorded.
        self._provider = TracerProvider(
            sampler=ParentBased(ALWAYS_ON), resource=Resource.create({"service.name": service}), shutdown_on_exit=False
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("amends_chassis")
        self.server: grpc.aio.ServerInterceptor = aio_server_interceptor(tracer_provider=self._provider)  # type: ignore[no-untyped-call]

    @classmethod
    def to_endpoint(cls, service: str, endpoint: str) -> "Tracing":
        """Export in batches from a thread, over OTLP to an address such as http://127.0.0.1:4317."""
        exporter = OTLPSpanExporter(
            endpoint=endpoint,
            insecure=not endpoint.startswith("https://"),
            timeout=_EXPORT_WITHIN.total_seconds(),
            channel_options=cast("Any", (NO_PROXY,)),  # it passes them on as they are, whatever its types say
        )
        return cls(service, BatchSpanProcessor(exporter))

    def client_interceptors(self) -> list[grpc.aio.ClientInterceptor]:
        """Return the official interceptors for a channel that carries sampled calls only."""
        made: list[grpc.aio.ClientInterceptor] = aio_client_interceptors(  # type: ignore[no-untyped-call]
            tracer_provider=self._provider
        )
        return made

    @contextmanager
    def span(self, name: str, trace: Trace, attributes: dict[str, str]) -> Iterator[None]:
        """Do the block in a span below `trace`, which is sampled."""
        with (
            self._tracer.start_as_current_span(name, context=_below(trace), attributes=attributes) as span,
            in_trace(_place(span)),
        ):
            yield

    def close(self) -> None:
        """Send what is left and stop the exporter's thread. Blocks for seconds when the endpoint is away."""
        self._provider.shutdown()


def adopt_span() -> None:
    """Make the span that the official interceptor opened the current place in the trace, and tag it with the run."""
    span = otel.get_current_span()
    if span.get_span_context().is_valid:
        enter_trace(_place(span))
    call = current_call()
    for key, name in _ATTRIBUTES:
        if call is not None and (value := call.value(key)) is not None:
            span.set_attribute(name, value)


@contextmanager
def below_current_trace() -> Iterator[None]:
    """Let OpenTelemetry see the current place in the trace as the parent of spans begun in the block."""
    trace = current_trace()
    token = otel_context.attach(_below(trace)) if trace is not None else None
    try:
        yield
    finally:
        if token is not None:
            otel_context.detach(token)


def _place(span: otel.Span) -> Trace:
    found = span.get_span_context()
    state = found.trace_state.to_header() if found.trace_state else ""
    return Trace(f"{found.trace_id:032x}", f"{found.span_id:016x}", found.trace_flags.sampled, state)


def _below(trace: Trace) -> otel_context.Context:
    flags = otel.TraceFlags(otel.TraceFlags.SAMPLED if trace.sampled else otel.TraceFlags.DEFAULT)
    state = otel.TraceState.from_header([trace.state]) if trace.state else None
    place = otel.SpanContext(int(trace.trace_id, 16), int(trace.span_id, 16), True, flags, state)
    return otel.set_span_in_context(otel.NonRecordingSpan(place))
