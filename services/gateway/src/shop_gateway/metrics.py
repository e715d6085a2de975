"""What is counted of requests over HTTP. The chassis counts the calls behind."""

from prometheus_client import CollectorRegistry, Counter, Histogram

_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


class RequestMetrics:
    """Requests by method, route and status: a route is a template, so that nobody outside makes series."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register the series."""
        names = ("method", "route")
        self._requests = Counter("http_requests", "Requests.", (*names, "status"), registry=registry)
        self._seconds = Histogram("http_request_seconds", "Duration of requests.", names, registry=registry)

    def finished(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request; `route` is empty where none was found, status 499 where the client has gone."""
        method = method if method in _METHODS else "other"
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)
