"""Channels of ours go past the proxy of the environment; a bare one is shown not to."""

import grpc
import grpc.aio
import pytest
from amends_chassis.dial import cause, dial, dial_blocking
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2

CHECK = "/grpc.health.v1.Health/Check"
NOBODY = "http://127.0.0.1:1"


@pytest.fixture
def behind_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("grpc_proxy", "https_proxy", "http_proxy", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(name, NOBODY)
    for name in ("no_grpc_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


async def code_of(channel: grpc.aio.Channel) -> grpc.StatusCode:
    try:
        await channel.unary_unary(CHECK)(health_pb2.HealthCheckRequest().SerializeToString(), timeout=5)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


@pytest.mark.usefixtures("behind_a_proxy")
async def test_no_call_goes_through_the_proxy_of_the_environment(server) -> None:
    async with dial(server) as channel, grpc.aio.insecure_channel(server) as bare:
        assert await code_of(channel) is not grpc.StatusCode.UNAVAILABLE
        assert await code_of(bare) is grpc.StatusCode.UNAVAILABLE
    with dial_blocking(server) as blocking:
        grpc.channel_ready_future(blocking).result(timeout=5)


async def test_a_connection_that_failed_says_why() -> None:
    async with dial("127.0.0.1:1") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channel.unary_unary(CHECK)(b"", timeout=5)
    assert cause(refused.value.details() or "") == "nothing listens there (connection refused)"
    assert cause("something else") == ""


@pytest.fixture
async def server():
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


@pytest.mark.parametrize("size", [12_000, 18_000, 60_000])
@pytest.mark.parametrize("character", ["a", "ä"])
async def test_a_rejection_with_a_long_reason_is_always_the_rejection(size, character) -> None:
    async def refuse(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        reason = character * (size // len(character.encode()))
        details = Status(code=9, message=reason).SerializeToString()
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, reason, (("grpc-status-details-bin", details),))
        raise AssertionError("abort raises")

    refusing = grpc.aio.server()
    handlers = {"Refuse": grpc.unary_unary_rpc_method_handler(refuse)}
    refusing.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Refuser", handlers),))
    port = refusing.add_insecure_port("127.0.0.1:0")
    await refusing.start()
    async with dial(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary("/test.Refuser/Refuse")
        for _ in range(10):  # between two limits it would depend on chance
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(b"", timeout=5)
            assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    await refusing.stop(None)
