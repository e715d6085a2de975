"""What the suite works on: articles of a shop, as facts, as events of a log, and as what services export."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from amends_testkit.log import ToldEvent
from google.protobuf.message import Message
from shop_search import domain, facts, store
from shop_search.domain import Filter
from shop_search.facts import SOURCES, ArticleFact
from shop_search.store import Found

from shop.catalog.events.v1.catalog_pb2 import ArticleChanged, ArticlePriced, ArticleWithdrawn
from shop.inventory.events.v1.inventory_pb2 import StockChanged
from shop.types.v1.types_pb2 import Money

TOPICS = list(SOURCES.values())
BEGAN = datetime(2026, 11, 28, 22, tzinfo=UTC)
EVERYTHING = Filter(None, None, 0, 2**63 - 1, False)


@dataclass(frozen=True)
class Told(ToldEvent):
    """An event of an article."""

    @property
    def fact(self) -> ArticleFact:
        return facts.fact(self.kind, self.key, self.version, self.message)


def told(message: Message, version: int) -> Told:
    return Told(message, version, BEGAN + timedelta(seconds=version))


def changed(sku: str, version: int, name: str, category: str = "tea", description: str = "") -> Told:
    return told(ArticleChanged(sku=sku, name=name, description=description, category=category), version)


def priced(sku: str, version: int, minor: int, currency: str = "EUR") -> Told:
    return told(ArticlePriced(sku=sku, price=Money(currency=currency, minor=minor)), version)


def withdrawn(sku: str, version: int) -> Told:
    return told(ArticleWithdrawn(sku=sku), version)


def stocked(sku: str, version: int, available: int) -> Told:
    return told(StockChanged(sku=sku, received=9, available=available, reserved=9 - available), version)


SOLD = (
    ("tea-assam", "Assam", "tea", "Strong and malty black tea of the Brahmaputra valley.", 690, 5),
    ("tea-assam-bags", "Assam in bags", "tea", "Fifty bags of malty black tea.", 490, 0),
    ("tea-darjeeling", "Darjeeling First Flush", "tea", "A light and flowery black tea.", 1490, 3),
    ("tea-earl-grey", "Earl Grey", "tea", "Black tea with oil of bergamot.", 790, 4),
    ("tea-sencha", "Sencha", "tea", "Green tea of Uji, steamed.", 990, 2),
    ("tea-mate", "Maté", "tea", "Roasted leaves of South America, drunk hot.", 590, 9),
    ("tea-berry", "Berry infusion", "tea", "Dried berries; there is no tea in it.", 550, 1),
    ("coffee-ethiopia", "Ethiopia Yirgacheffe", "coffee", "Flowery beans, roasted light.", 1290, 6),
    ("coffee-cafe-creme", "Café crème", "coffee", "Beans for a crema like that of Zürich.", 1190, 2),
    ("mug-blue", "Blue mug", "mugs", "Stoneware for tea or coffee; 300 ml.", 1500, 7),
    ("mug-smorrebrod", "Smørrebrød mug", "mugs", "Holds what one eats.", 1700, 0),
    ("towel-tea", "Tea towel", "mugs", "Linen.", 890, 1),
    ("teapot-iron", "Iron teapot", "mugs", "Cast iron for a litre of sencha.", 4900, 1),
)


def shop() -> list[Told]:
    """All that has been told of the articles above."""
    found = []
    for sku, name, category, description, minor, available in SOLD:
        found += [changed(sku, 1, name, category, description), priced(sku, 2, minor), stocked(sku, 1, available)]
    return found


async def look(connection: Any, query: str, only: Filter = EVERYTHING, limit: int = 50) -> Found:
    """What the index finds, as the service asks for it."""
    match = domain.match(await store.meant(connection, domain.query_words(query)))
    return await store.search(connection, match, only, None, limit)


async def skus(connection: Any, query: str) -> list[str]:
    """The articles that the index finds, the best first."""
    return [article.sku for article in (await look(connection, query)).articles]


async def rows(connection: Any, schema: str) -> dict[str, list[tuple[Any, ...]]]:
    """Everything that an index shows but its words, row by row."""
    return {
        table: [tuple(row.values()) for row in await connection.fetch(f"SELECT * FROM {schema}.{table} ORDER BY sku")]
        for table in ("article", "stock")
    }


class Kept:
    """What the services export of articles, in pages of a few."""

    def __init__(self, of: Iterable[Told] = (), size: int = 7) -> None:
        self.told = list(of)
        self._size = size
        self.pages = 0

    async def page(self, source: str, token: str) -> tuple[list[ArticleFact], str]:
        self.pages += 1
        first = int(token or 0)
        kept = [one for one in self.told if one.topic == SOURCES[source]]
        after = str(first + self._size) if first + self._size < len(kept) else ""
        return [one.fact for one in kept[first : first + self._size]], after
