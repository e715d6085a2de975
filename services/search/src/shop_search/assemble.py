"""Puts the search service together, for its process and for tests."""

from functools import partial

from amends_chassis.projections.serving import ProjectionMetrics, Serving
from amends_chassis.service import Runtime

from shop.search.v1.search_pb2_grpc import add_SearchServiceServicer_to_server
from shop_search import parts
from shop_search.api import SearchService
from shop_search.settings import Settings

READY = "index"


async def assemble(settings: Settings, runtime: Runtime) -> None:
    """Put the service's parts together."""
    rebuild = parts.rebuild(settings, runtime)
    fresh = rebuild.look_at_ends()
    serving = Serving(
        runtime.database,
        rebuild,
        fresh,
        ProjectionMetrics(runtime.registry),
        partial(runtime.health.report, READY),
        settings.keep_retired,
    )
    await runtime.health.report(READY, False)
    servicer = SearchService(runtime.database, fresh)
    runtime.add(add_SearchServiceServicer_to_server, servicer, "shop.search.v1.SearchService")
    runtime.background("indexes", serving.run)
