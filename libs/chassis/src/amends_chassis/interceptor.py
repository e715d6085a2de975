"""The one server interceptor: deadline, error mapping, log context, metrics and sampled traces in a single wrapper.

grpc.aio runs its interceptor chain for every call; this one wraps each method once and answers from a dictionary
afterwards. Whatever else must wrap a handler (the barrier) is applied inside, once, too: see `guards`.
Used by `service.Runtime`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import nullcontext
from datetime import timedelta
from time import perf_counter
from typing import TYPE_CHECKING, Any, NoReturn, cast

import grpc
import structlog
from amends_barrier.interceptor import Continuation
from amends_resilience import deadline

from amends_chassis.admission import INFRASTRUCTURE, Admission, decoder
from amends_chassis.context import IncomingCall, enter_call, sampled, trace_from
from amends_chassis.errors import Blame, DomainError, Unavailable, refusal
from amends_chassis.metrics import MethodSeries, ServerMetrics, split
from amends_chassis.types import Context, Handler, Stream, Unary, behavior

if TYPE_CHECKING:
    from amends_chassis.access import Access
    from amends_chassis.people import PeopleAccess
    from amends_chassis.tracing import Tracing

_log = structlog.get_logger(__name__)

_ABOUT_NOW = timedelta(milliseconds=100)


class ServerInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every handler of a server, once per method."""

    def __init__(
        self,
        metrics: ServerMetrics,
        admission: Admission,
        *,
        call_timeout: timedelta,
        trace_ratio: float,
        tracing: "Tracing | None" = None,
        access: "Access | None" = None,
        people: "PeopleAccess | None" = None,
    ) -> None:
        """Take the deadline of unary calls that bring none, and the share of new traces that are sampled.

        `access` says which services may call what, `people` which people; None: everybody who can connect.
        """
        self.guards: tuple[grpc.aio.ServerInterceptor, ...] = ()
        """Applied inside everything else, the last innermost. Set before `open`; they must decide by method alone
        and look at a call's metadata through its context, because a wrapped handler is kept."""
        self._metrics = metrics
        self._admission = admission
        self._limit = call_timeout
        self._trace_ratio = trace_ratio
        self._tracing = tracing
        self._access = access
        self._people = people
        self._open = False
        self._draining = False
        self._wrapped: dict[str, Handler] = {}
        self._streams: set[asyncio.Task[Any]] = set()

    def open(self) -> None:
        """Serve; until then every call but health and reflection is UNAVAILABLE."""
        self._open = True

    def end_streams(self) -> None:
        """End open response streams with UNAVAILABLE: a watch has no end of its own and would hold up a drain."""
        self._draining = True
        for task in self._streams:
            task.cancel()

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Return the wrapped handler of a method; it is kept from the first call on."""
        method = handler_call_details.method
        # The handler runs in this same task, and decoding the metadata a second time there would cost as much as all
        # the rest of this interceptor.
        metadata = handler_call_details.invocation_metadata or ()
        enter_call(IncomingCall(method, metadata), trace_from(metadata, self._trace_ratio))
        wrapped = self._wrapped.get(method)
        if wrapped is not None:
            return wrapped
        if not self._open and not method.startswith(INFRASTRUCTURE):
            # Before all services are added a method may look unknown; UNIMPLEMENTED would be a definite answer.
            return _refusing_while_starting(method)
        for guard in reversed(self.guards):
            continuation = _through(guard, continuation)
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        wrapped = await self._wrap(handler, handler_call_details)
        return self._wrapped.setdefault(method, wrapped)

    async def _wrap(self, handler: Handler, details: grpc.HandlerCallDetails) -> Handler:
        series = self._metrics.method(details.method)
        domain = _domain(details.method)
        read = _decoding(handler)
        if handler.response_streaming:
            mapped = _rebuilt(read, self._mapped_stream(behavior(read), domain))
            traced = await self._traced(mapped, details)
            return self._admitted(
                details.method, series, read, self._counted_stream(details.method, series, behavior(mapped), traced)
            )
        mapped = _rebuilt(read, self._mapped_unary(behavior(read), domain))
        traced = await self._traced(mapped, details)
        return self._admitted(details.method, series, read, self._counted_unary(series, behavior(mapped), traced))

    def _admitted(self, method: str, series: MethodSeries, handler: Handler, serve: Unary) -> Handler:
        """Return a handler that waits for its request itself, within the bounds of the server.

        To gRPC it is one that takes a stream of requests: for any other it would wait itself, without a bound.
        """
        admission, domain = self._admission, _domain(method)
        look = None if self._access is None else self._access.gate(method)
        recognise = None if self._people is None else self._people.gate(method)
        gate = admission.gate(method, streaming=bool(handler.response_streaming))
        streaming = bool(handler.request_streaming)

        async def admitted(requests: Any, context: Context) -> Any:
            request: Any = None
            try:
                try:
                    gate.look()
                    if look is not None:
                        look(context)
                    if recognise is not None:
                        await recognise()
                    request = requests if streaming else await admission.request(context)
                    gate.look()
                except DomainError as refused:
                    series.finished(refused.code, 0.0)
                    await _refuse(refused, context, domain)
                gate.inside += 1
                try:
                    return await serve(request, context)
                finally:
                    gate.inside -= 1
            except grpc.aio.AbortError as ended:
                # gRPC keeps this error in the call that its frames refer to: a cycle, which would hold the request
                # until the garbage collector runs, and megabytes of requests do not make it run earlier.
                request = ended.__context__ = None
                raise ended.with_traceback(None) from None

        return _FACTORIES[True, bool(handler.response_streaming)](
            admitted,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    async def _traced(self, mapped: Handler, details: grpc.HandlerCallDetails) -> Any:
        """Return the behaviour inside the official interceptor, None without tracing."""
        if self._tracing is None or details.method.startswith(INFRASTRUCTURE):
            return None
        from amends_chassis.tracing import adopt_span

        plain = behavior(mapped)

        async def unary(request: Any, context: Context) -> Any:
            adopt_span()
            return await plain(request, context)

        async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
            adopt_span()
            async for response in plain(request, context):
                yield response

        adopting = _rebuilt(mapped, stream if mapped.response_streaming else unary)

        async def innermost(_: grpc.HandlerCallDetails) -> Handler:
            return adopting

        traced = await self._tracing.server.intercept_service(innermost, details)
        assert traced is not None
        return behavior(traced)

    def _counted_unary(self, series: MethodSeries, plain: Unary, traced: Unary | None) -> Unary:
        async def serve(request: Any, context: Context) -> Any:
            series.in_flight += 1
            began = perf_counter()
            cut = True
            try:
                chosen = plain if traced is None or not sampled() else traced
                response = await chosen(request, context)
                cut = False
                return response
            except Exception:
                cut = False
                raise
            finally:
                series.in_flight -= 1
                series.finished(_code(context, cut), perf_counter() - began)

        return serve

    def _counted_stream(
        self, method: str, series: MethodSeries, plain: Stream, traced: Stream | None
    ) -> Callable[[Any, Context], Awaitable[None]]:
        domain = _domain(method)

        async def serve(request: Any, context: Context) -> None:
            chosen = plain if traced is None or not sampled() else traced
            left = context.time_remaining()
            task = asyncio.current_task()
            assert task is not None
            self._streams.add(task)
            series.in_flight += 1
            began = perf_counter()
            cut = True
            try:
                # Without a deadline a stream is meant to last: a watch has no end of its own.
                with deadline.scope(timedelta(seconds=left)) if left is not None else nullcontext():
                    async for response in chosen(request, context):
                        await context.write(response)
                cut = False
            except asyncio.CancelledError:
                if not self._draining or context.cancelled():
                    raise
                task.uncancel()
                await _refuse(Unavailable("DRAINING", "This replica is stopping; watch another."), context, domain)
            except Exception:
                cut = False
                raise
            finally:
                self._streams.discard(task)
                series.in_flight -= 1
                series.finished(_code(context, cut), perf_counter() - began)

        return serve

    def _mapped_unary(self, inner: Unary, domain: str) -> Unary:
        limit = self._limit

        async def serve(request: Any, context: Context) -> Any:
            left = context.time_remaining()
            try:
                if left is not None:
                    with deadline.scope(timedelta(seconds=left)):
                        return await inner(request, context)
                async with asyncio.timeout(limit.total_seconds()):
                    with deadline.scope(limit):
                        return await inner(request, context)
            except grpc.aio.AbortError:
                raise
            except Exception as error:
                await _refuse(error, context, domain)

        return serve

    def _mapped_stream(self, inner: Callable[[Any, Context], Any], domain: str) -> Stream:
        async def serve(request: Any, context: Context) -> AsyncIterator[Any]:
            try:
                produced = inner(request, context)
                if hasattr(produced, "__aiter__"):
                    async for response in produced:
                        yield response
                else:
                    await produced  # wrote through the context
            except grpc.aio.AbortError:
                raise
            except Exception as error:
                await _refuse(error, context, domain)

        return serve


def _refusing_while_starting(method: str) -> Handler:
    async def refuse(request: Any, context: Context) -> None:
        await _refuse(Unavailable("STARTING", "This service is still starting."), context, _domain(method))

    return grpc.stream_unary_rpc_method_handler(refuse)  # does not wait for a request that may never come


def _domain(method: str) -> str:
    """Return the package of "/package.Service/Method", the domain of its reasons."""
    return split(method)[0].rpartition(".")[0]


async def _refuse(error: Exception, context: Context, domain: str) -> NoReturn:
    found = refusal(error)
    if found.blame is Blame.SERVICE:
        _log.error("call.failed", exc_info=error, **found.metadata)
    elif found.blame is Blame.DEPENDENCY:
        _log.warning("call.dependency_failed", reason=found.reason, error=f"{type(error).__name__}: {error}")
    else:
        assert isinstance(error, DomainError)
        _log.debug("call.refused", reason=found.reason, message=found.message)
    # What is already set stays: the barrier promises its trailer on errors too.
    trailing = (*(context.trailing_metadata() or ()), found.trailer(domain))
    await context.abort(found.code, found.message, cast("Any", trailing))
    raise AssertionError("abort always raises")


def _code(context: Context, cut: bool) -> grpc.StatusCode:
    code = context.code()
    if isinstance(code, grpc.StatusCode):
        return code
    if not cut:
        return grpc.StatusCode.OK
    # A caller whose deadline passes cancels, and that may arrive before our own clock says the same: the deadline on
    # the wire is rounded up, by up to a hundredth.
    left = context.time_remaining()
    late = left is not None and left <= _ABOUT_NOW.total_seconds()
    return grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED


def _decoding(handler: Handler) -> Handler:
    """Return a handler that decodes its one request itself, so that one that cannot be read is refused like others."""
    decode = decoder(handler.request_deserializer)
    if decode is None:
        return handler
    inner = behavior(handler)
    made = inner if handler.request_streaming else lambda request, context: inner(decode(request), context)
    make = _FACTORIES[bool(handler.request_streaming), bool(handler.response_streaming)]
    return make(
        made,
        request_deserializer=decode if handler.request_streaming else None,
        response_serializer=handler.response_serializer,
    )


def _through(guard: grpc.aio.ServerInterceptor, continuation: Continuation) -> Continuation:
    async def next_one(details: grpc.HandlerCallDetails) -> Handler | None:
        return await guard.intercept_service(continuation, details)

    return next_one


_FACTORIES: dict[tuple[bool, bool], Callable[..., Handler]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def _rebuilt(handler: Handler, made: Any) -> Handler:
    make = _FACTORIES[bool(handler.request_streaming), bool(handler.response_streaming)]
    return make(
        made, request_deserializer=handler.request_deserializer, response_serializer=handler.response_serializer
    )
