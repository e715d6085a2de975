"""The pages that need no account: the list of articles, what a search finds, an article and its picture."""

import asyncio
from functools import partial
from typing import Final
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from shop.marketing.v1 import marketing_pb2
from shop.search.v1 import search_pb2
from shop_gateway.conditional import picture_response
from shop_gateway.pages.articles import PAGE, ArticleList, Articles, availability
from shop_gateway.pages.compose import WITHIN
from shop_gateway.pages.site import Site
from shop_gateway.pages.visit import Visit

MAX_QUERY: Final = 200


class CataloguePages:
    """The pages of articles."""

    def __init__(self, site: Site) -> None:
        """Show what the services of the site know."""
        self._site = site
        self._articles = Articles(site.upstreams)

    def routes(self) -> list[BaseRoute]:
        """Return the routes."""
        return [
            self._site.page("/", self.home),
            self._site.page("/categories/{category}", self.home),
            self._site.page("/search", self.search),
            self._site.page("/articles/{sku}", self.article),
            Route("/pictures/{sku}", self.picture, methods=["GET"]),
        ]

    async def home(self, visit: Visit) -> Response:
        """Show the articles, all or those of a category."""
        part, read = self._site.compose.part, self._articles
        category = unquote(visit.request.path_params.get("category", ""))
        listing, categories = await asyncio.gather(
            part(
                "listing",
                partial(read.listing, category, visit.asked("page")),
                instead=read.copied_listing,
                missing="The catalogue is away at the moment: pictures and categories are missing. You can order all"
                " the same.",
            ),
            part("categories", read.categories, missing="The categories are missing at the moment."),
        )
        return visit.page(
            "home.html", category=category, listing=listing.or_else(ArticleList([])), categories=categories
        )

    async def search(self, visit: Visit) -> Response:
        """Show what a search finds."""
        category, in_stock = visit.asked("category"), visit.asked("in_stock") == "yes"
        request = search_pb2.SearchRequest(
            query=visit.asked("q")[:MAX_QUERY],
            category=category,
            in_stock=in_stock,
            page_size=PAGE,
            page_token=visit.asked("page"),
        )
        found = await self._site.compose.part(
            "search",
            partial(self._articles.search, request),
            instead=partial(self._listed, category),
            missing="Search is away at the moment. Here are all articles instead"
            + (" of this category." if category else "."),
        )
        return visit.page("search.html", request=request, found=found.or_else(ArticleList([])))

    async def article(self, visit: Visit) -> Response:
        """Show an article."""
        part, read = self._site.compose.part, self._articles
        sku = unquote(visit.request.path_params["sku"])
        article, available, prices, letters = await asyncio.gather(
            part(
                "article",
                partial(read.article, sku),
                instead=partial(read.copy, sku),
                missing="The catalogue is away at the moment: picture and description are missing. You can order all"
                " the same.",
            ),
            part(
                "availability",
                partial(self._available, sku),
                missing="It is not known at the moment how many there are. You can order all the same.",
            ),
            part("prices", partial(read.prices, sku), missing="Earlier prices are missing at the moment."),
            part(
                "letters",
                partial(self._gets_letters, visit),
                missing="It is not known at the moment whether you get our letters.",
            ),
        )
        article.needed()
        return visit.page("article.html", article=article, available=available, prices=prices, letters=letters)

    async def picture(self, request: Request) -> Response:
        """Answer with the picture of an article."""
        svg = await self._articles.picture(unquote(request.path_params["sku"]))
        return picture_response(request, svg)

    async def _listed(self, category: str) -> ArticleList:
        read = self._articles
        part = self._site.compose.part
        listing = await part(
            "listing", partial(read.listing, category, ""), instead=read.copied_listing, missing="", within=WITHIN / 3
        )
        return listing.needed()

    async def _available(self, sku: str) -> str:
        return availability(await self._articles.available(sku))

    async def _gets_letters(self, visit: Visit) -> bool | None:
        """Return whether the visitor gets campaigns; None when it is not known who that is."""
        if visit.session is None:
            return None
        marketing = self._site.upstreams.marketing
        request = marketing_pb2.GetCustomerRequest(account_id=visit.session.account_id)
        found = await marketing.find(marketing.stub.GetCustomer, request, token=visit.token)
        # None: marketing has not heard of the account yet.
        return found is not None and marketing_pb2.PURPOSE_EMAIL in found.customer.agreed_to
