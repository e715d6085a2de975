"""A page of the shop that is composed of four parts, beside the slowest of these parts alone.

The page of an article, as somebody who has signed in gets it: the article and its earlier prices from catalog, how many
there are from inventory, the letters from marketing. The parts are asked at once, so the page should take little more
than the slowest; what it takes more is HTTP, the session, the template, and that four calls share the gateway's
processor. Each service is 20 ms away, as one is that has something to do or is elsewhere: wires between delay what it
answers. Without them the calls take so little that the processor decides, which is shown beside it. Called by `table`.
"""

import asyncio
import re
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
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

SERVICES = ("catalog", "identity", "inventory", "marketing")
DELAY = timedelta(milliseconds=20)
SKU = "tea-assam"
PAGE = f"/articles/{SKU}"
PERSON = {"email_address": "ada@example.com", "password": "correct horse battery", "name": "Ada"}
WHOLE = ("Assam", "In stock", "This is its first price", "Hear from us when there is an offer")
"""What the page says when each of its parts is there."""
UNLIMITED = {"AMENDS_RATE_PER_ADDRESS": "1000000", "AMENDS_RATE_PER_ACCOUNT": "1000000"}
_HIDDEN = re.compile(r'<input type="hidden" name="([^"]*)" value="([^"]*)">')

PartCall = Callable[[], Awaitable[object]]


async def page_of_parts(options: SuiteOptions, progress: Progress) -> list[Comparison]:
    """Measure how long a page of four parts takes, against its slowest part."""
    found = []
    async with _stack() as stack:
        for name, delay, target in (("page-of-parts", DELAY, 1.5), ("page-of-parts at hand", timedelta(), None)):
            comparison = Comparison(
                name, "the page of four parts", "the slowest part", "ms, p50", target, True, key="p50"
            )
            async with _shop(stack, delay, options.duration.total_seconds()) as shop:
                await shop.page()
                found.append(await alternate(comparison, shop.page, shop.slowest_part, options.rounds, progress))
    return found


@dataclass(slots=True)
class _Shop:
    seconds: float
    visitor: aiohttp.ClientSession
    parts: dict[str, PartCall]

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
        """Sign up by the form, so that the page is a person's. Who has signed up is signed in."""
        async with self.visitor.get("/sign-up") as page:
            fields = {unescape(name): unescape(value) for name, value in _HIDDEN.findall(await page.text())}
        async with self.visitor.post("/sign-up", data=fields | PERSON) as answer:
            answer.raise_for_status()


async def _p50(call: PartCall, seconds: float) -> Mapping[str, Any]:
    """Call one after the other for a time."""
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        await call()
        taken.append((time.perf_counter() - began) * 1_000)
    return {"p50": statistics.median(taken), "calls": len(taken)}


@asynccontextmanager
async def _stack() -> AsyncIterator[Stack]:
    """Run the services of the shop."""
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        place = ShopFolder(Path(folder))
        with place.held():
            async with running(place, whole=True) as stack:
                async with visiting(stack) as shop:
                    await describe_articles(stack.address("catalog"))
                    await shop.stock_up()
                yield stack


@asynccontextmanager
async def _shop(stack: Stack, delay: timedelta, seconds: float) -> AsyncIterator[_Shop]:
    """Let the services be so far away from the gateway, and from who calls them alone; yield somebody signed in."""
    async with AsyncExitStack() as wires:
        where = {name: await wires.enter_async_context(_wire(stack.address(name), delay)) for name in SERVICES}
        told = {f"AMENDS_{name.upper()}_TARGET": address for name, address in where.items()}
        await stack.child(GATEWAY).terminate()
        del stack.reports[GATEWAY]  # it takes other ports: somebody may have taken those that it had
        await stack.start_one(GATEWAY, UNLIMITED | told)
        jar = aiohttp.CookieJar(unsafe=True)  # cookies of an address, not of a name
        visitor = await wires.enter_async_context(aiohttp.ClientSession(stack.shop, cookie_jar=jar))
        shop = _Shop(seconds, visitor, {})
        await shop.sign_up()
        shop.parts = await wires.enter_async_context(_calls(where))
        yield shop


@asynccontextmanager
async def _wire(target: str, delay: timedelta) -> AsyncIterator[str]:
    """Pass connections on to HOST:PORT, and what comes back after a delay; yield the address to connect to."""
    host, _, port = target.rpartition(":")
    ends: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(host, int(port))
        for end in (_passed(reader, back, timedelta()), _passed(there, writer, delay)):
            ends.add(asyncio.create_task(end))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for end in ends:
            end.cancel()
        await asyncio.gather(*ends, return_exceptions=True)


async def _passed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: timedelta) -> None:
    """Write what is read, each piece a time after it came."""
    clock = asyncio.get_running_loop().time
    pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def write() -> None:
        while (piece := await pieces.get())[1]:
            await asyncio.sleep(piece[0] - clock())
            writer.write(piece[1])
        writer.close()

    async with asyncio.TaskGroup() as group:
        group.create_task(write())
        piece = b"begun"
        while piece:
            piece = await reader.read(65_536)
            pieces.put_nowait((clock() + delay.total_seconds(), piece))


@asynccontextmanager
async def _calls(where: Mapping[str, str]) -> AsyncIterator[dict[str, PartCall]]:
    """Yield the calls that the page makes, each by itself."""
    async with (
        dial(where["catalog"]) as catalog,
        dial(where["identity"]) as identity,
        dial(where["inventory"]) as inventory,
        dial(where["marketing"]) as marketing,
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
