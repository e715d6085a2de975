"""The operator's figures for Prometheus. Served by `health`."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge

from amends_operator.kube.objects import ResourceKind


class Metrics:
    """The metrics of one operator in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Make every series, at zero."""
        self._reconciled = Counter(
            "amends_operator_reconciled", "Looks at an object that ended.", ("kind", "outcome"), registry=registry
        )
        self._writes = Counter(
            "amends_operator_api_writes",
            "Writes to the API server, by HTTP status.",
            ("verb", "status"),
            registry=registry,
        )
        self._objects = Gauge("amends_operator_objects", "Objects that are known.", ("kind",), registry=registry)
        self._queue = Gauge("amends_operator_queue", "Objects that wait for a look.", ("kind",), registry=registry)
        self._silence = Gauge(
            "amends_operator_watch_silence_seconds",
            "Since when the quietest watch has not answered.",
            registry=registry,
        )
        self.orphans = Gauge(
            "amends_operator_orphaned_runs", "Open runs of SagaRuns that do not exist any more.", registry=registry
        )
        self.active = Gauge(
            "amends_operator_active", "1 while this instance works, 0 while another one does.", registry=registry
        )
        for kind in ResourceKind:
            for outcome in ("done", "again"):
                self._reconciled.labels(kind.value, outcome)

    def observer(self, kind: ResourceKind) -> Callable[[bool], None]:
        """Return what a work queue calls after each look."""
        done, again = (self._reconciled.labels(kind.value, outcome) for outcome in ("done", "again"))
        return lambda ok: (done if ok else again).inc()

    def wrote(self, verb: str, status: int) -> None:
        """Count a write to the API server."""
        self._writes.labels(verb, str(status)).inc()

    def watch(
        self, kind: ResourceKind, known: Callable[[], float], waiting: Callable[[], float], silence: Callable[[], float]
    ) -> None:
        """Register functions that read figures when they are scraped."""
        self._objects.labels(kind.value).set_function(known)
        self._queue.labels(kind.value).set_function(waiting)
        self._silence.set_function(silence)
