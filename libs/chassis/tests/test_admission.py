"""Calls that never send a request, requests that cannot be read, servers that are full: honest calls go on."""

import asyncio
import gc
import logging
import tracemalloc
from collections import Counter
from datetime import timedelta

import grpc
import pytest
from amends_chassis import admission, service
from amends_chassis.admission import Admission
from amends_chassis.errors import InvalidArgument
from amends_testkit.waiting import eventually
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from .echo import CHAT, UNARY, WATCH, Echo, Stub, serving

CHECK = "/grpc.health.v1.Health/Check"


def bounded(monkeypatch: pytest.MonkeyPatch, **bounds: object) -> None:
    monkeypatch.setattr(service, "Admission", lambda calls: Admission(calls, **bounds))


async def healthy(channel: grpc.aio.Channel) -> bool:
    answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2)
    return answer.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("method", [UNARY, WATCH, CHECK])
async def test_a_call_that_never_sends_its_request_is_ended(monkeypatch, method):
    bounded(monkeypatch, within=timedelta(milliseconds=50))
    async with serving(Echo()) as runtime, grpc.aio.insecure_channel(runtime.address) as channel:
        call = channel.stream_unary(method)()
        assert await asyncio.wait_for(call.code(), 5) is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_the_oldest_call_without_a_request_makes_way_and_honest_calls_and_health_go_on(monkeypatch):
    bounded(monkeypatch, waiting=20)
    async with serving(Echo(), max_concurrent_calls=4) as runtime:
        options = [("grpc.use_local_subchannel_pool", 1)]
        hostile = [grpc.aio.insecure_channel(runtime.address, options) for _ in range(3)]
        calls = [hostile[number % 3].stream_unary(UNARY)() for number in range(300)]
        async with grpc.aio.insecure_channel(runtime.address, options) as channel:
            for _ in range(20):
                assert (await Stub(channel).unary("x", timeout=2)).value == "x"
                assert await healthy(channel)
            assert await eventually(lambda: sum(not call.done() for call in calls) <= 20)
        for channel in hostile:
            await channel.close()


async def test_a_full_server_refuses_at_once_and_answers_health(monkeypatch):
    gate = asyncio.Event()

    async def wait(text, context):
        await gate.wait()
        return text

    async def watch(text, context):
        await gate.wait()
        yield text

    async with (
        serving(Echo(wait, watch), max_concurrent_calls=4) as runtime,
        grpc.aio.insecure_channel(runtime.address) as channel,
    ):
        stub = Stub(channel)
        held = [asyncio.ensure_future(stub.unary("x", timeout=20)) for _ in range(4)]
        watched = [stub.watch("y") for _ in range(2)]
        readers = [asyncio.ensure_future(call.read()) for call in watched]
        in_flight = {"service": "test.echo.v1.EchoService", "method": "Watch"}
        held_all = lambda: runtime.registry.get_sample_value("grpc_server_in_flight", in_flight) == 2  # noqa: E731
        assert await eventually(held_all)
        for refused in (stub.unary("x"), stub.watch("y").read(), channel.stream_unary(UNARY)()):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await asyncio.wait_for(refused, 5)
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await healthy(channel)
        gate.set()
        assert [answer.value for answer in await asyncio.gather(*held, *readers)] == ["x"] * 4 + ["y"] * 2


async def test_watchers_of_health_are_bounded_and_do_not_keep_out_checks(monkeypatch):
    monkeypatch.setattr(admission, "STREAMS_OF_HEALTH", 2)
    async with serving(Echo()) as runtime, grpc.aio.insecure_channel(runtime.address) as channel:
        watching = [health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest()) for _ in range(3)]
        answers = await asyncio.gather(*(call.read() for call in watching), return_exceptions=True)
        codes = Counter(answer.code().name if isinstance(answer, grpc.aio.AioRpcError) else "OK" for answer in answers)
        assert codes == {"OK": 2, "RESOURCE_EXHAUSTED": 1}
        assert await healthy(channel)


@pytest.mark.parametrize(
    ("method", "kind"),
    [(UNARY, "unary_unary"), (WATCH, "unary_stream"), (CHAT, "stream_stream"), (CHECK, "unary_unary")],
)
async def test_a_request_that_cannot_be_read_is_invalid_and_names_nothing_of_ours(method, kind, caplog):
    async def messages():
        yield b"\xff\xff\xff"

    with caplog.at_level(logging.ERROR):
        async with serving(Echo()) as runtime, grpc.aio.insecure_channel(runtime.address) as channel:
            request = messages() if kind == "stream_stream" else b"\xff\xff\xff"
            call = getattr(channel, kind)(method)(request)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await (call if kind == "unary_unary" else call.read())
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert caught.value.details() == "The request is not the message of this method."
            info = ErrorInfo()
            assert rpc_status.from_call(caught.value).details[0].Unpack(info)
            assert info.reason == "REQUEST_UNREADABLE"
    assert not caplog.records


async def test_a_call_that_ends_without_a_request_is_invalid():
    async def none():
        for message in ():
            yield message

    async with serving(Echo()) as runtime, grpc.aio.insecure_channel(runtime.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.stream_unary(UNARY)(none())
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_request_that_is_larger_than_the_service_takes_is_refused_though_its_answers_may_be_larger():
    async with (
        serving(Echo(lambda text, _: _large()), max_request_bytes=64 * 1024) as runtime,
        grpc.aio.insecure_channel(runtime.address) as channel,
    ):
        assert len((await Stub(channel).unary("x")).value) == 1_000_000
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await Stub(channel).unary("x" * 70_000)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("text", ["x", "\xff"], ids=["refused", "unreadable"])
async def test_a_refused_request_is_let_go_without_the_garbage_collector(text):
    async def refuse(text, _):
        raise InvalidArgument("NOT_LIKED", "This is refused.")

    request = b"\x0a\xc0\x84\x3d" + text.encode("latin-1") * 1_000_000
    async with serving(Echo(refuse)) as runtime, grpc.aio.insecure_channel(runtime.address) as channel:
        gc.collect()
        gc.disable()
        tracemalloc.start()
        try:
            for _ in range(8):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await channel.unary_unary(UNARY)(request)
                assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            kept, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            gc.enable()
    assert kept < 3_000_000  # of the last one a part may still be on its way


async def _large() -> str:
    return "a" * 1_000_000
