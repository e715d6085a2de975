"""Per-method figures of the server, for Prometheus, on a port of their own.

No library gives these for grpc.aio. The interceptor holds one `MethodSeries` per method, made when the method is
registered, so that dashboards and alerts see zeros instead of nothing.
"""

import contextlib
import socket
import threading
from collections.abc import Callable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import grpc
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_wsgi_app

from amends_chassis.hosts import address, bare

HEALTHZ, READYZ = "/healthz", "/readyz"
CONNECTIONS = 16
"""Those that are served at once, each by a thread: a new one beyond them ends the oldest."""

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds; from a loopback call to the default deadline."""


def split(method: str) -> tuple[str, str]:
    """Split "/package.Service/Method" into the service and the method."""
    service, _, name = method.removeprefix("/").partition("/")
    return service, name


class MethodSeries:
    """The series of one method, with their labels bound."""

    __slots__ = ("_handled", "_seconds", "in_flight")

    def __init__(self, metrics: "ServerMetrics", service: str, method: str) -> None:
        """Create every series of the method at zero."""
        self.in_flight = 0
        self._handled = {code: metrics.handled.labels(service, method, code.name) for code in grpc.StatusCode}
        self._seconds = metrics.seconds.labels(service, method)
        metrics.in_flight.labels(service, method).set_function(lambda: self.in_flight)

    def finished(self, code: grpc.StatusCode, seconds: float) -> None:
        """Count one call that ended with `code` after `seconds`."""
        self._handled[code].inc()
        self._seconds.observe(seconds)


class ServerMetrics:
    """The metrics of one server in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register the metrics; a registry takes them once."""
        labels = ("service", "method")
        self.handled = Counter("grpc_server_handled", "Calls that ended.", (*labels, "code"), registry=registry)
        self.seconds = Histogram(
            "grpc_server_handling_seconds", "How long calls took.", labels, buckets=BUCKETS, registry=registry
        )
        self.in_flight = Gauge("grpc_server_in_flight", "Calls being served now.", labels, registry=registry)
        self._methods: dict[str, MethodSeries] = {}

    def method(self, method: str) -> MethodSeries:
        """Return the series of "/package.Service/Method", made at the first use."""
        series = self._methods.get(method)
        if series is None:
            series = self._methods[method] = MethodSeries(self, *split(method))
        return series


class ClientMetrics:
    """The metrics of calls that this service makes to others."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register the metrics; a registry takes them once."""
        self._handled = Counter(
            "grpc_client_handled", "Calls made that ended.", ("service", "method", "code"), registry=registry
        )
        self._bound: dict[tuple[str, grpc.StatusCode], Counter] = {}

    def finished(self, method: str, code: grpc.StatusCode) -> None:
        """Count one call of "/package.Service/Method" that ended with `code`."""
        bound = self._bound.get((method, code))
        if bound is None:
            bound = self._bound[method, code] = self._handled.labels(*split(method), code.name)
        bound.inc()


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


class _QuietMetricsHandler(WSGIRequestHandler):
    """Answers without a line in the log for each."""

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


class MetricsServer:
    """The HTTP endpoint that Prometheus scrapes, in threads; /healthz and /readyz are for clients without gRPC."""

    def __init__(self, registry: CollectorRegistry, host: str, port: int, ready: Callable[[], bool]) -> None:
        """Listen at once; port 0 picks a free one. Raises OSError, with the address, when it cannot be listened on."""
        application = _with_health(make_wsgi_app(registry), ready)
        try:
            self._server = make_server(bare(host), port, application, _Server, _QuietMetricsHandler)
        except OSError as error:
            raise OSError(f"cannot listen on {address(host, port)}: {error.strerror or error}") from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()
        self.address = address(host, self._server.server_port)

    def close(self) -> None:
        """Stop listening and wait for the thread."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=2)


def _with_health(metrics: Any, ready: Callable[[], bool]) -> Any:
    def serve(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        path = environ["PATH_INFO"]
        if path not in (HEALTHZ, READYZ):
            return metrics(environ, start_response)
        well = path == HEALTHZ or ready()
        start_response("200 OK" if well else "503 Service Unavailable", [("Content-Type", "text/plain")])
        return [b"ok\n" if well else b"not ready\n"]

    return serve
