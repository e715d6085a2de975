"""The HTTP server in the life of the process: uvicorn with httptools, bounded before a request is one.

A connection that sends no whole head in time, or a head that does not end, never reaches the application; what a whole
request may be is checked there (`edge.py`). Made by `assemble.py`, stopped by the chassis.
"""

import asyncio
import contextlib
import json
import socket
from collections.abc import Iterator
from datetime import timedelta
from http import HTTPStatus
from typing import Any

import uvicorn
from amends_chassis.hosts import address, to_listen_on
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from shop_gateway.edge import DEFAULTS
from shop_gateway.problems import MEDIA_TYPE, HttpProblem
from shop_gateway.settings import Settings

HEAD_WITHIN = timedelta(seconds=10)
"""So long the head of a request may take to arrive."""
IDLE = timedelta(seconds=20)
"""So long a connection may be idle between two requests."""
MOST_CONNECTIONS = 2_048
_BACKLOG = 1_024
_FRAMING = 16
"""So many times the bytes of a chunk may arrive with it; one byte needs six more around it."""
_LAST_WORDS = timedelta(seconds=1)
"""What uvicorn is given beyond the drain to cancel what has not finished."""


class WebServer:
    """Serves an application at the port of the settings."""

    def __init__(self, application: ASGIApp, settings: Settings) -> None:
        """Nothing is opened yet."""
        self.address = ""
        self._host, self._port = to_listen_on(settings.host), settings.http_port
        self._config = uvicorn.Config(
            application,
            http=_protocol(settings.max_header_bytes),
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=int(IDLE.total_seconds()),
            backlog=_BACKLOG,
        )
        self._server = _UvicornServer(self._config)
        self._serving: asyncio.Task[None] | None = None

    async def listen(self) -> None:
        """Open the port. Raises OSError, with the address, when it cannot be listened on."""
        listening = _opened(self._host, self._port)
        self.address = address(self._host, listening.getsockname()[1])
        self._serving = asyncio.create_task(self._server.serve([listening]), name="http")
        await self._server.listening.wait()

    async def stop(self, within: timedelta) -> None:
        """Tell each client to connect elsewhere, let requests finish within a time, and close."""
        if self._serving is None:
            return
        self._config.timeout_graceful_shutdown = max(1, int(within.total_seconds()))
        self._server.should_exit = True
        async with asyncio.timeout((within + _LAST_WORDS + timedelta(seconds=1)).total_seconds()):
            await self._serving


class _UvicornServer(uvicorn.Server):
    """A server that leaves signals to the chassis, and says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def _opened(host: str, port: int) -> socket.socket:
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise OSError(f"cannot listen on {address(host, port)}: {error.strerror or error}") from error
    return listening


def _protocol(max_header_bytes: int) -> type[HttpToolsProtocol]:
    """Return the protocol of a connection whose requests have heads of at most so many bytes."""

    class BoundedProtocol(HttpToolsProtocol):
        """HTTP/1.1 whose heads are bounded in size and time."""

        _head_bytes = 0
        _reading_head = True
        _framing_bytes: int | None = None
        _head_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > MOST_CONNECTIONS:
                self._refuse(503, "OVERLOADED", "This server has as many connections as it can take.")
            else:
                self._start_timer()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self._reading_head:
                self._head_bytes += len(data)
            elif self._framing_bytes is not None:
                self._framing_bytes += len(data)
            super().data_received(data)
            if self._reading_head and self._head_bytes > max_header_bytes:
                self._refuse(431, "HEADERS_TOO_LARGE", f"The head of a request has at most {max_header_bytes} bytes.")
            elif (self._framing_bytes or 0) > max_header_bytes:
                self._refuse(431, "HEADERS_TOO_LARGE", "There is too much around the body of the request.")

        def on_message_begin(self) -> None:
            self._reading_head = True
            self._start_timer()
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            self._head_bytes, self._reading_head, self._framing_bytes = 0, False, 0
            self._stop_timer()
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            if self._framing_bytes is not None:
                self._framing_bytes -= _FRAMING * len(body)
            super().on_body(body)

        def on_message_complete(self) -> None:
            self._framing_bytes = None
            super().on_message_complete()

        def on_header(self, name: bytes, value: bytes) -> None:
            """Take a header of the head alone: what stands after a chunked body is no header (RFC 9110, 6.5.1)."""
            if self._reading_head:
                super().on_header(name, value)

        def send_400_response(self, msg: str) -> None:
            self._refuse(400, "REQUEST_UNREADABLE", "This is no HTTP request.")

        def _start_timer(self) -> None:
            if self._head_timer is None:
                self._head_timer = self.loop.call_later(HEAD_WITHIN.total_seconds(), self._late)

        def _stop_timer(self) -> None:
            timer, self._head_timer = self._head_timer, None
            if timer is not None:
                timer.cancel()

        def _late(self) -> None:
            self._refuse(408, "REQUEST_MISSING", "The request did not arrive in time.")

        def _refuse(self, status: int, reason: str, detail: str) -> None:
            """Answer without the application, and close."""
            if not self.transport.is_closing():
                self.transport.write(_raw(HttpProblem(status, reason, detail)))
                self.transport.close()

    return BoundedProtocol


def _raw(problem: HttpProblem) -> bytes:
    body = json.dumps(problem.document()).encode()
    lines: list[Any] = [
        f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}",
        f"content-type: {MEDIA_TYPE}",
        f"content-length: {len(body)}",
        "connection: close",
        *(f"{name.decode()}: {value.decode()}" for name, value in DEFAULTS.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body
