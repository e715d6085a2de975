import asyncio
import json
import os
import signal
import socket
import sys
import threading
import urllib.request
from datetime import timedelta

import grpc
import pytest
from amends_chassis import web
from amends_chassis.service import Runtime, running
from amends_testkit.waiting import eventually
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

from amends.saga.v1 import run_service_pb2_grpc

from .echo import SERVICE, UNARY, Echo, Stub, register, serving, settings

SERVING = HealthCheckResponse.SERVING
NOT_SERVING = HealthCheckResponse.NOT_SERVING


async def _health(address: str, service: str) -> int:
    async with grpc.aio.insecure_channel(address) as channel:
        return (await HealthStub(channel).Check(HealthCheckRequest(service=service))).status


async def test_every_name_of_the_health_service_answers():
    async with serving(Echo()) as runtime:
        for name in ("", "liveness", "readiness", SERVICE):
            assert await _health(runtime.address, name) == SERVING
        with pytest.raises(grpc.aio.AioRpcError):
            await _health(runtime.address, "unknown")


async def test_while_it_is_assembled_a_service_lives_and_is_not_ready():
    going_on = asyncio.Event()
    found: dict[str, int] = {}

    async def assemble(runtime: Runtime) -> None:
        for name in ("", "liveness", "readiness"):
            found[name] = await _health(runtime.address, name)
        runtime.add(register, Echo(), SERVICE)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async with grpc.aio.insecure_channel(runtime.address) as channel:
                await Stub(channel).unary()
        found["call"] = caught.value.code().value[0]
        going_on.set()

    async with running(settings(), assemble) as runtime:
        assert going_on.is_set()
        assert found == {"": NOT_SERVING, "liveness": SERVING, "readiness": NOT_SERVING, "call": 14}
        assert await _health(runtime.address, "readiness") == SERVING


async def test_reflection_lists_the_services_and_describes_them():
    async def assemble(runtime: Runtime) -> None:
        runtime.add(
            run_service_pb2_grpc.add_RunServiceServicer_to_server,
            run_service_pb2_grpc.RunServiceServicer(),
            "amends.saga.v1.RunService",
        )

    async with running(settings(), assemble) as runtime, grpc.aio.insecure_channel(runtime.address) as channel:
        asked = [
            ServerReflectionRequest(list_services=""),
            ServerReflectionRequest(file_containing_symbol="amends.saga.v1.RunService"),
        ]
        listed, described = [answer async for answer in ServerReflectionStub(channel).ServerReflectionInfo(iter(asked))]
        assert [service.name for service in listed.list_services_response.service] == [
            "amends.saga.v1.RunService",
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
        ]
        assert described.file_descriptor_response.file_descriptor_proto


