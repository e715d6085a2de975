"""What pages show of articles, by whom it can be told: catalog, or the copies of orders while that is away."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from amends_chassis.errors import NotFound

from shop.catalog.v1 import catalog_pb2
from shop.inventory.v1.inventory_pb2 import GetStockRequest
from shop.orders.v1 import orders_pb2
from shop.search.v1 import search_pb2
from shop.types.v1.types_pb2 import Money
from shop_gateway.upstreams import Upstreams

PAGE = 24
FEW = 5
"""With so few pieces left a customer is told how many."""


@dataclass(frozen=True, slots=True)
class ShownArticle:
    """An article on a page. What only catalog knows is empty when another has told of it."""

    sku: str
    name: str
    price: Money | None
    withdrawn: bool = False
    description: str = ""
    category: str = ""
    has_picture: bool = False
    in_stock: bool | None = None
    """None: not said here."""


@dataclass(frozen=True, slots=True)
class ArticleList:
    """A page of a list of articles."""

    articles: Sequence[ShownArticle]
    next_page: str = ""
    found: search_pb2.SearchResponse | None = None
    """What search found beside the articles; None when another has made the list."""


@dataclass(frozen=True, slots=True)
class BasketLine:
    """An article and how many are wanted."""

    article: ShownArticle
    pieces: int

    @property
    def price(self) -> Money | None:
        """Return what all pieces cost."""
        one = self.article.price
        return None if one is None else Money(currency=one.currency, minor=one.minor * self.pieces)


class Articles:
    """Reads what pages show of articles. What its methods raise is what `Upstream.ask` raises."""

    def __init__(self, upstreams: Upstreams) -> None:
        """Ask these services."""
        self._to = upstreams

    async def article(self, sku: str) -> ShownArticle:
        """Read an article from catalog."""
        catalog = self._to.catalog
        answer = await catalog.ask(catalog.stub.GetArticle, catalog_pb2.GetArticleRequest(sku=sku))
        return _shown(answer.article)

    async def copy(self, sku: str) -> ShownArticle:
        """Read an article from orders. Raises NotFound."""
        for found in await self.copies([sku]):
            return found
        raise NotFound("ARTICLE_UNKNOWN", "There is no such article.")

    async def copies(self, skus: Sequence[str] = ()) -> list[ShownArticle]:
        """Read these articles from orders, those that are known; the first hundred when none are named."""
        orders = self._to.orders
        answer = await orders.ask(orders.stub.ListArticles, orders_pb2.ListArticlesRequest(skus=skus))
        return [
            ShownArticle(one.sku, one.name or one.sku, one.price if one.HasField("price") else None, one.withdrawn)
            for one in answer.articles
        ]

    async def each(self, skus: Sequence[str]) -> list[ShownArticle]:
        """Read these articles from catalog, those that are known."""
        catalog = self._to.catalog

        async def one(sku: str) -> ShownArticle | None:
            found = await catalog.find(catalog.stub.GetArticle, catalog_pb2.GetArticleRequest(sku=sku))
            return None if found is None else _shown(found.article)

        return [article for article in await asyncio.gather(*map(one, skus)) if article is not None]

    async def listing(self, category: str, page: str) -> ArticleList:
        """Read a page of catalog's list."""
        catalog = self._to.catalog
        request = catalog_pb2.ListArticlesRequest(category=category, page_size=PAGE, page_token=page)
        answer = await catalog.ask(catalog.stub.ListArticles, request)
        return ArticleList([_shown(article) for article in answer.articles], answer.next_page_token)

    async def copied_listing(self) -> ArticleList:
        """Read the list that orders has: of all categories, and without pictures."""
        return ArticleList([article for article in await self.copies() if not article.withdrawn])

    async def categories(self) -> Sequence[catalog_pb2.Category]:
        """Read the categories that have articles."""
        catalog = self._to.catalog
        return (await catalog.ask(catalog.stub.ListCategories, catalog_pb2.ListCategoriesRequest())).categories

    async def prices(self, sku: str) -> Sequence[catalog_pb2.Price]:
        """Read what an article has cost, the latest first."""
        catalog = self._to.catalog
        return (await catalog.ask(catalog.stub.ListPrices, catalog_pb2.ListPricesRequest(sku=sku))).prices

    async def picture(self, sku: str) -> str:
        """Read the picture of an article, as SVG."""
        catalog = self._to.catalog
        return (await catalog.ask(catalog.stub.GetPicture, catalog_pb2.GetPictureRequest(sku=sku))).svg

    async def available(self, sku: str) -> int:
        """Read how many pieces can be ordered from inventory; none of what it has never received."""
        inventory = self._to.inventory
        found = await inventory.find(inventory.stub.GetStock, GetStockRequest(sku=sku))
        return 0 if found is None else found.available

    async def short_of(self, pieces: dict[str, int]) -> dict[str, int]:
        """Return what there is too little of for so many pieces, and how much there is."""
        found = await asyncio.gather(*(self.available(sku) for sku in pieces))
        return {sku: there for sku, there in zip(pieces, found, strict=True) if there < pieces[sku]}

    async def search(self, request: search_pb2.SearchRequest) -> ArticleList:
        """Search."""
        search = self._to.search
        answer = await search.ask(search.stub.Search, request)
        hits = [
            ShownArticle(
                hit.sku,
                hit.name,
                hit.price if hit.HasField("price") else None,
                category=hit.category,
                has_picture=True,
                in_stock=hit.in_stock,
            )
            for hit in answer.hits
        ]
        return ArticleList(hits, answer.next_page_token, answer)


def availability(available: int) -> str:
    """Return how many pieces there are, in words."""
    if available <= 0:
        return "Sold out"
    return "In stock" if available > FEW else f"Only {available} left"


def total(lines: Sequence[BasketLine]) -> Money | None:
    """Return what all lines cost; None when a price is not known, or there are several currencies."""
    prices = [line.price for line in lines]
    known = [price for price in prices if price is not None]
    if not known or len(known) < len(prices) or len({price.currency for price in known}) > 1:
        return None
    return Money(currency=known[0].currency, minor=sum(price.minor for price in known))


def _shown(article: catalog_pb2.Article) -> ShownArticle:
    return ShownArticle(
        article.sku,
        article.name,
        article.price if article.HasField("price") else None,
        article.withdrawn,
        article.description,
        article.category,
        has_picture=True,
    )
