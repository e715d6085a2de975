import asyncio
from datetime import timedelta

import grpc
import pytest
from amends_chassis.admission import Admission
from amends_chassis.context import current_call, current_trace
from amends_chassis.errors import FailedPrecondition, NotFound
from amends_chassis.interceptor import ServerInterceptor
from amends_chassis.metrics import ServerMetrics
from amends_resilience import deadline
from amends_testkit.waiting import eventually
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status
from prometheus_client import CollectorRegistry

from .echo import CHAT, UNARY, WATCH, Echo, Stub, register, serving


async def _failed(call) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def _info(error: grpc.aio.AioRpcError) -> ErrorInfo:
    status = rpc_status.from_call(error)
    info = ErrorInfo()
    assert status.details[0].Unpack(info)
    return info


def _count(runtime, method: str, code: str) -> float | None:
    service, name = method[1:].split("/")
    labels = {"service": service, "method": name, "code": code}
    return runtime.registry.get_sample_value("grpc_server_handled_total", labels)


async def test_all_four_kinds_of_method_are_served_and_counted():
    async def words():
        from google.protobuf.wrappers_pb2 import StringValue

        for word in ("a", "b"):
            yield StringValue(value=word)

    async with serving(Echo()) as runtime, grpc.aio.insecure_channel(runtime.address) as channel:
        stub = Stub(channel)
        assert (await stub.unary("x")).value == "x"
        assert [answer.value async for answer in stub.watch("y")] == ["y"]
        assert (await stub.collect(words())).value == "ab"
        assert [answer.value async for answer in stub.chat(words())] == ["a", "b"]
        for method in (UNARY, WATCH, CHAT):
            await eventually(lambda method=method: _count(runtime, method, "OK") == 1.0)
        labels = {"service": "test.echo.v1.EchoService", "method": "Unary"}
        assert runtime.registry.get_sample_value("grpc_server_handling_seconds_count", labels) == 1.0
        assert runtime.registry.get_sample_value("grpc_server_in_flight", labels) == 0.0


async def test_every_series_of_a_method_is_there_before_its_first_call():
    async with serving(Echo()) as runtime:
        assert {_count(runtime, UNARY, code.name) for code in grpc.StatusCode} == {0.0}


async def test_a_domain_error_reaches_the_caller_with_reason_and_domain():
    async def refuse(text, context):
        raise FailedPrecondition("CARD_DECLINED", "The card was declined.", card="visa")

    async with serving(Echo(refuse)) as runtime, grpc.aio.insecure_channel(runtime.address) as channel:
        error = await _failed(Stub(channel).unary())
        assert (error.code(), error.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "The card was declined.")
        info = _info(error)
        assert (info.reason, info.domain, dict(info.metadata)) == ("CARD_DECLINED", "test.echo.v1", {"card": "visa"})
        await eventually(lambda: _count(runtime, UNARY, "FAILED_PRECONDITION") == 1.0)


async def test_the_text_of_an_exception_stays_here_in_every_kind_of_method():
    async def unary(text, context):
        raise ValueError("secret")

    async def watch(text, context):
        yield "one"
        raise ValueError("secret")

    async with serving(Echo(unary, watch)) as runtime, grpc.aio.insecure_channel(runtime.address) as channel:
        stub = Stub(channel)
        stream = stub.watch()
        assert (await stream.read()).value == "one"
        for error in (await _failed(stub.unary()), await _failed(stream.read())):
            assert error.code() is grpc.StatusCode.INTERNAL
            assert "secret" not in f"{error.details()}{error.debug_error_string()}{error.trailing_metadata()}"
            assert _info(error).metadata["correlation_id"] in error.details()
        await eventually(lambda: _count(runtime, WATCH, "INTERNAL") == 1.0)


async def test_trailers_of_the_handler_survive_its_error():
    async def refuse(text, context):
        context.set_trailing_metadata((("amends-barrier", "1"),))
        raise NotFound("GONE", "Gone.")

    async with serving(Echo(refuse)) as runtime, grpc.aio.insecure_channel(runtime.address) as channel:
        error = await _failed(Stub(channel).unary())
        assert ("amends-barrier", "1") in list(error.trailing_metadata())
        assert _info(error).reason == "GONE"


async def test_an_abort_by_the_handler_passes_as_it_is():
    async def refuse(text, context):
        await context.abort(grpc.StatusCode.DATA_LOSS, "as it is")

    async with serving(Echo(refuse)) as runtime, grpc.aio.insecure_channel(runtime.address) as channel:
        error = await _failed(Stub(channel).unary())
        assert (error.code(), error.details()) == (grpc.StatusCode.DATA_LOSS, "as it is")
        await eventually(lambda: _count(runtime, UNARY, "DATA_LOSS") == 1.0)


async def test_a_status_set_without_raising_is_counted_as_such():
    async def refuse(text, context):
        context.set_code(grpc.StatusCode.NOT_FOUND)
        return ""

    async with serving(Echo(refuse)) as runtime, grpc.aio.insecure_channel(runtime.address) as channel:
        await _failed(Stub(channel).unary())
        await eventually(lambda: _count(runtime, UNARY, "NOT_FOUND") == 1.0)


