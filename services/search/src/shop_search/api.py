"""shop.search.v1.SearchService: parses requests, reads one moment of the index, answers with as of when that is.

Assembled by `assemble.py`. It asks no other service: what it answers with was told by events.
"""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from amends_chassis.database import Database
from amends_chassis.domain import RefusedError
from amends_chassis.errors import DomainError, InvalidArgument, answers
from amends_chassis.pages import PageInvalidError, never_given_out, page_size, page_token, parts_of
from amends_chassis.projections.freshness import Freshness
from amends_chassis.types import Context
from google.protobuf.timestamp_pb2 import Timestamp

from shop.search.v1 import search_pb2 as pb
from shop.search.v1 import search_pb2_grpc
from shop.types.v1 import types_pb2
from shop_search import domain, store
from shop_search.index import NAME
from shop_search.store import FoundArticle, PageKey

if TYPE_CHECKING:
    from amends_chassis.database import Connection

DEFAULT_PAGE, DEFAULT_SUGGESTIONS, MAX_SUGGESTIONS = 20, 8, 20
ERRORS: Mapping[type[RefusedError], type[DomainError]] = {
    PageInvalidError: InvalidArgument,
    domain.FilterInvalid: InvalidArgument,
}


class SearchService(search_pb2_grpc.SearchServiceServicer):
    """Finds articles."""

    def __init__(self, database: Database, fresh: Freshness) -> None:
        self._database = database
        self._fresh = fresh

    async def Search(self, request: pb.SearchRequest, context: Context) -> pb.SearchResponse:
        """Find a page of articles."""
        with answers(ERRORS):
            size, after = page_size(request.page_size, default=DEFAULT_PAGE), _page_key(request.page_token)
            price = request.price
            bounds = (price.minimum_minor, price.maximum_minor)
            only = domain.filter_of(request.category, price.currency, bounds, request.in_stock)
            async with self._moment() as (transaction, as_of):
                meant = await store.meant(transaction, domain.query_words(request.query))
                match = domain.match(meant)
                found = await store.search(transaction, match, only, after, size + 1)
        page = found.articles[:size]
        return pb.SearchResponse(
            hits=[_hit(article) for article in page],
            next_page_token=_token(page[-1]) if len(found.articles) > size else "",
            total=found.total,
            categories=[pb.CategoryCount(category=name, articles=count) for name, count in found.categories],
            in_stock=found.stock.get(True, 0),
            out_of_stock=found.stock.get(False, 0),
            corrected_query=match.corrected,
            as_of=as_of,
        )

    async def Suggest(self, request: pb.SuggestRequest, context: Context) -> pb.SuggestResponse:
        """Complete what somebody is typing."""
        with answers(ERRORS):
            size = page_size(request.page_size, default=DEFAULT_SUGGESTIONS, largest=MAX_SUGGESTIONS)
        words = domain.query_words(request.prefix)
        if not words:
            return pb.SuggestResponse()
        async with self._moment() as (transaction, _):
            match = domain.match(await store.meant(transaction, words), weights="A")
            found = await store.suggest(transaction, match, size)
        return pb.SuggestResponse(suggestions=[pb.Suggestion(text=name, sku=sku) for name, sku in found])

    def _moment(self) -> AbstractAsyncContextManager[tuple["Connection", Timestamp | None]]:
        return self._fresh.moment(self._database, NAME, "index")


def _hit(article: FoundArticle) -> pb.Hit:
    return pb.Hit(
        sku=article.sku,
        name=article.name,
        category=article.category,
        price=None
        if article.currency is None or article.minor is None
        else types_pb2.Money(currency=article.currency, minor=article.minor),
        in_stock=article.in_stock,
    )


def _token(last: FoundArticle) -> str:
    return page_token(repr(last.place), last.name, last.sku)


def _page_key(token: str) -> PageKey | None:
    """Read a token of `_token`; None for an empty one. Raises PageInvalidError."""
    key = parts_of(token, 3)
    if key is None:
        return None
    try:
        return float(key[0]), key[1], key[2]
    except ValueError as error:
        raise never_given_out() from error
