"""A small HTTP server in threads, for what is read now and then: metrics, health, public keys.

Made by `metrics.MetricsServer`, and by `Runtime.serve_http` for what a service publishes.
"""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from amends_chassis.hosts import address, bare

CONNECTIONS = 16
"""Those that are served at once, each by a thread: a new one beyond them ends the oldest."""

HttpApplication = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
"""What answers requests, as PEP 3333 has it."""


class _Server(ThreadingMixIn, WSGIServer):
    """A thread for each connection, and a bound on their number: who keeps silent makes room for who comes."""

    daemon_threads = True
    request_queue_size = 128  # or the system keeps who comes waiting for seconds

    def __init__(self, *arguments: Any) -> None:
        self._open: dict[socket.socket, None] = {}  # in the order of their arrival
        self._lock = threading.Lock()
        host, port = arguments[0]
        self.address_family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Begin a thread, and end the oldest connection when there are too many."""
        with self._lock:
            if len(self._open) >= CONNECTIONS:
                oldest = next(iter(self._open))
                del self._open[oldest]
                with contextlib.suppress(OSError):  # it has ended meanwhile
                    oldest.shutdown(socket.SHUT_RDWR)
            self._open[request] = None
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget the connection, and end it."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: the client went away, or was sent away."""


class _QuietHandler(WSGIRequestHandler):
    """Answers without a line in the log for each."""

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


class HttpServer:
    """Serves one WSGI application at a port of its own."""

    def __init__(self, name: str, application: HttpApplication, host: str, port: int) -> None:
        """Listen at once; port 0 picks a free one. Raises OSError, with the address, when it cannot be listened on."""
        try:
            self._server = make_server(bare(host), port, application, _Server, _QuietHandler)
        except OSError as error:
            raise OSError(f"cannot listen on {address(host, port)}: {error.strerror or error}") from error
        self._thread = threading.Thread(target=self._server.serve_forever, name=name, daemon=True)
        self._thread.start()
        self.address = address(host, self._server.server_port)

    def close(self) -> None:
        """Stop listening and wait for the thread."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=2)