async def test_a_call_without_a_deadline_gets_one():
    async def forever(text, context):
        await asyncio.Event().wait()
        return ""

    echo = Echo(forever)
    async with (
        serving(echo, call_timeout=timedelta(milliseconds=50)) as runtime,
        grpc.aio.insecure_channel(runtime.address) as channel,
    ):
        error = await _failed(Stub(channel).unary())
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert _info(error).reason == "TIMED_OUT"
        await eventually(lambda: _count(runtime, UNARY, "DEADLINE_EXCEEDED") == 1.0)


async def test_the_callers_deadline_is_in_force_in_the_handler():
    async def look(text, context):
        left = deadline.remaining()
        return "none" if left is None else str(left.total_seconds())

    async with serving(Echo(look)) as runtime, grpc.aio.insecure_channel(runtime.address) as channel:
        assert 2.5 < float((await Stub(channel).unary(timeout=3)).value) <= 3.1
        assert 9.5 < float((await Stub(channel).unary()).value) <= 10.0
    assert deadline.remaining() is None


async def test_a_stream_without_a_deadline_gets_none_and_one_with_a_deadline_has_it():
    async def look(text, context):
        yield str(deadline.remaining() is None)

    async with serving(Echo(watch=look)) as runtime, grpc.aio.insecure_channel(runtime.address) as channel:
        stub = Stub(channel)
        assert [answer.value async for answer in stub.watch()] == ["True"]
        assert [answer.value async for answer in stub.watch(timeout=5)] == ["False"]


async def test_calls_given_up_by_the_caller_are_counted_by_why():
    started = asyncio.Event()

    async def forever(text, context):
        started.set()
        await asyncio.Event().wait()
        return ""

    async with serving(Echo(forever)) as runtime, grpc.aio.insecure_channel(runtime.address) as channel:
        call = Stub(channel).unary()
        await started.wait()
        call.cancel()
        await eventually(lambda: _count(runtime, UNARY, "CANCELLED") == 1.0)
        error = await _failed(Stub(channel).unary(timeout=0.05))
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await eventually(lambda: _count(runtime, UNARY, "DEADLINE_EXCEEDED") == 1.0)


async def test_each_call_sees_its_own_metadata_and_trace():
    async def look(text, context):
        await asyncio.sleep(0)
        call, trace = current_call(), current_trace()
        return f"{call.method} {call.value('amends-run-id')} {trace.trace_id}"

    async def ask(stub, number):
        trace = f"{number:032x}"
        metadata = (("amends-run-id", f"r-{number}"), ("traceparent", f"00-{trace}-00f067aa0ba902b7-00"))
        assert (await stub.unary(metadata=metadata)).value == f"{UNARY} r-{number} {trace}"

    async with serving(Echo(look)) as runtime, grpc.aio.insecure_channel(runtime.address) as channel:
        await asyncio.gather(*(ask(Stub(channel), number) for number in range(1, 20)))
    assert current_call() is None


async def test_an_unknown_method_is_unimplemented_and_not_counted():
    async with serving(Echo()) as runtime, grpc.aio.insecure_channel(runtime.address) as channel:
        error = await _failed(channel.unary_unary("/test.echo.v1.EchoService/Nope")(b""))
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        assert _count(runtime, "/test.echo.v1.EchoService/Nope", "UNIMPLEMENTED") is None


class _Recorder(grpc.aio.ServerInterceptor):
    """A guard that notes when it is asked and when it is passed."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self.name, self.notes = name, notes

    async def intercept_service(self, continuation, handler_call_details):
        self.notes.append(f"{self.name} asked")
        handler = await continuation(handler_call_details)

        async def serve(request, context):
            self.notes.append(f"{self.name} passed")
            return await handler.unary_unary(request, context)

        return grpc.unary_unary_rpc_method_handler(serve, handler.request_deserializer, handler.response_serializer)


async def test_guards_are_asked_once_and_passed_each_time_the_last_innermost():
    notes: list[str] = []
    interceptor = ServerInterceptor(
        ServerMetrics(CollectorRegistry()), Admission(10), call_timeout=timedelta(seconds=1), trace_ratio=0.0
    )
    interceptor.guards = (_Recorder("outer", notes), _Recorder("inner", notes))
    interceptor.open()
    server = grpc.aio.server(interceptors=[interceptor])
    register(Echo(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        await Stub(channel).unary()
        await Stub(channel).unary()
    await server.stop(None)
    assert sorted(notes[:2]) == ["inner asked", "outer asked"]
    assert notes[2:] == ["outer passed", "inner passed"] * 2


async def test_before_the_start_a_method_is_unavailable_and_not_unknown():
    interceptor = ServerInterceptor(
        ServerMetrics(CollectorRegistry()), Admission(10), call_timeout=timedelta(seconds=1), trace_ratio=0.0
    )
    server = grpc.aio.server(interceptors=[interceptor])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        error = await _failed(Stub(channel).unary())
        assert (error.code(), _info(error).reason) == (grpc.StatusCode.UNAVAILABLE, "STARTING")
        stream = Stub(channel).watch()
        assert (await _failed(stream.read())).code() is grpc.StatusCode.UNAVAILABLE
    await server.stop(None)
