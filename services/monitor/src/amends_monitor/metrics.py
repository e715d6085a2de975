"""How many flows are open, for Prometheus. Every replica tells the same. Started by `assemble`."""

import asyncio
from datetime import timedelta

from amends_chassis.database import Database
from prometheus_client import CollectorRegistry, Gauge

from amends_monitor.definitions import Definitions
from amends_monitor.flows import FlowCounts, StoredState, count
from amends_monitor.reading import FlowReading

EVERY = timedelta(seconds=5)
OPEN = (StoredState.RUNNING, StoredState.CONTRADICTORY)


class FlowMetrics:
    """The metrics of flows in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register the metrics; a registry takes them once."""
        labels = ("namespace", "choreography")
        self.running = Gauge("flows_running", "Flows that are under way and in time.", labels, registry=registry)
        self.stuck = Gauge(
            "process_stuck",
            "Flows in which an event is overdue, or whose events exclude each other.",
            ("kind", *labels),
            registry=registry,
        )
        self.unread = Gauge("flows_unread_topics", "Topics that cannot be read.", labels, registry=registry)

    def forget(self) -> None:
        """Forget choreographies that are watched no more."""
        for gauge in (self.running, self.stuck, self.unread):
            gauge.clear()


async def report(
    database: Database, definitions: Definitions, reading: FlowReading, metrics: FlowMetrics, grace: timedelta
) -> None:
    """Tell for ever how many flows are open."""
    while True:
        await tell(database, definitions, reading, metrics, grace)
        await asyncio.sleep(EVERY.total_seconds())


async def tell(
    database: Database, definitions: Definitions, reading: FlowReading, metrics: FlowMetrics, grace: timedelta
) -> None:
    """Tell how many flows are open."""
    counts = await count(database.pool, grace, OPEN)
    metrics.forget()
    for number, watched in definitions.known.items():
        of_it = counts.get(number, FlowCounts())
        names = (watched.namespace, watched.name)
        metrics.running.labels(*names).set(of_it.running)
        metrics.unread.labels(*names).set(len(reading.unread(watched)))
        metrics.stuck.labels("late", *names).set(of_it.late)
        metrics.stuck.labels("contradictory", *names).set(of_it.contradictory)
