"""Per-method figures of the server, for Prometheus, on a port of their own.

No library gives these for grpc.aio. The interceptor holds one `MethodSeries` per method, made when the method is
registered, so that dashboards and alerts see zeros instead of nothing.
"""

from collections.abc import Callable
from typing import Any

import grpc
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_wsgi_app

from amends_chassis.web import HttpServer

HEALTHZ, READYZ = "/healthz", "/readyz"

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


class MetricsServer(HttpServer):
    """The HTTP endpoint that Prometheus scrapes; /healthz and /readyz are for clients without gRPC."""

    def __init__(self, registry: CollectorRegistry, host: str, port: int, ready: Callable[[], bool]) -> None:
        """Listen at once; port 0 picks a free one. Raises OSError, with the address, when it cannot be listened on."""
        super().__init__("metrics", _with_health(make_wsgi_app(registry), ready), host, port)


def _with_health(metrics: Any, ready: Callable[[], bool]) -> Any:
    def serve(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        path = environ["PATH_INFO"]
        if path not in (HEALTHZ, READYZ):
            return metrics(environ, start_response)
        well = path == HEALTHZ or ready()
        start_response("200 OK" if well else "503 Service Unavailable", [("Content-Type", "text/plain")])
        return [b"ok\n" if well else b"not ready\n"]

    return serve
