"""The parts of the service and of its command: what its indexes are, and what builds one."""

from collections.abc import Iterable

from amends_chassis.projections.exports import ExportClient
from amends_chassis.projections.parts import rebuild_with
from amends_chassis.projections.projection import ProjectionKind
from amends_chassis.projections.rebuild import Rebuild
from amends_chassis.service import Runtime

from amends.events.v1.export_pb2 import ExportedEvent
from shop_search.facts import SOURCES, TYPES, ArticleFact, fact
from shop_search.index import BATCH, LAYOUT, NAME, ArticleIndex
from shop_search.settings import Settings

INDEXES: ProjectionKind[ArticleFact] = ProjectionKind(NAME, LAYOUT, SOURCES, BATCH, ArticleIndex)
"""What the indexes of this service are."""


def rebuild(settings: Settings, runtime: Runtime) -> Rebuild[ArticleFact]:
    """Return what builds an index, with the channels and the broker of a process."""
    targets = {"catalog": settings.catalog_target, "inventory": settings.inventory_target}
    channels = {source: runtime.channel(target) for source, target in targets.items()}
    return rebuild_with(runtime, INDEXES, ExportClient(channels, exported_facts))


def exported_facts(events: Iterable[ExportedEvent]) -> list[ArticleFact]:
    """Return the facts of what a service exports; what is about no article is left out."""
    return [
        fact(event.type, event.key, event.version, TYPES[event.type].FromString(event.payload))
        for event in events
        if event.type in TYPES
    ]
