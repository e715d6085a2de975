"""A service with one method of each kind, whose handlers the tests supply. Its messages are StringValue."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from amends_chassis.service import Runtime, running
from amends_chassis.settings import ServiceSettings
from google.protobuf.wrappers_pb2 import StringValue

SERVICE = "test.echo.v1.EchoService"
UNARY = f"/{SERVICE}/Unary"
WATCH = f"/{SERVICE}/Watch"
COLLECT = f"/{SERVICE}/Collect"
CHAT = f"/{SERVICE}/Chat"


class Echo:
    """Answers with what it got; tests replace `unary` and `watch`."""

    def __init__(
        self,
        unary: Callable[[str, Any], Awaitable[str]] | None = None,
        watch: Callable[[str, Any], AsyncIterator[str]] | None = None,
    ) -> None:
        self._unary = unary
        self._watch = watch
        self.calls = 0

    async def Unary(self, request: StringValue, context: Any) -> StringValue:
        self.calls += 1
        text = request.value if self._unary is None else await self._unary(request.value, context)
        return StringValue(value=text)

    async def Watch(self, request: StringValue, context: Any) -> AsyncIterator[StringValue]:
        if self._watch is None:
            yield request
            return
        async for text in self._watch(request.value, context):
            yield StringValue(value=text)

    async def Collect(self, requests: AsyncIterator[StringValue], context: Any) -> StringValue:
        return StringValue(value="".join([request.value async for request in requests]))

    async def Chat(self, requests: AsyncIterator[StringValue], context: Any) -> None:
        async for request in requests:
            await context.write(request)


def register(servicer: Echo, server: grpc.aio.Server) -> None:
    """Does what a generated function does."""
    makers = {
        "Unary": grpc.unary_unary_rpc_method_handler,
        "Watch": grpc.unary_stream_rpc_method_handler,
        "Collect": grpc.stream_unary_rpc_method_handler,
        "Chat": grpc.stream_stream_rpc_method_handler,
    }
    handlers = {
        name: make(getattr(servicer, name), StringValue.FromString, StringValue.SerializeToString)
        for name, make in makers.items()
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_registered_method_handlers(SERVICE, handlers)


class Stub:
    """The client side, over any channel."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        wire = (StringValue.SerializeToString, StringValue.FromString)
        self._unary = channel.unary_unary(UNARY, *wire)
        self._watch = channel.unary_stream(WATCH, *wire)
        self.collect = channel.stream_unary(COLLECT, *wire)
        self.chat = channel.stream_stream(CHAT, *wire)

    def unary(self, text: str = "hello", **kwargs: Any) -> Any:
        return self._unary(StringValue(value=text), **kwargs)

    def watch(self, text: str = "hello", **kwargs: Any) -> Any:
        return self._watch(StringValue(value=text), **kwargs)


def settings(**changed: Any) -> ServiceSettings:
    """Settings for a test: they ignore what the environment says of traces and ports."""
    return ServiceSettings(**({"name": "echo", "trace_ratio": 0.0} | changed))


def serving(echo: Echo, tracing: Any = None, **changed: Any) -> Any:
    """A running service with `echo` in it."""

    async def assemble(runtime: Runtime) -> None:
        runtime.add(register, echo, SERVICE)

    return running(settings(**changed), assemble, tracing)
