"""The parts of the service: what its projections are, and what builds one."""

from collections.abc import Iterable
from datetime import UTC

from amends_chassis.projections.exports import ExportClient
from amends_chassis.projections.parts import rebuild_with
from amends_chassis.projections.projection import ProjectionKind
from amends_chassis.projections.rebuild import Rebuild
from amends_chassis.service import Runtime

from amends.events.v1.export_pb2 import ExportedEvent
from shop_reporting.facts import SOURCES, TYPES, Fact, fact
from shop_reporting.projection import BATCH, LAYOUT, NAME, CountGaps, OrderProjection
from shop_reporting.settings import Settings


def kind(count_gaps: CountGaps) -> ProjectionKind[Fact]:
    """Return what the projections of reporting are. `count_gaps` is told of the gaps that are found."""
    return ProjectionKind(
        NAME,
        LAYOUT,
        {source.name: source.topic for source in SOURCES},
        BATCH,
        lambda version: OrderProjection(version, count_gaps),
    )


def rebuild(settings: Settings, runtime: Runtime, count_gaps: CountGaps) -> Rebuild[Fact]:
    """Return what builds a projection, with the channels and the broker of a process."""
    targets = {
        "orders": settings.orders_target,
        "inventory": settings.inventory_target,
        "payments": settings.payments_target,
        "shipping": settings.shipping_target,
    }
    channels = {source: runtime.channel(target) for source, target in targets.items()}
    return rebuild_with(runtime, kind(count_gaps), ExportClient(channels, exported_facts))


def exported_facts(events: Iterable[ExportedEvent]) -> list[Fact]:
    """Return the facts of what a service exports; what is about no order is left out."""
    return [
        fact(
            event.type,
            event.key,
            event.version,
            event.occurred_at.ToDatetime(UTC),
            TYPES[event.type].FromString(event.payload),
        )
        for event in events
        if event.type in TYPES
    ]
