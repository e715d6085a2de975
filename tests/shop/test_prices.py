"""Prices move from orders to catalog: old clients are served until the last step, and orders never notice."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import grpc
import pytest
import pytest_asyncio
import shop_catalog.__main__ as catalog_service
from amends_chassis.service import running
from amends_embedded import Nats
from amends_testkit.service import refusal_of
from amends_testkit.waiting import eventually
from pydantic import SecretStr
from shop_catalog.settings import Settings as CatalogSettings
from shop_orders.assemble import assemble as assemble_orders
from shop_orders.settings import Settings as OrdersSettings

from shop.catalog.v1 import catalog_pb2
from shop.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from shop.orders.v1 import orders_pb2
from shop.orders.v1.orders_pb2_grpc import OrderServiceStub
from shop.types.v1.types_pb2 import Money

NOBODY = "127.0.0.1:1"
MakeDatabase = Callable[[], Awaitable[str]]


@pytest_asyncio.fixture(loop_scope="session")
async def catalog(make_database: MakeDatabase, nats: Nats) -> AsyncIterator[Any]:
    """The address of a catalog, and its stub."""
    settings = CatalogSettings(database_url=SecretStr(await make_database()), broker=SecretStr(nats.url))
    async with running(settings, partial(catalog_service.assemble, settings)) as runtime:
        yield runtime.address, CatalogServiceStub(runtime.channel(runtime.address))


@pytest_asyncio.fixture(loop_scope="session")
async def orders_with(database_url: str, nats: Nats) -> AsyncIterator[Callable[..., Awaitable[Any]]]:
    """Starts orders over one database, each time with other settings; the one before ends."""
    async with AsyncExitStack() as stack:

        async def start(**settings: Any) -> Any:
            await stack.aclose()
            told = OrdersSettings(
                database_url=SecretStr(database_url),
                broker=SecretStr(nats.url),
                orchestrator_target=NOBODY,
                inventory_target=NOBODY,
                **settings,
            )
            runtime = await stack.enter_async_context(running(told, partial(assemble_orders, told)))
            return OrderServiceStub(runtime.channel(runtime.address))

        yield start


def price(minor: int, sku: str = "tea") -> Any:
    return orders_pb2.SetPriceRequest(sku=sku, price=Money(currency="EUR", minor=minor))


async def copied(orders: Any, sku: str = "tea") -> int:
    found = (await orders.ListArticles(orders_pb2.ListArticlesRequest(skus=[sku]))).articles
    return int(found[0].price.minor) if found else 0


async def test_prices_move_to_their_owner_while_both_kinds_of_clients_set_them(catalog, orders_with):
    address, articles = catalog
    orders = await orders_with()  # before: orders owns prices
    await orders.SetPrice(price(400))
    assert await copied(orders) == 400

    orders = await orders_with(catalog_target=address)  # expanded: the old way leads to the new owner
    assert await copied(orders) == 400, "nothing is lost on the way"
    await orders.SetPrice(price(410))
    assert await copied(orders) == 410, "its caller finds it at once"
    found = (await articles.GetArticle(catalog_pb2.GetArticleRequest(sku="tea"))).article
    assert (found.price.minor, found.name, found.category) == (410, "tea", "unsorted")
    await articles.SetPrice(catalog_pb2.SetPriceRequest(sku="tea", price=Money(currency="EUR", minor=420)))

    async def followed() -> bool:
        return await copied(orders) == 420

    assert await eventually(followed, what="the event of the new price")

    orders = await orders_with(catalog_target=address, serves_set_price=False)  # contracted
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await orders.SetPrice(price(430))
    assert refusal_of(caught.value) == ("FAILED_PRECONDITION", "PRICE_MOVED")
    assert await copied(orders) == 420


async def test_while_catalog_is_away_a_price_is_not_set_and_copies_are_still_read(catalog, orders_with):
    address, _ = catalog
    orders = await orders_with(catalog_target=address)
    await orders.SetPrice(price(410, "cup"))
    orders = await orders_with(catalog_target=NOBODY)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await orders.SetPrice(price(500, "cup"), timeout=3)
    assert refusal_of(caught.value)[0] in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
    assert await copied(orders, "cup") == 410
