"""Articles and prices, which belong to the catalog service: the copies that orders are priced by, and the way there.

Assembled by `assemble.py`. Copies follow catalog's events; a price that is set through this service, as it was before
catalog owned prices, is sent there first and copied at once, so that its caller finds it in the next order.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import grpc
from amends_resilience import DeadlinePassedError
from google.protobuf.message import Message

from shop.catalog.events.v1.catalog_pb2 import ArticleChanged, ArticlePriced, ArticleWithdrawn
from shop.catalog.v1.catalog_pb2 import PutArticleRequest, SetPriceRequest
from shop.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from shop.types.v1 import types_pb2
from shop_orders import articles
from shop_orders.domain import Money, NeighbourAway

if TYPE_CHECKING:
    from amends_chassis.database import Executes
    from amends_events import CloudEvent, EventHandler

UNSORTED = "unsorted"
"""The category of articles that catalog hears of through this service alone."""


class Catalogue:
    """The owner of prices."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._catalog = CatalogServiceStub(channel)

    async def set_price(self, sku: str, price: Money) -> int:
        """Set a price, and return its version; an article that is not known is made. Raises NeighbourAway."""
        request = SetPriceRequest(sku=sku, price=types_pb2.Money(currency=price.currency, minor=price.minor))
        try:
            try:
                return int((await self._catalog.SetPrice(request)).version)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.NOT_FOUND:
                    raise
            await self._catalog.PutArticle(PutArticleRequest(sku=sku, name=sku, category=UNSORTED))
            return int((await self._catalog.SetPrice(request)).version)
        except (grpc.aio.AioRpcError, DeadlinePassedError) as error:
            raise NeighbourAway("catalog, which owns prices, cannot be reached now: try again") from error


async def _changed(connection: "Executes", event: "CloudEvent", changed: ArticleChanged) -> None:
    await articles.copy_article(connection, changed.sku, event.version, name=changed.name, withdrawn=False)


async def _withdrawn(connection: "Executes", event: "CloudEvent", withdrawn: ArticleWithdrawn) -> None:
    await articles.copy_article(connection, withdrawn.sku, event.version, name=None, withdrawn=True)


async def _priced(connection: "Executes", event: "CloudEvent", priced: ArticlePriced) -> None:
    await articles.set_price(connection, priced.sku, Money(priced.price.currency, priced.price.minor), event.version)


HANDLERS: "Mapping[type[Message], EventHandler]" = {
    ArticleChanged: _changed,
    ArticlePriced: _priced,
    ArticleWithdrawn: _withdrawn,
}
"""Which event of catalog changes the copies how."""
