"""A page of the shop that is composed of four parts, beside the slowest of these parts alone.

The page of an article, as somebody who has signed in gets it: the article and its earlier prices from catalog, how many
there are from inventory, the letters from marketing. The parts are asked at once, so the page should take little more
than the slowest; what it takes more is HTTP, the session, the template, and that four calls share the gateway's
processor. Called by `table`.
"""

import re
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from html import unescape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
from amends_chassis.dial import dial
from amends_demo.place import ShopFolder
from amends_demo.shop import describe_articles, visiting
from amends_demo.stack import GATEWAY, Stack, running
from rich.progress import Progress

from amends_bench.suite import Comparison, SuiteOptions, alternate
from amends_bench.verify import WrongTotalsError
from shop.catalog.v1 import catalog_pb2, catalog_pb2_grpc
from shop.identity.v1 import identity_pb2, identity_pb2_grpc
from shop.inventory.v1 import inventory_pb2, inventory_pb2_grpc
from shop.marketing.v1 import marketing_pb2, marketing_pb2_grpc

SKU = "tea-assam"
PAGE = f"/articles/{SKU}"
PERSON = {"email_address": "ada@example.com", "password": "correct horse battery", "name": "Ada"}
WHOLE = ("Assam", "In stock", "This is its first price", "Hear from us when there is an offer")
"""What the page says when each of its parts is there."""
UNLIMITED = {"AMENDS_RATE_PER_ADDRESS": "1000000", "AMENDS_RATE_PER_ACCOUNT": "1000000"}
_HIDDEN = re.compile(r'<input type="hidden" name="([^"]*)" value="([^"]*)">')

Call = Callable[[], Awaitable[object]]


async def page_of_parts(options: SuiteOptions, progress: Progress) -> list[Comparison]:
    """Measure how long a page of four parts takes, against its slowest part."""
    found = Comparison(
        "page-of-parts", "the page of four parts", "the slowest part", "ms, p50", 1.5, at_most=True, key="p50"
    )
    async with _shop(options.duration.total_seconds()) as shop:
        await shop.page()
        await alternate(found, shop.page, shop.slowest_part, options.rounds, progress)
    return [found]


@dataclass(slots=True)
class _Shop:
    visitor: aiohttp.ClientSession
    seconds: float
    parts: dict[str, Call] = field(default_factory=dict)

    async def page(self) -> Mapping[str, Any]:
        """Get the page again and again. Raises WrongTotalsError when a part is missing."""
        return await _p50(self._page, self.seconds)

    async def slowest_part(self) -> Mapping[str, Any]:
        """Make each call alone, again and again; the figures of the one that takes longest."""
        each = self.seconds / len(self.parts)
        found = [{"part": name, **await _p50(call, each)} for name, call in self.parts.items()]
        return max(found, key=lambda one: float(one["p50"]))

    async def _page(self) -> None:
        async with self.visitor.get(PAGE) as answer:
            text = await answer.text()
        if 'class="missing"' in text or not all(sentence in text for sentence in WHOLE):
            raise WrongTotalsError("the page of the article is not whole")

    async def sign_up(self) -> None:
        """Sign up by the form, so that the page is a person's."""
        async with self.visitor.get("/sign-up") as page:
            fields = {unescape(name): unescape(value) for name, value in _HIDDEN.findall(await page.text())}
        async with self.visitor.post("/sign-up", data=fields | PERSON) as answer:
            answer.raise_for_status()


async def _p50(call: Call, seconds: float) -> Mapping[str, Any]:
    """Call one after the other for a time."""
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        await call()
        taken.append((time.perf_counter() - began) * 1_000)
    return {"p50": statistics.median(taken), "calls": len(taken)}


@asynccontextmanager
async def _shop(seconds: float) -> AsyncIterator[_Shop]:
    """Run the shop, and yield somebody who has signed in to it."""
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        place = ShopFolder(Path(folder))
        with place.held():
            async with running(place, whole=True) as stack:
                async with visiting(stack) as shop:
                    await describe_articles(stack.address("catalog"))
                    await shop.stock_up()
                await stack.child(GATEWAY).terminate()
                await stack.start_one(GATEWAY, UNLIMITED)
                jar = aiohttp.CookieJar(unsafe=True)  # cookies of an address, not of a name
                async with aiohttp.ClientSession(stack.shop, cookie_jar=jar) as visitor:
                    made = _Shop(visitor, seconds)
                    await made.sign_up()
                    async with _calls(stack) as made.parts:
                        yield made


@asynccontextmanager
async def _calls(stack: Stack) -> AsyncIterator[dict[str, Call]]:
    """Yield the calls that the page makes, each by itself."""
    async with (
        dial(stack.address("catalog")) as catalog,
        dial(stack.address("identity")) as identity,
        dial(stack.address("inventory")) as inventory,
        dial(stack.address("marketing")) as marketing,
    ):
        signing: Any = identity_pb2_grpc.IdentityServiceStub(identity)
        known = identity_pb2.SignInRequest(email_address=PERSON["email_address"], password=PERSON["password"])
        tokens = (await signing.SignIn(known)).tokens
        bearer = (("authorization", f"Bearer {tokens.access_token}"),)
        articles: Any = catalog_pb2_grpc.CatalogServiceStub(catalog)
        stock: Any = inventory_pb2_grpc.InventoryServiceStub(inventory)
        letters: Any = marketing_pb2_grpc.MarketingServiceStub(marketing)
        customer = marketing_pb2.GetCustomerRequest(account_id=tokens.account_id)

        async def ask(method: Any, request: Any) -> None:
            await method(request, metadata=bearer, timeout=5)

        yield {
            "article": lambda: ask(articles.GetArticle, catalog_pb2.GetArticleRequest(sku=SKU)),
            "availability": lambda: ask(stock.GetStock, inventory_pb2.GetStockRequest(sku=SKU)),
            "prices": lambda: ask(articles.ListPrices, catalog_pb2.ListPricesRequest(sku=SKU)),
            "letters": lambda: ask(letters.GetCustomer, customer),
        }
