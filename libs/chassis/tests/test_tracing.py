import asyncio
import subprocess
import sys

import grpc
import pytest
from amends_chassis.context import current_trace, detached, traceparent
from amends_chassis.errors import NotFound
from amends_chassis.tracing import Tracing
from amends_testkit.waiting import eventually
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from .echo import UNARY, WATCH, Echo, Stub, serving

SAMPLED = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


def _tracing(name: str, spans: InMemorySpanExporter) -> Tracing:
    return Tracing(name, SimpleSpanProcessor(spans))


async def _trace_id(text, context):
    return current_trace().trace_id


async def _chain(spans, ratio, ask):
    """Three services in a row, the first of which decides; `ask` gets the address of the first."""
    async with serving(Echo(_trace_id), _tracing("third", spans), trace_ratio=1.0) as third:

        async def middle(text, context):
            answer = await Stub(second.channel(third.address)).unary()
            return f"{current_trace().trace_id} {answer.value}"

        async with serving(Echo(middle), _tracing("second", spans), trace_ratio=1.0) as second:

            async def front(text, context):
                answer = await Stub(first.channel(second.address)).unary()
                return f"{current_trace().trace_id} {answer.value}"

            async with serving(Echo(front), _tracing("first", spans), trace_ratio=ratio) as first:
                return await ask(first.address)


async def _ask(address: str) -> str:
    async with grpc.aio.insecure_channel(address) as channel:
        return (await Stub(channel).unary()).value


async def test_one_sampled_trace_runs_through_every_service(spans):
    seen = await _chain(spans, 1.0, _ask)
    assert len(set(seen.split())) == 1
    finished = spans.get_finished_spans()
    assert {format(span.context.trace_id, "032x") for span in finished} == set(seen.split())
    by_id = {span.context.span_id: span for span in finished}
    (leaf,) = (s for s in finished if s.resource.attributes["service.name"] == "third" and s.kind is SpanKind.SERVER)
    path = []
    while leaf is not None:
        path.append((leaf.resource.attributes["service.name"], leaf.kind))
        leaf = by_id.get(leaf.parent.span_id) if leaf.parent else None
    assert path == [
        ("third", SpanKind.SERVER),
        ("second", SpanKind.CLIENT),
        ("second", SpanKind.SERVER),
        ("first", SpanKind.CLIENT),
        ("first", SpanKind.SERVER),
    ]


async def test_an_unsampled_order_has_no_span_and_still_one_trace_id(spans):
    seen = await _chain(spans, 0.0, _ask)
    assert len(set(seen.split())) == 1
    assert spans.get_finished_spans() == ()


async def test_a_span_says_which_run_and_step_it_served(spans):
    metadata = (("traceparent", SAMPLED), ("amends-run-id", "r-1"), ("amends-step", "charge"))
    async with (
        serving(Echo(), _tracing("payments", spans)) as runtime,
        grpc.aio.insecure_channel(runtime.address) as channel,
    ):
        await Stub(channel).unary(metadata=metadata)
        assert [answer.value async for answer in Stub(channel).watch(metadata=metadata)] == ["hello"]
    assert {span.name for span in spans.get_finished_spans()} == {UNARY, WATCH}
    for span in spans.get_finished_spans():
        assert span.attributes["amends.run_id"] == "r-1"
        assert span.attributes["amends.step"] == "charge"
        assert format(span.parent.span_id, "016x") == "00f067aa0ba902b7"


async def test_a_refusal_is_seen_on_the_span_and_counted(spans):
    async def refuse(text, context):
        raise NotFound("GONE", "Gone.")

    async with (
        serving(Echo(refuse), _tracing("payments", spans)) as runtime,
        grpc.aio.insecure_channel(runtime.address) as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await Stub(channel).unary(metadata=(("traceparent", SAMPLED),))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        labels = {"service": "test.echo.v1.EchoService", "method": "Unary", "code": "NOT_FOUND"}
        # The caller has its answer before the server has counted it.
        assert await eventually(lambda: runtime.registry.get_sample_value("grpc_server_handled_total", labels) == 1.0)
    (span,) = spans.get_finished_spans()
    assert span.attributes["rpc.grpc.status_code"] == 5


async def test_sampled_calls_to_others_are_counted_like_any(spans):
    async with serving(Echo(), _tracing("payments", spans)) as runtime:
        with runtime.span("test", trace=SAMPLED):
            await Stub(runtime.channel(runtime.address)).unary()
        labels = {"service": "test.echo.v1.EchoService", "method": "Unary", "code": "OK"}
        assert await eventually(lambda: runtime.registry.get_sample_value("grpc_client_handled_total", labels) == 1.0)


async def test_work_that_goes_on_after_its_call_stays_in_the_trace(spans):
    """What the orchestrator does: a run is started by a call and goes on in a task, or from a stored header."""
    async with serving(Echo(_trace_id), _tracing("participant", spans)) as participant:

        async def start(text, context):
            async def run_on():
                await Stub(orchestrator.channel(participant.address)).unary()

            tasks.append(asyncio.create_task(run_on(), context=detached()))
            return traceparent()

        tasks = []
        async with serving(Echo(start), _tracing("orchestrator", spans)) as orchestrator:
            async with grpc.aio.insecure_channel(orchestrator.address) as channel:
                stored = (await Stub(channel).unary(metadata=(("traceparent", SAMPLED),))).value
            await tasks[0]
            with orchestrator.span("saga.run", trace=stored, saga="place-order"):
                await Stub(orchestrator.channel(participant.address)).unary()
    finished = spans.get_finished_spans()
    assert {format(span.context.trace_id, "032x") for span in finished} == {SAMPLED[3:35]}
    start_run = next(
        span
        for span in finished
        if span.resource.attributes["service.name"] == "orchestrator" and span.kind is SpanKind.SERVER
    )
    run = next(span for span in finished if span.name == "saga.run")
    assert run.parent.span_id == start_run.context.span_id
    assert run.attributes["saga"] == "place-order"
    parents = {span.parent.span_id for span in finished if span.kind is SpanKind.CLIENT}
    assert parents == {start_run.context.span_id, run.context.span_id}


async def test_a_sampled_header_passes_through_a_service_that_sends_no_spans():
    async with serving(Echo(_trace_id)) as last:

        async def middle(text, context):
            return (await Stub(first.channel(last.address)).unary()).value

        async with serving(Echo(middle)) as first, grpc.aio.insecure_channel(first.address) as channel:
            answer = await Stub(channel).unary(metadata=(("traceparent", SAMPLED),))
            assert answer.value == SAMPLED[3:35]


def test_a_process_without_an_endpoint_for_spans_loads_no_opentelemetry():
    code = "import amends_chassis.service, sys; sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


async def test_an_endpoint_that_is_away_disturbs_no_call():
    async with (
        serving(Echo(), Tracing.to_endpoint("payments", "http://127.0.0.1:1")) as runtime,
        grpc.aio.insecure_channel(runtime.address) as channel,
    ):
        answer = await Stub(channel).unary(metadata=(("traceparent", SAMPLED),))
        assert answer.value == "hello"
