"""A gRPC server of any contract that answers as scripted and remembers what it was asked.

Called by the suites of the orchestrator, the CLI and the end to end tests: it is the participant that is not ours.
It needs descriptors only, no generated code.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio
from google.protobuf import any_pb2, message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet, MethodOptions
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status

from amends.options.v1 import options_pb2
from amends_testkit.answers import ScriptedAnswer
from amends_testkit.barrier import FENCED, MemoryBarrier, ModelRefusedError
from amends_testkit.waiting import eventually

DOMAIN = "amends.dev"


@dataclass(frozen=True, slots=True)
class Received:
    """One call as it arrived."""

    method: str
    """Its name in the service, e.g. Charge."""
    request: Message
    metadata: Mapping[str, str]
    remaining: timedelta | None
    """Until the caller's deadline; None without one."""
    at: datetime

    @property
    def key(self) -> str:
        """Return the idempotency key; empty without one."""
        return self.metadata.get("amends-idempotency-key", "")

    @property
    def operation(self) -> str:
        """action, compensation or void; action when nothing was said."""
        return self.metadata.get("amends-operation", "action")


class FakeParticipant:
    """A running server. `async with await FakeParticipant.start(descriptors, services) as shop: ...`."""

    def __init__(self, pool: DescriptorPool, services: Sequence[str]) -> None:
        self.target = ""
        """host:port."""
        self.received: list[Received] = []
        """Every call that arrived, in order."""
        self.effects: list[tuple[str, str]] = []
        """(method, idempotency key) of every effect, in order."""
        self.trailer = True
        """Whether guarded methods answer with `amends-barrier`; False plays a replica without the interceptor."""
        self.barrier = MemoryBarrier()
        self._methods = _methods(pool, services)
        self._script: defaultdict[str, deque[ScriptedAnswer]] = defaultdict(deque)
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._server: grpc.aio.Server | None = None
        self._credentials: grpc.ServerCredentials | None = None
        self._pool = pool
        self._services = services

    @classmethod
    async def start(
        cls,
        descriptors: FileDescriptorSet,
        services: Iterable[str],
        *,
        reflect: bool = True,
        port: int = 0,
        credentials: grpc.ServerCredentials | None = None,
    ) -> Self:
        """Serve all methods of the services on 127.0.0.1. A method without a script answers with an empty message.

        With `credentials` it serves TLS, else plain text.
        """
        pool = DescriptorPool()
        for file in descriptors.file:
            pool.Add(file)
        participant = cls(pool, list(services))
        participant._credentials = credentials
        await participant.listen(reflect=reflect, port=port)
        return participant

    async def listen(self, *, reflect: bool = True, port: int = 0) -> None:
        """Serve (again, after `stop`): what was received and the barrier's rows are kept."""
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        server.add_generic_rpc_handlers([_Handler(self)])
        if reflect:
            names = (*self._services, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, server, pool=self._pool)
        place = f"127.0.0.1:{port}"
        if self._credentials is None:
            port = server.add_insecure_port(place)
        else:
            port = server.add_secure_port(place, self._credentials)
        self.target = f"127.0.0.1:{port}"
        await server.start()
        self._server = server

    async def stop(self) -> None:
        """Stop at once; calls under way are broken off."""
        server, self._server = self._server, None
        if server is not None:
            await server.stop(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def script(self, method: str, *answers: ScriptedAnswer) -> None:
        """Set the answers of a method, in order; the last one repeats. Replaces what was scripted before."""
        if not any(known.name == method for known in self._methods.values()):
            raise LookupError(f"{method} is no method of {', '.join(self._services)}")
        self._script[method] = deque(answers)

    def calls(self, method: str, operation: str | None = None) -> list[Received]:
        """Return the calls of one method that arrived, in order; of one operation if given."""
        return [call for call in self.received if call.method == method and operation in (None, call.operation)]

    async def called(self, method: str, times: int = 1, *, timeout: timedelta = timedelta(seconds=15)) -> Received:
        """Wait until a method was called that many times; return the last of them."""
        await eventually(lambda: len(self.calls(method)) >= times, timeout=timeout, what=f"{times} calls of {method}")
        return self.calls(method)[times - 1]

    def _receive(self, method: MethodDescriptor, request: bytes, context: Any) -> Received:
        left = context.time_remaining()
        call = Received(
            method.name,
            message_factory.GetMessageClass(method.input_type).FromString(request),
            {str(name): str(value) for name, value in context.invocation_metadata() or ()},
            None if left is None else timedelta(seconds=left),
            datetime.now(UTC),
        )
        self.received.append(call)
        return call

    async def _stream(self, method: MethodDescriptor, request: bytes, context: Any) -> AsyncIterator[bytes]:
        call = self._receive(method, request, context)
        answer = self._next(method.name)
        for response in answer.stream:
            yield response.SerializeToString()
        await self._act(call, answer, method)
        if answer.code is not grpc.StatusCode.OK:
            await _abort(context, answer.code, answer.reason, answer.text, (), answer.pause)

    async def _serve(self, method: MethodDescriptor, request: bytes, context: Any) -> bytes:
        call = self._receive(method, request, context)
        guard = _guarded(method) and call.key
        trailers = (("amends-barrier", "1"),) if guard and self.trailer else ()
        context.set_trailing_metadata(trailers)
        if guard and call.operation == "void":
            stored = self.barrier.void(call.key, call.metadata.get("amends-void-of", "action"))
            context.set_trailing_metadata((*trailers, ("amends-void", "voided" if stored is None else "already-done")))
            return stored or b""
        # The same key waits for its predecessor, as the primary key of a real barrier makes it.
        async with self._locks[call.key] if guard else asyncio.Lock():
            if guard:
                outcome = call.metadata.get("amends-action-outcome", "unknown")
                try:
                    stored = self.barrier.before(call.key, call.operation, outcome, request)
                except ModelRefusedError as refusal:
                    code = grpc.StatusCode.ABORTED if str(refusal) == FENCED else grpc.StatusCode.FAILED_PRECONDITION
                    await _abort(context, code, str(refusal), "the barrier refused", trailers)
                    raise
                if stored is not None:
                    return stored
            answer = self._next(method.name)
            response = await self._act(call, answer, method)
            if guard and answer.effect:
                self.barrier.after(call.key, call.operation, request, response)
        await asyncio.sleep(answer.lag.total_seconds())
        if answer.code is not grpc.StatusCode.OK:
            await _abort(context, answer.code, answer.reason, answer.text, trailers, answer.pause)
        return response

    async def _act(self, call: Received, answer: ScriptedAnswer, method: MethodDescriptor) -> bytes:
        await asyncio.sleep(answer.delay.total_seconds())
        if answer.until is not None:
            await answer.until.wait()
        if answer.effect:
            self.effects.append((call.method, call.key))
        kind = message_factory.GetMessageClass(method.output_type)
        response = answer.response if answer.response is not None else kind(**answer.fields)
        return type(response).SerializeToString(response, deterministic=True)

    def _next(self, method: str) -> ScriptedAnswer:
        script = self._script[method]
        if not script:
            return ScriptedAnswer()
        return script.popleft() if len(script) > 1 else script[0]


class _Handler(grpc.GenericRpcHandler):
    def __init__(self, participant: FakeParticipant) -> None:
        self._participant = participant

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes] | None":
        method = self._participant._methods.get(handler_call_details.method)
        if method is None:
            return None

        async def serve(request: bytes, context: Any) -> bytes:
            return await self._participant._serve(method, request, context)

        async def stream(request: bytes, context: Any) -> AsyncIterator[bytes]:
            async for response in self._participant._stream(method, request, context):
                yield response

        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(serve)


def _methods(pool: DescriptorPool, services: Iterable[str]) -> dict[str, MethodDescriptor]:
    found = {}
    for name in services:
        for method in pool.FindServiceByName(name).methods:
            found[f"/{name}/{method.name}"] = method
    return found


def _guarded(method: MethodDescriptor) -> bool:
    # By way of the wire: the options of another pool are not of our extension's class.
    options = MethodOptions.FromString(method.GetOptions().SerializeToString())
    return options.Extensions[options_pb2.method].guarded


async def _abort(
    context: Any,
    code: grpc.StatusCode,
    reason: str,
    text: str,
    trailers: tuple[tuple[str, str], ...],
    pause: timedelta | None = None,
) -> None:
    status = status_pb2.Status(code=code.value[0], message=text)
    if reason:
        detail = any_pb2.Any()
        detail.Pack(error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN))
        status.details.append(detail)
    if pause is not None:
        asked = error_details_pb2.RetryInfo()
        asked.retry_delay.FromTimedelta(pause)
        status.details.add().Pack(asked)
    # Abort replaces the trailing metadata that was set before, so both go in here.
    await context.abort(code, text, (*trailers, *(rpc_status.to_status(status).trailing_metadata or ())))
