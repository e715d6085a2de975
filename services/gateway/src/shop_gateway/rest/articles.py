"""Articles: what the shop sells, and what stands in for the services that know it.

While catalog is away its articles are those that this process was told last, then the copies by which orders are
priced: these have names and prices, and nothing else, and say so. Search falls back to catalog's list.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import structlog
from amends_chassis.errors import NotFound
from starlette.responses import Response

from shop.catalog.v1 import catalog_pb2
from shop.orders.v1 import orders_pb2
from shop.search.v1 import search_pb2
from shop_gateway.conditional import picture_response
from shop_gateway.gateway import Gateway
from shop_gateway.rest.operation import Call, Operation, Parameter, Replies, RestAnswer
from shop_gateway.rest.parameters import CATEGORY, PAGE_SIZE, PAGE_TOKEN, SKU, page_link, part, this_page
from shop_gateway.rest.resource import Links, Resource, link
from shop_gateway.upstreams import CALL_ERRORS, is_away

_log = structlog.get_logger(__name__)

FALLBACK = "fallback.used"
KEPT = "public, max-age=5"
DEGRADED: dict[str, Any] = {
    "type": "boolean",
    "description": "True when the service that knows all of it is away, and something that knows less stands in.",
}
WITHIN = timedelta(milliseconds=500)
"""So long something that has a fallback may take."""

ARTICLE = Resource(
    "Article",
    catalog_pb2.Article,
    "An article. Without a price, or withdrawn, it cannot be ordered.",
    links={
        "self": "always",
        "prices": "always",
        "picture": "always",
        "category": "when it is known",
        "order": "when it can be ordered",
    },
    more={"degraded": DEGRADED},
)
ARTICLES = Resource(
    "Articles",
    catalog_pb2.ListArticlesResponse,
    "A page of articles, by name.",
    hidden=("next_page_token",),
    links={"self": "always", "next": "when there is another page", "categories": "always", "search": "always"},
    more={"degraded": DEGRADED},
    embedded={"articles": ARTICLE},
)
CATEGORIES = Resource(
    "Categories",
    catalog_pb2.ListCategoriesResponse,
    "The categories that have articles.",
    links={"self": "always", "articles": "always, with the name to fill in"},
)
PRICES = Resource(
    "Prices",
    catalog_pb2.ListPricesResponse,
    "What an article costs and has cost, the latest first.",
    links={"self": "always", "article": "always"},
)
FOUND = Resource(
    "Found",
    search_pb2.SearchResponse,
    "What was found, the best first.",
    hidden=("next_page_token",),
    links={"self": "always", "next": "when there is another page"},
    more={"degraded": DEGRADED},
)


def article_links(article: catalog_pb2.Article) -> Links:
    """Return what can be done with an article now."""
    address = f"/v1/articles/{part(article.sku)}"
    links: Links = {
        "self": link(address),
        "prices": link(f"{address}/prices"),
        "picture": link(f"{address}/picture"),
    }
    if article.category:
        links["category"] = link(f"/v1/articles?category={article.category}")
    if article.HasField("price") and not article.withdrawn:
        links["order"] = link("/v1/orders", method="POST")
    return links


def _embedded(articles: Sequence[catalog_pb2.Article], degraded: bool) -> list[dict[str, Any]]:
    return [ARTICLE.document(one, article_links(one), degraded=degraded) for one in articles]


async def _article(call: Call) -> RestAnswer:
    sku = call.parameters["sku"]
    catalog = call.gateway.upstreams.catalog
    try:
        asked = catalog_pb2.GetArticleRequest(sku=sku)
        found = (await catalog.ask(catalog.stub.GetArticle, asked, within=WITHIN)).article
        return RestAnswer(ARTICLE.document(found, article_links(found), degraded=False), keep=KEPT)
    except CALL_ERRORS as error:
        if not is_away(error):
            raise
        _log.info(FALLBACK, of="article", error=type(error).__name__)
    copies = await _copies(call.gateway, (sku,))
    if not copies:
        raise NotFound("ARTICLE_UNKNOWN", f"There is no article {sku!r}.")
    return RestAnswer(ARTICLE.document(copies[0], article_links(copies[0]), degraded=True))


async def _copies(gateway: Gateway, skus: Sequence[str] = ()) -> list[catalog_pb2.Article]:
    """Return the copies of articles that orders keeps, as articles of which only names and prices are known."""
    orders = gateway.upstreams.orders
    answer = await orders.ask(orders.stub.ListArticles, orders_pb2.ListArticlesRequest(skus=skus), within=WITHIN)
    found = []
    for copy in answer.articles:
        price = copy.price if copy.HasField("price") else None
        found.append(catalog_pb2.Article(sku=copy.sku, name=copy.name, price=price, withdrawn=copy.withdrawn))
    return found


async def _articles(call: Call) -> RestAnswer:
    parameters = call.parameters
    asked = catalog_pb2.ListArticlesRequest(
        category=parameters["category"] or "",
        page_size=parameters["pageSize"] or 0,
        page_token=parameters["pageToken"] or "",
    )
    catalog = call.gateway.upstreams.catalog
    degraded, keep = False, KEPT
    try:
        page = await catalog.ask(catalog.stub.ListArticles, asked, within=WITHIN)
    except CALL_ERRORS as error:
        if not is_away(error):
            raise
        _log.info(FALLBACK, of="articles", error=type(error).__name__)
        sold = [one for one in await _copies(call.gateway) if one.HasField("price") and not one.withdrawn]
        page, degraded, keep = catalog_pb2.ListArticlesResponse(articles=sold), True, "no-store"
    links = {"self": link(this_page(call)), "categories": link("/v1/categories"), "search": SEARCH_LINK}
    if page.next_page_token:
        links["next"] = link(page_link(call, page.next_page_token))
    return RestAnswer(
        {"articles": _embedded(page.articles, degraded), "degraded": degraded, "_links": links}, keep=keep
    )


async def _categories(call: Call) -> RestAnswer:
    catalog = call.gateway.upstreams.catalog
    answer = await catalog.ask(catalog.stub.ListCategories, catalog_pb2.ListCategoriesRequest())
    links = {"self": link("/v1/categories"), "articles": link("/v1/articles{?category}", templated=True)}
    return RestAnswer(CATEGORIES.document(answer, links), keep=KEPT)


async def _prices(call: Call) -> RestAnswer:
    sku = call.parameters["sku"]
    catalog = call.gateway.upstreams.catalog
    answer = await catalog.ask(catalog.stub.ListPrices, catalog_pb2.ListPricesRequest(sku=sku))
    address = f"/v1/articles/{part(sku)}"
    return RestAnswer(PRICES.document(answer, {"self": link(f"{address}/prices"), "article": link(address)}), keep=KEPT)


async def _picture(call: Call) -> Response:
    catalog = call.gateway.upstreams.catalog
    asked = catalog_pb2.GetPictureRequest(sku=call.parameters["sku"])
    return picture_response(call.request, (await catalog.ask(catalog.stub.GetPicture, asked)).svg)


async def _search(call: Call) -> RestAnswer:
    parameters = call.parameters
    links = {"self": link(this_page(call))}
    search = call.gateway.upstreams.search
    asked = search_pb2.SearchRequest(
        query=parameters["q"] or "",
        category=parameters["category"] or "",
        in_stock=parameters["inStock"] or False,
        page_size=parameters["pageSize"] or 0,
        page_token=parameters["pageToken"] or "",
    )
    try:
        found = await search.ask(search.stub.Search, asked, within=WITHIN)
        if found.next_page_token:
            links["next"] = link(page_link(call, found.next_page_token))
        return RestAnswer(_found(found, links, degraded=False), keep=KEPT)
    except CALL_ERRORS as error:
        if not is_away(error):
            raise
        _log.info(FALLBACK, of="search", error=type(error).__name__)
    return RestAnswer(_found(await _instead_of_search(call), links, degraded=True))


async def _instead_of_search(call: Call) -> search_pb2.SearchResponse:
    """Return the list of a category, as if it had been found: whatever the words were, nobody knows what has them."""
    catalog = call.gateway.upstreams.catalog
    asked = catalog_pb2.ListArticlesRequest(
        category=call.parameters["category"] or "", page_size=call.parameters["pageSize"] or 20
    )
    page = await catalog.ask(catalog.stub.ListArticles, asked, within=WITHIN)
    hits = [
        search_pb2.Hit(
            sku=one.sku, name=one.name, category=one.category, price=one.price if one.HasField("price") else None
        )
        for one in page.articles
    ]
    return search_pb2.SearchResponse(hits=hits, total=len(hits))


def _found(found: search_pb2.SearchResponse, links: Links, *, degraded: bool) -> dict[str, Any]:
    document = FOUND.document(found, links, degraded=degraded)
    for hit in document["hits"]:
        hit["_links"] = {"article": link(f"/v1/articles/{part(hit['sku'])}")}
    return document


SEARCH_LINK = link("/v1/search{?q,category,inStock}", templated=True)
_OF_THE_ARTICLE = {"sku": "$request.path.sku"}
_CACHED = {"ETag": "Of this representation, for `If-None-Match`."}

OPERATIONS = (
    Operation(
        "listArticles",
        "GET",
        "/v1/articles",
        "List articles",
        "shop.catalog.v1.CatalogService/ListArticles",
        _articles,
        (Replies(200, "A page of articles.", ARTICLES, _CACHED),),
        (CATEGORY, PAGE_SIZE, PAGE_TOKEN),
        secured=False,
        refusals=(404, 503, 504),
    ),
    Operation(
        "getArticle",
        "GET",
        "/v1/articles/{sku}",
        "Read an article",
        "shop.catalog.v1.CatalogService/GetArticle",
        _article,
        (
            Replies(
                200,
                "The article.",
                ARTICLE,
                _CACHED,
                {
                    "prices": {"operationId": "listPrices", "parameters": _OF_THE_ARTICLE},
                    "picture": {"operationId": "getPicture", "parameters": _OF_THE_ARTICLE},
                },
            ),
        ),
        (SKU,),
        secured=False,
        refusals=(404, 503, 504),
    ),
    Operation(
        "listPrices",
        "GET",
        "/v1/articles/{sku}/prices",
        "List the prices of an article",
        "shop.catalog.v1.CatalogService/ListPrices",
        _prices,
        (Replies(200, "The prices.", PRICES, _CACHED),),
        (SKU,),
        secured=False,
        refusals=(404, 503, 504),
    ),
    Operation(
        "getPicture",
        "GET",
        "/v1/articles/{sku}/picture",
        "Draw the picture of an article",
        "shop.catalog.v1.CatalogService/GetPicture",
        _picture,
        (Replies(200, "The picture.", headers=_CACHED, media_type="image/svg+xml"),),
        (SKU,),
        secured=False,
        refusals=(404, 503, 504),
    ),
    Operation(
        "listCategories",
        "GET",
        "/v1/categories",
        "List categories",
        "shop.catalog.v1.CatalogService/ListCategories",
        _categories,
        (Replies(200, "The categories.", CATEGORIES, _CACHED),),
        secured=False,
        refusals=(503, 504),
    ),
    Operation(
        "search",
        "GET",
        "/v1/search",
        "Find articles by words",
        "shop.search.v1.SearchService/Search",
        _search,
        (Replies(200, "What was found. While search is away: the list of articles, marked as degraded.", FOUND),),
        (
            Parameter(
                "q",
                "query",
                "What somebody typed.",
                {"type": "string", "format": "line", "maxLength": 200},
                example="tea",
            ),
            CATEGORY,
            Parameter("inStock", "query", "Only what is in stock.", {"type": "boolean"}, example=True),
            PAGE_SIZE,
            PAGE_TOKEN,
        ),
        secured=False,
        refusals=(404, 503, 504),
    ),
)