async def test_reflection_can_be_switched_off():
    async with (
        serving(Echo(), reflection=False) as runtime,
        grpc.aio.insecure_channel(runtime.address) as channel,
    ):
        call = ServerReflectionStub(channel).ServerReflectionInfo(iter([ServerReflectionRequest(list_services="")]))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_methods_that_are_not_written_are_unimplemented():
    async def assemble(runtime: Runtime) -> None:
        runtime.add(
            run_service_pb2_grpc.add_RunServiceServicer_to_server,
            run_service_pb2_grpc.RunServiceServicer(),
            "amends.saga.v1.RunService",
        )

    async with running(settings(), assemble) as runtime, grpc.aio.insecure_channel(runtime.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/amends.saga.v1.RunService/GetRun")(b"")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_method_that_is_not_async_is_refused_at_the_start():
    class Blocking(Echo):
        def Unary(self, request, context):
            return request

    with pytest.raises(TypeError, match="Unary must be `async def`"):
        async with serving(Blocking()):
            pass


async def test_a_registrar_of_another_service_is_refused():
    async def assemble(runtime: Runtime) -> None:
        runtime.add(register, Echo(), "test.other.v1.OtherService")

    with pytest.raises(ValueError, match=r"not test\.other"):
        async with running(settings(), assemble):
            pass


async def test_the_report_says_which_addresses_it_got(tmp_path):
    path = tmp_path / "deep" / "echo.json"
    async with serving(Echo(), report_file=path) as runtime:
        assert json.loads(path.read_text()) == {
            "service": "echo",
            "pid": os.getpid(),
            "grpc": runtime.address,
            "metrics": runtime.metrics_address,
        }
        assert [entry.name for entry in path.parent.iterdir()] == ["echo.json"]


async def test_a_service_answers_http_at_a_port_of_its_own_that_its_report_names(tmp_path):
    def application(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [environ["PATH_INFO"].encode()]

    async def assemble(runtime):
        runtime.serve_http("keys", application, 0)

    report = tmp_path / "report.json"
    async with running(settings(report_file=report), assemble):
        address = json.loads(report.read_text())["keys"]
        assert await asyncio.to_thread(_read, f"http://{address}/a/path") == b"/a/path"
    with pytest.raises(OSError, match="refused"):
        await asyncio.to_thread(_read, f"http://{address}/")


def _read(url):
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read()


async def test_the_metrics_are_served_on_their_own_port():
    async with serving(Echo()) as runtime:
        url = f"http://{runtime.metrics_address}/metrics"
        text = (await asyncio.to_thread(urllib.request.urlopen, url)).read().decode()
        assert f'grpc_server_handled_total{{code="OK",method="Unary",service="{SERVICE}"}} 0.0' in text


async def test_health_may_have_a_port_of_its_own_where_nothing_else_is_served(tmp_path):
    path = tmp_path / "echo.json"
    async with serving(Echo(), health_port=0, report_file=path) as runtime:
        assert json.loads(path.read_text())["health"] == runtime.health_address != runtime.address
        for name in ("", "liveness", "readiness", SERVICE):
            assert await _health(runtime.health_address, name) == SERVING
        async with grpc.aio.insecure_channel(runtime.health_address) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await channel.unary_unary(UNARY)(b"")
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    with pytest.raises(grpc.aio.AioRpcError):
        await _health(runtime.health_address, "")


async def test_connections_that_say_nothing_take_neither_threads_nor_the_scrape():
    async with serving(Echo()) as runtime:
        host, _, port = runtime.metrics_address.rpartition(":")
        before = threading.active_count()
        silent = [socket.create_connection((host, int(port))) for _ in range(200)]
        try:
            url = f"http://{runtime.metrics_address}/healthz"
            answer = await asyncio.to_thread(urllib.request.urlopen, url, timeout=10)
            assert (await asyncio.to_thread(answer.read)) == b"ok\n"
            await eventually(lambda: threading.active_count() <= before + web.CONNECTIONS)
        finally:
            for connection in silent:
                connection.close()


async def test_a_port_that_is_taken_is_an_error_and_not_a_shared_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="Address already in use"):
            async with serving(Echo(), port=taken.getsockname()[1]):
                pass


async def test_a_background_task_that_fails_is_started_again_and_ends_with_the_service():
    turns: list[str] = []

    async def work() -> None:
        turns.append("began")
        if len(turns) < 3:
            raise ValueError("again")
        try:
            await asyncio.Event().wait()
        finally:
            turns.append("cancelled")

    async def assemble(runtime: Runtime) -> None:
        runtime.background("work", work)
        with pytest.raises(ValueError, match="already"):
            runtime.background("work", work)

    async with running(settings(), assemble):
        await eventually(lambda: len(turns) == 3)
    assert turns == ["began", "began", "began", "cancelled"]


async def test_a_drain_says_not_ready_first_and_lets_calls_in_flight_finish():
    begun, finish = asyncio.Event(), asyncio.Event()

    async def slow(text, context):
        begun.set()
        await finish.wait()
        return "finished"

    watched: list[int] = []

    async with serving(Echo(slow)) as runtime, grpc.aio.insecure_channel(runtime.address) as channel:

        async def watch() -> None:
            async for answer in HealthStub(channel).Watch(HealthCheckRequest(service="")):
                watched.append(answer.status)

        watching = asyncio.create_task(watch())
        await eventually(lambda: watched == [SERVING])
        call = Stub(channel).unary()
        await begun.wait()
        stopping = asyncio.create_task(runtime.stop())
        await eventually(lambda: watched == [SERVING, NOT_SERVING])
        assert not stopping.done()
        finish.set()
        assert (await call).value == "finished"
        await asyncio.wait_for(stopping, 5)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await watching
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_drain_does_not_wait_for_watches():
    async def for_ever(text, context):
        yield "one"
        await asyncio.Event().wait()

    async with (
        serving(Echo(watch=for_ever), drain=timedelta(seconds=60)) as runtime,
        grpc.aio.insecure_channel(runtime.address) as channel,
    ):
        stream = Stub(channel).watch()
        assert (await stream.read()).value == "one"
        await asyncio.wait_for(runtime.stop(), 5)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_drain_is_over_in_time_even_if_a_call_is_not():
    async def for_ever(text, context):
        begun.set()
        await asyncio.Event().wait()
        return ""

    begun = asyncio.Event()
    async with (
        serving(Echo(for_ever), drain=timedelta(milliseconds=100)) as runtime,
        grpc.aio.insecure_channel(runtime.address) as channel,
    ):
        call = Stub(channel).unary()
        await begun.wait()
        await asyncio.wait_for(runtime.stop(), 5)
        with pytest.raises(grpc.aio.AioRpcError):
            await call


async def test_old_connections_are_asked_to_come_again():
    async with (
        serving(Echo(), max_connection_age=timedelta(milliseconds=50)) as runtime,
        grpc.aio.insecure_channel(runtime.address) as channel,
    ):
        await Stub(channel).unary()
        await eventually(lambda: channel.get_state() is not grpc.ChannelConnectivity.READY)
        assert (await Stub(channel).unary("again", wait_for_ready=True)).value == "again"


PROGRAM = """
from amends_chassis.service import run
from amends_chassis.settings import ServiceSettings

async def assemble(runtime):
    pass

run(ServiceSettings(name="child"), assemble)
"""


async def _child(report, **environment: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM),
        env=os.environ | {"AMENDS_REPORT_FILE": str(report)} | environment,
        stdout=asyncio.subprocess.PIPE,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_process_ends_well_when_it_is_asked_to(tmp_path, number):
    child = await _child(tmp_path / "report.json")
    await eventually((tmp_path / "report.json").exists)
    address = json.loads((tmp_path / "report.json").read_text())["grpc"]
    await eventually(lambda: _ready(address))
    child.send_signal(number)
    out, _ = await child.communicate()
    assert child.returncode == 0
    assert "service.stopped" in [json.loads(line)["event"] for line in out.splitlines()]


async def _ready(address: str) -> bool:
    return await _health(address, "") == SERVING


async def test_a_process_that_waits_for_its_database_ends_when_it_is_asked_to(tmp_path):
    child = await _child(tmp_path / "report.json", AMENDS_DATABASE_URL="postgresql://me@127.0.0.1:1/none")
    await eventually((tmp_path / "report.json").exists)
    assert await _health(json.loads((tmp_path / "report.json").read_text())["grpc"], "readiness") == NOT_SERVING
    child.terminate()
    out, _ = await child.communicate()
    assert child.returncode == 0
    assert "database.waiting" in [json.loads(line)["event"] for line in out.splitlines()]


async def test_a_process_that_cannot_start_says_why_and_fails(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        child = await _child(tmp_path / "report.json", AMENDS_PORT=str(taken.getsockname()[1]))
        out, _ = await child.communicate()
    assert child.returncode == 1
    (said,) = [entry for line in out.splitlines() if (entry := json.loads(line))["level"] == "critical"]
    assert "Address already in use" in said["error"]
    assert not (tmp_path / "report.json").exists()


async def test_a_service_without_a_database_says_what_is_missing():
    async with serving(Echo()) as runtime:
        with pytest.raises(LookupError, match="AMENDS_DATABASE_URL"):
            _ = runtime.database
        assert UNARY.startswith("/")
