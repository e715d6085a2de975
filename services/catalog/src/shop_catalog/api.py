"""shop.catalog.v1.CatalogService: parses requests, opens transactions, answers, and keeps articles in the cache.

Assembled by `__main__.py`. Whoever changes an article tells the cache after the commit; the version beside the value
keeps a reader that was slower from putting back what was before.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from amends_cache import Cache, OriginBusyError, Versioned
from amends_chassis.domain import IdentifierInvalidError, RefusedError
from amends_chassis.errors import DomainError, InvalidArgument, NotFound, ResourceExhausted, answers
from amends_chassis.pages import PageInvalidError, page_size, page_token, parts_of
from amends_chassis.types import Context
from google.protobuf.timestamp_pb2 import Timestamp

from shop.catalog.v1 import catalog_pb2 as pb
from shop.catalog.v1 import catalog_pb2_grpc
from shop.types.v1 import types_pb2
from shop_catalog import domain, store
from shop_catalog.domain import Article, ArticleUnknown, Description, Money
from shop_catalog.pictures import picture

if TYPE_CHECKING:
    from amends_chassis.database import Database
    from amends_events import Outbox

ARTICLES = "catalog:article:v1"
"""The prefix of articles in the cache. It grows when they are written otherwise."""

ERRORS: Mapping[type[RefusedError], type[DomainError]] = {
    IdentifierInvalidError: InvalidArgument,
    PageInvalidError: InvalidArgument,
    domain.ArticleInvalid: InvalidArgument,
    domain.PriceInvalid: InvalidArgument,
    domain.ArticleUnknown: NotFound,
}


class CatalogService(catalog_pb2_grpc.CatalogServiceServicer):
    """Keeps articles."""

    def __init__(self, database: "Database", outbox: "Outbox", articles: Cache) -> None:
        self._database = database
        self._outbox = outbox
        self._articles = articles

    async def PutArticle(self, request: pb.PutArticleRequest, context: Context) -> pb.PutArticleResponse:
        """Write an article."""
        with answers(ERRORS):
            sku = domain.sku_of(request.sku)
            told = domain.description(request.name, request.description, request.category)
            async with self._database.transaction() as transaction:
                article = await store.put(transaction, self._outbox, sku, told)
        return pb.PutArticleResponse(article=await self._changed(article))

    async def SetPrice(self, request: pb.SetPriceRequest, context: Context) -> pb.SetPriceResponse:
        """Set what an article costs."""
        with answers(ERRORS):
            sku = domain.sku_of(request.sku)
            price = domain.price(Money(request.price.currency, request.price.minor))
            async with self._database.transaction() as transaction:
                article = await store.set_price(transaction, self._outbox, sku, price)
        return pb.SetPriceResponse(version=(await self._changed(article)).version)

    async def WithdrawArticle(self, request: pb.WithdrawArticleRequest, context: Context) -> pb.WithdrawArticleResponse:
        """Take an article out of the shop."""
        with answers(ERRORS):
            sku = domain.sku_of(request.sku)
            async with self._database.transaction() as transaction:
                article = await store.withdraw(transaction, self._outbox, sku)
        await self._changed(article)
        return pb.WithdrawArticleResponse()

    async def GetArticle(self, request: pb.GetArticleRequest, context: Context) -> pb.GetArticleResponse:
        """Read an article."""
        with answers(ERRORS):
            return pb.GetArticleResponse(article=await self._article(domain.sku_of(request.sku)))

    async def ListArticles(self, request: pb.ListArticlesRequest, context: Context) -> pb.ListArticlesResponse:
        """Read a page of articles, by name."""
        with answers(ERRORS):
            category = domain.category_name(request.category) if request.category else None
            size, after = page_size(request.page_size), parts_of(request.page_token, 2)
            async with self._database.transaction() as transaction:
                found = await store.page(transaction, category, after, size + 1)
        page = found[:size]
        last = page[-1] if len(found) > size else None
        return pb.ListArticlesResponse(
            articles=[_written(article) for article in page],
            next_page_token="" if last is None else page_token(last.description.name, last.sku),
        )

    async def ListCategories(self, request: pb.ListCategoriesRequest, context: Context) -> pb.ListCategoriesResponse:
        """Read the categories."""
        async with self._database.transaction() as transaction:
            found = await store.categories(transaction)
        return pb.ListCategoriesResponse(categories=[pb.Category(name=name, articles=count) for name, count in found])

    async def ListPrices(self, request: pb.ListPricesRequest, context: Context) -> pb.ListPricesResponse:
        """Read what an article has cost."""
        with answers(ERRORS):
            sku = domain.sku_of(request.sku)
            async with self._database.transaction() as transaction:
                prices = await store.prices_of(transaction, sku)
        response = pb.ListPricesResponse()
        for one in prices:
            since = Timestamp()
            since.FromDatetime(one.since)
            response.prices.add(price=_money(one.price), since=since)
        return response

    async def GetPicture(self, request: pb.GetPictureRequest, context: Context) -> pb.GetPictureResponse:
        """Draw an article."""
        with answers(ERRORS):
            return pb.GetPictureResponse(svg=picture(_read(await self._article(domain.sku_of(request.sku)))))

    async def _article(self, sku: str) -> pb.Article:
        """Read an article through the cache. Raises ArticleUnknown, ResourceExhausted."""

        async def load() -> Versioned | None:
            try:
                async with self._database.transaction() as transaction:
                    article = await store.article_of(transaction, sku)
            except ArticleUnknown:
                return None
            return Versioned(article.version, _written(article).SerializeToString())

        try:
            data = await self._articles.get(sku, load)
        except OriginBusyError as error:
            raise ResourceExhausted("CATALOG_BUSY", "Too many read articles that are not cached.") from error
        if data is None:
            raise ArticleUnknown(f"there is no article {sku}")
        return pb.Article.FromString(data)

    async def _changed(self, article: Article) -> pb.Article:
        """Tell the cache of a change that is committed, and return the article as it is answered."""
        written = _written(article)
        await self._articles.put(article.sku, article.version, written.SerializeToString())
        return written


def _written(article: Article) -> pb.Article:
    told = article.description
    return pb.Article(
        sku=article.sku,
        name=told.name,
        description=told.text,
        category=told.category,
        price=None if article.price is None else _money(article.price),
        withdrawn=article.withdrawn,
        version=article.version,
    )


def _read(article: pb.Article) -> Article:
    price = Money(article.price.currency, article.price.minor) if article.HasField("price") else None
    told = Description(article.name, article.description, article.category)
    return Article(article.sku, told, price, article.withdrawn, article.version)


def _money(amount: Money) -> types_pb2.Money:
    return types_pb2.Money(currency=amount.currency, minor=amount.minor)
