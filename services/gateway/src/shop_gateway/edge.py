"""What holds for every request before a route sees it, and for every answer after.

The outermost layer of the application: bounds on size, number and time; nothing believed that only a proxy of ours
could say; the deadline that calls behind inherit; a client that goes away ends what is done for it; errors become
problem documents. Used by `application`.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import perf_counter

import structlog
from amends_chassis.context import TRACEPARENT, Trace, enter_trace
from amends_chassis.errors import Unavailable
from amends_resilience import deadline
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shop_gateway.gateway import Gateway
from shop_gateway.metrics import RequestMetrics
from shop_gateway.problems import HttpError, HttpProblem, problem

_log = structlog.get_logger(__name__)

GONE = 499
REQUEST_ID = b"x-request-id"
DEFAULTS = {
    b"x-content-type-options": b"nosniff",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"cache-control": b"no-store",
}
"""Headers of every answer that does not say otherwise."""
STREAMS = "/progress"
"""The end of the paths whose answers have no end of their own."""
_UNTRUSTED = (b"amends-", b"x-forwarded-", b"forwarded", b"x-real-ip", b"traceparent", b"tracestate", b"x-request-id")
"""Headers that are believed from nobody outside: as prefixes."""
_HOST = re.compile(rb"([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?")
_ANNOUNCE_BODY = (b"content-length", b"transfer-encoding")
_REASONS = {404: "ROUTE_UNKNOWN", 405: "METHOD_NOT_ALLOWED"}
_SENTENCES = {404: "There is nothing at this address.", 405: "This method is not there at this address."}

Shown = Callable[[Scope, HttpProblem], Response]
"""Makes the answer that tells of a problem: a document for programs, or a page."""


class Edge:
    """Wraps the routes of the gateway."""

    def __init__(self, routes: ASGIApp, gateway: Gateway, shown: Shown) -> None:
        """Answer with `routes`; what cannot be done is told as `shown` makes it."""
        self._routes = routes
        self._settings = gateway.settings
        self._shown = shown
        self._limits = gateway.limits
        self._streams = gateway.streams
        self._metrics = RequestMetrics(gateway.runtime.registry)
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, as ASGI has it."""
        began = perf_counter()
        client = self._client(scope)
        trace = self._enter(scope)
        answer = _Answer(send, trace.trace_id)
        answer.is_early = any(name in _ANNOUNCE_BODY for name, _ in scope["headers"])
        self._under_way += 1
        try:
            self._limits.take_for_address(client)
            await self._serve(scope, receive, answer)
        except _GoneError:
            pass  # there is nobody to tell
        except Exception as error:
            if answer.status:  # it has begun: the connection ends without its end
                raise
            await self._shown(scope, _problem(error))(scope, receive, answer)
        finally:
            self._under_way -= 1
            route = scope.get("route")
            path = "" if route is None else route.path
            self._metrics.finished(scope["method"], path, answer.status or GONE, perf_counter() - began)

    def _client(self, scope: Scope) -> str:
        """Return the address of the client, as the last proxy that is trusted saw it."""
        trusted = self._settings.trusted_proxies
        if trusted:
            headers = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
            hops = [hop.strip() for hop in ",".join(headers).split(",")]
            if len(hops) >= trusted and hops[-trusted]:
                return hops[-trusted]
        return scope["client"][0] if scope["client"] else ""

    def _enter(self, scope: Scope) -> Trace:
        """Begin a trace, and take from the request what nobody outside may say."""
        outside = [value for name, value in scope["headers"] if name == TRACEPARENT.encode()]
        scope["headers"] = [header for header in scope["headers"] if not header[0].startswith(_UNTRUSTED)]
        scope["path"] = scope["raw_path"].decode("ascii")  # an encoded slash is a part of a name
        scope["app"] = self
        trace = Trace.begin(self._settings.trace_ratio)
        enter_trace(trace)
        if outside:
            _log.debug("request.linked", linked=outside[0].decode("latin-1")[:55])
        return trace

    async def _serve(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        head = len(scope["raw_path"]) + len(scope["query_string"])
        head += sum(len(name) + len(value) for name, value in scope["headers"])
        if head > self._settings.max_header_bytes:
            raise HttpError(431, "HEADERS_TOO_LARGE", "The head of the request is too large.")
        _check_host(scope)
        if self._under_way - self._streams.open > self._settings.max_concurrent_calls:
            raise Unavailable("OVERLOADED", "This server has as many requests as it can take; try again later.")
        with deadline.scope(self._settings.request_timeout):
            body = await self._body(scope, receive)
            answer.is_early = False
            if not scope["path"].endswith(STREAMS):
                await _until_gone(self._routes(scope, _replay(body), answer), receive)
                return
        await _until_gone(self._routes(scope, _replay(body), answer), receive)

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """Return the whole body. Raises HttpError when it is too large or too late, _GoneError when it does not end."""
        most = self._settings.max_body_bytes
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if length.isdigit() and int(length) > most:
            raise _too_large(most)
        body, more = bytearray(), True
        try:
            async with asyncio.timeout(self._settings.request_timeout.total_seconds()):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _GoneError
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > most:
                        raise _too_large(most)
        except TimeoutError:
            raise HttpError(408, "REQUEST_MISSING", "The body did not arrive in time.") from None
        return bytes(body)


class _GoneError(Exception):
    """The client has gone; there is nobody to tell."""


class _Answer:
    """Sends an answer, and knows its status; 0 before it begins."""

    def __init__(self, send: Send, request_id: str) -> None:
        self.status = 0
        self.is_early = False
        """Whether the body has not arrived: the connection ends with the answer, for nobody reads what still comes."""
        self._send = send
        self._request_id = request_id.encode()

    async def __call__(self, message: Message) -> None:
        """Send a part of the answer."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            said = [*message.get("headers", ()), (REQUEST_ID, self._request_id)]
            if self.is_early:
                said.append((b"connection", b"close"))
            names = {name for name, _ in said}
            message["headers"] = [*said, *(one for one in DEFAULTS.items() if one[0] not in names)]
        await self._send(message)


async def _until_gone(work: Awaitable[None], receive: Receive) -> None:
    """Do the work for as long as the client is there: its RPCs are cancelled when it goes."""
    working = asyncio.current_task()
    assert working is not None
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        working.cancel()

    watching = asyncio.create_task(watch())
    try:
        await work
    except asyncio.CancelledError:
        if not gone or working.uncancel() > 0:
            raise
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching


def _replay(body: bytes) -> Receive:
    """Return what a route reads the body with, once."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await asyncio.Event().wait()  # it is cancelled when the client goes
        raise AssertionError("the event is never set")

    return receive


def _check_host(scope: Scope) -> None:
    """Refuse a request that does not name one host, as a host is written (RFC 9112, 3.2)."""
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    if not hosts and scope["http_version"] == "1.0":
        return
    if len(hosts) != 1 or not _HOST.fullmatch(hosts[0]):
        raise HttpError(400, "HOST_INVALID", "The request must name one host.")


def _too_large(most: int) -> HttpError:
    return HttpError(413, "BODY_TOO_LARGE", f"A body has at most {most} bytes.")


def _problem(error: Exception) -> HttpProblem:
    if isinstance(error, HTTPException):
        reason, sentence = _REASONS.get(error.status_code), _SENTENCES.get(error.status_code)
        headers = tuple((error.headers or {}).items())
        return HttpProblem(error.status_code, reason or "REFUSED", sentence or error.detail, headers=headers)
    return problem(error)
