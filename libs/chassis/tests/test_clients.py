import asyncio
import json
from datetime import timedelta

import grpc
import pytest
from amends_chassis.clients import MARGIN, Channel, channel_options
from amends_chassis.context import in_trace
from amends_chassis.metrics import ClientMetrics
from amends_chassis.server import server_options
from amends_resilience import DeadlinePassedError, deadline
from amends_testkit.waiting import eventually
from prometheus_client import CollectorRegistry

from .echo import Echo, Stub, serving, settings

HEADER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"


async def _time_left(text, context):
    return str(context.time_remaining())


async def _metadata(text, context):
    return json.dumps([[key, value] for key, value in context.invocation_metadata() if isinstance(value, str)])


async def test_a_call_gets_the_default_deadline_or_the_one_it_asks_for():
    async with (
        serving(Echo(_time_left)) as runtime,
        Channel(runtime.address, call_timeout=timedelta(seconds=7)) as channel,
    ):
        stub = Stub(channel)
        assert 6.5 < float((await stub.unary()).value) <= 7.1
        assert 2.5 < float((await stub.unary(timeout=3)).value) <= 3.1
        assert 29.0 < float((await stub.unary(timeout=30)).value) <= 30.1


async def test_a_call_never_outlives_the_deadline_of_its_caller():
    async with serving(Echo(_time_left)) as runtime, Channel(runtime.address) as channel:
        with deadline.scope(timedelta(seconds=2)):
            for given in (None, 30):
                left = float((await Stub(channel).unary(timeout=given)).value)
                assert 1.5 < left <= 2.05 - MARGIN.total_seconds()


async def test_nothing_is_sent_when_no_time_is_left():
    echo = Echo()
    async with serving(echo) as runtime, Channel(runtime.address) as channel:
        with deadline.scope(MARGIN / 2):
            with pytest.raises(DeadlinePassedError):
                Stub(channel).unary()
            with pytest.raises(DeadlinePassedError):
                Stub(channel).watch()
    assert echo.calls == 0


async def test_a_watch_has_no_deadline_but_its_callers():
    async def look(text, context):
        yield str(context.time_remaining())

    async with serving(Echo(watch=look)) as runtime, Channel(runtime.address) as channel:
        assert [answer.value async for answer in Stub(channel).watch()] == ["None"]
        with deadline.scope(timedelta(seconds=2)):
            answers = [answer.value async for answer in Stub(channel).watch()]
        assert 1.5 < float(answers[0]) < 2.0


async def test_an_unsampled_trace_goes_on_as_it_came_beside_the_callers_metadata():
    async with serving(Echo(_metadata)) as runtime, Channel(runtime.address) as channel:
        with in_trace(HEADER):
            answer = await Stub(channel).unary(metadata=(("amends-step", "charge"),))
        sent = [tuple(pair) for pair in json.loads(answer.value)]
        assert ("traceparent", HEADER) in sent
        assert ("amends-step", "charge") in sent
        assert "traceparent" not in (await Stub(channel).unary()).value


async def test_calls_are_counted_by_how_they_ended():
    async def refuse(text, context):
        await context.abort(grpc.StatusCode.ABORTED, "no")

    registry = CollectorRegistry()
    async with serving(Echo(refuse)) as runtime, Channel(runtime.address, metrics=ClientMetrics(registry)) as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await Stub(channel).unary()
        labels = {"service": "test.echo.v1.EchoService", "method": "Unary", "code": "ABORTED"}
        await eventually(lambda: registry.get_sample_value("grpc_client_handled_total", labels) == 1.0)


async def test_messages_over_the_limit_are_a_definite_refusal():
    async with serving(Echo(), max_message_bytes=2048) as runtime:
        async with Channel(runtime.address) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await Stub(channel).unary("x" * 4096)
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        async with Channel(runtime.address, max_message_bytes=1024) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await Stub(channel).unary("x" * 1500)
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_proxy_in_the_environment_is_ignored(monkeypatch):
    for variable in ("http_proxy", "grpc_proxy", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    async with serving(Echo()) as runtime, Channel(runtime.address) as channel:
        assert (await Stub(channel).unary("through")).value == "through"


def test_clients_ping_no_faster_than_servers_allow():
    client = dict(channel_options("127.0.0.1:1", 1024))
    server = dict(server_options(settings()))
    assert client["grpc.keepalive_time_ms"] > server["grpc.http2.min_recv_ping_interval_without_data_ms"]


def test_no_service_config_has_a_timeout_and_names_are_balanced():
    assert "grpc.service_config" not in dict(channel_options("127.0.0.1:1", 1024))
    config = json.loads(str(dict(channel_options("dns:///payments.shop.svc:50051", 1024))["grpc.service_config"]))
    assert config == {"loadBalancingConfig": [{"round_robin": {}}]}


async def test_a_runtime_has_one_channel_per_target_until_it_is_closed():
    async with serving(Echo()) as runtime:
        first = runtime.channel(runtime.address)
        assert runtime.channel(runtime.address) is first
        assert (await Stub(first).unary("x")).value == "x"
        await first.close()
        second = runtime.channel(runtime.address)
        assert second is not first
        assert (await Stub(second).unary("y")).value == "y"


async def test_a_service_that_comes_back_is_found_again_soon():
    async with serving(Echo()) as runtime:
        port = int(runtime.address.split(":")[1])
        channel = Channel(runtime.address, call_timeout=timedelta(seconds=1))
        await Stub(channel).unary()
    with pytest.raises(grpc.aio.AioRpcError):
        await Stub(channel).unary()
    async with serving(Echo(), port=port):

        async def answers() -> bool:
            try:
                return bool(await Stub(channel).unary())
            except grpc.aio.AioRpcError:
                return False

        began = asyncio.get_running_loop().time()
        await eventually(answers)
        assert asyncio.get_running_loop().time() - began < 4
    await channel.close()
