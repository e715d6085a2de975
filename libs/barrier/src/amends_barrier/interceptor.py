"""Puts the guard around guarded methods of a grpc.aio server.

Made by `Barrier.interceptor`. The handler and the commit are shielded: when the caller's deadline passes meanwhile
they are finished all the same, so that the next attempt with the same key finds the stored response.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from datetime import timedelta
from typing import Any, NoReturn, TypeAlias, cast

import grpc

from amends_barrier.before import prepare_of
from amends_barrier.context import GuardedContext, HandlerAbortedError
from amends_barrier.guard import Guard, GuardAnswer
from amends_barrier.methods import Guarded
from amends_barrier.protocol import (
    BARRIER_TRAILER,
    KEY,
    VOID_TRAILER,
    BarrierError,
    GuardedCall,
    Operation,
    Reason,
    digest,
    read,
)

_log = logging.getLogger(__name__)

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Continuation: TypeAlias = "Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]"

FINISHED_LATE = "barrier.finished_after_caller_left"
FAILED_LATE = "barrier.failed_after_caller_left"
GIVEN_UP = "barrier.given_up_after_caller_left"


class Interceptor(grpc.aio.ServerInterceptor):
    """Decides by method alone and looks at metadata through the context, so that wrapped handlers may be kept."""

    def __init__(self, guard: Guard, methods: Mapping[str, Guarded], finish: timedelta) -> None:
        """`finish` bounds how long a transaction may go on after its caller has left."""
        self._guard = guard
        self._methods = methods
        self._finish = finish
        self._orphans: set[asyncio.Task[GuardAnswer]] = set()

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> "Handler | None":
        """Return the handler of a method, wrapped if the method is guarded."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method not in self._methods:
            return handler
        if handler.unary_unary is None:
            raise TypeError(f"{method} is guarded, but its handler is not unary")
        return grpc.unary_unary_rpc_method_handler(cast("Any", self._wrapped(method, handler)))

    async def drain(self) -> None:
        """Wait for the transactions whose callers have left; they are bounded by `finish`."""
        while self._orphans:
            await asyncio.wait(self._orphans)

    def _wrapped(self, method: str, handler: Handler) -> Callable[[bytes, Any], Awaitable[bytes]]:
        """Return a behaviour over bytes: digests are over the request as sent, responses are stored as sent."""

        prepare = prepare_of(handler.unary_unary)

        async def serve(request: bytes, context: Any) -> bytes:
            metadata = context.invocation_metadata() or ()
            trailers = (BARRIER_TRAILER,) if any(name == KEY for name, _ in metadata) else ()
            guarded = GuardedContext(context, trailers)
            try:
                call = read(metadata)
                if prepare is not None and (call is None or call.operation is not Operation.VOID):
                    await prepare(_message(handler, request))
                answer = await self._shielded(method, handler, request, guarded, call)
            except BarrierError as refusal:
                await context.abort(refusal.code, refusal.message, (*trailers, refusal.trailer()))
            except HandlerAbortedError:
                await _abort(context, guarded)
            if answer.voided is not None:
                context.set_trailing_metadata((*trailers, (VOID_TRAILER, answer.voided.value)))
            return answer.response

        return serve

    async def _shielded(
        self, method: str, handler: Handler, request: bytes, context: GuardedContext, call: GuardedCall | None
    ) -> GuardAnswer:
        began = False

        async def work() -> bytes:
            nonlocal began
            began = True
            return await _handle(handler, request, context)

        task = asyncio.create_task(self._answer(method, request, call, work))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.done():
                self._leave_behind(task, method, began)
            raise

    async def _answer(
        self, method: str, request: bytes, call: GuardedCall | None, work: Callable[[], Coroutine[Any, Any, bytes]]
    ) -> GuardAnswer:
        if call is None:
            return GuardAnswer(await self._guard.unkeyed(work))
        return await self._guard.answer(call, digest(method, request), work)

    def _leave_behind(self, task: asyncio.Task[GuardAnswer], method: str, began: bool) -> None:
        """Let a handler that began finish within its bound after its caller has left; cancel one that has not begun."""
        self._orphans.add(task)
        if began:
            bound = asyncio.get_running_loop().call_later(self._finish.total_seconds(), task.cancel)
            task.add_done_callback(lambda _: bound.cancel())
        else:
            task.cancel()

        def ended(done: asyncio.Task[GuardAnswer]) -> None:
            self._orphans.discard(done)
            if done.cancelled():
                if began:
                    _log.warning(GIVEN_UP, extra={"method": method})
            elif (error := done.exception()) is not None:
                _log.info(FAILED_LATE, extra={"method": method, "error": type(error).__name__})
            else:
                _log.info(FINISHED_LATE, extra={"method": method})

        task.add_done_callback(ended)


async def _handle(handler: Handler, request: bytes, context: GuardedContext) -> bytes:
    """Run the service's handler; return its response as bytes.

    Raises HandlerAbortedError if the handler aborted the call, even if it went on afterwards.
    """
    behavior = cast("Any", handler.unary_unary)
    response = await behavior(_message(handler, request), context)
    if context.failed:
        raise HandlerAbortedError
    if handler.response_serializer is None:
        return cast("bytes", response)
    return handler.response_serializer(response)


def _message(handler: Handler, request: bytes) -> Any:
    if handler.request_deserializer is None:
        return request
    try:
        return handler.request_deserializer(request)
    except Exception as error:
        raise BarrierError(Reason.REQUEST_UNREADABLE) from error


async def _abort(context: Any, guarded: GuardedContext) -> NoReturn:
    """End the call as the handler asked, now that its transaction is rolled back."""
    if guarded.aborted is None:
        code = context.code()
        code = code if isinstance(code, grpc.StatusCode) else grpc.StatusCode.UNKNOWN
        details = context.details() or ""
        await context.abort(code, details if isinstance(details, str) else details.decode())
    else:
        await context.abort(*guarded.aborted)
    raise AssertionError("abort always raises")
