"""Starts the catalog service: `python -m shop_catalog`."""

from functools import partial

from amends_cache import Cache
from amends_chassis.service import Runtime, run

from shop.catalog.v1.catalog_pb2_grpc import add_CatalogServiceServicer_to_server
from shop_catalog.api import ARTICLES, CatalogService
from shop_catalog.events import PUBLISHES
from shop_catalog.export import EXPORTED
from shop_catalog.settings import Settings


async def assemble(settings: Settings, runtime: Runtime) -> None:
    """Put the service's parts together."""
    url = settings.cache_url
    articles = Cache(ARTICLES, None if url is None else url.get_secret_value, registry=runtime.registry)
    runtime.background("cache", articles.run)
    outbox = runtime.publishes("/shop/catalog", *PUBLISHES)
    servicer = CatalogService(runtime.database, outbox, articles)
    runtime.add(add_CatalogServiceServicer_to_server, servicer, "shop.catalog.v1.CatalogService")
    runtime.exports(*EXPORTED)


if __name__ == "__main__":
    run(settings := Settings(), partial(assemble, settings))
