"""The stories at the shop's front door: what customers notice of it when a service is dead, or is built anew.

They speak HTTP to the gateway, as a browser or a program does. Called by `stories`.
"""

import asyncio
import json
import os
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from html import unescape
from typing import Any

from amends_chassis.dial import dial

from amends_demo.shop import CALL
from amends_demo.stack import SEARCH, Stack
from amends_demo.telling import Telling
from shop.search.v1 import search_pb2
from shop.search.v1.search_pb2_grpc import SearchServiceStub

WHO = {"emailAddress": "joan@example.net", "password": "another password of one's own"}
ORDER = {
    "lines": [{"sku": "tea-assam", "quantity": 1}],
    "cardToken": "tok_visa",
    "address": {
        "recipient": "Joan Clarke",
        "street": "Rosenweg 3",
        "city": "Berlin",
        "postalCode": "10115",
        "country": "DE",
    },
}
KEY = {"Idempotency-Key": "tea-for-joan", "Prefer": "wait=8"}
SEARCHERS = 4
"""Those that search while the index is built anew."""
PAUSE = timedelta(milliseconds=30)
"""Between two searches of one of them."""
_MISSING = re.compile(r'<p class="missing" role="status">(.*?)</p>')


@dataclass(frozen=True, slots=True)
class _FrontDoorAnswer:
    status: int
    text: str

    @property
    def document(self) -> dict[str, Any]:
        """Return what is in it as JSON."""
        found: dict[str, Any] = json.loads(self.text)
        return found


async def an_order_without_the_catalogue(stack: Stack, telling: Telling) -> None:
    """Tell how a customer orders over HTTP while the catalogue is dead."""
    telling.title("A customer orders while the catalogue is dead", "over HTTP; kill -9 of catalog before it")
    stack.child("catalog").kill()
    page = await _ask(stack, "GET", "/articles/tea-assam")
    missing = [unescape(sentence) for sentence in _MISSING.findall(page.text)]
    for sentence in missing:
        telling.say(f"  the page says: {sentence}")
    telling.claim(
        "the page of the article is there, with its price, and says what is missing",
        page.status == 200 and "EUR" in page.text and bool(missing),
        (page.status, missing),
    )
    await _ask(stack, "POST", "/v1/accounts", WHO)
    session = await _ask(stack, "POST", "/v1/sessions", WHO)
    shown = {"Authorization": f"Bearer {session.document['accessToken']}"}
    placed = await _ask(stack, "POST", "/v1/orders", ORDER, shown | KEY)
    telling.say(f"  POST /v1/orders answers {placed.status}: {placed.document.get('state', placed.text)}")
    telling.claim(
        "the order is CONFIRMED",
        (placed.status, placed.document.get("state")) == (201, "ORDER_STATE_CONFIRMED"),
        placed.text,
    )
    again = await _ask(stack, "POST", "/v1/orders", ORDER, shown | KEY)
    listed = await _ask(stack, "GET", "/v1/orders", headers=shown)
    orders = [order["orderId"] for order in listed.document["orders"]]
    telling.claim(
        "the same request once more is the same order",
        orders == [placed.document["orderId"]] == [again.document.get("orderId")],
        orders,
    )
    await stack.start_one("catalog")


async def search_is_built_anew(stack: Stack, telling: Telling) -> None:
    """Tell how the index of search is replaced while people search."""
    telling.title("Search is built anew under load", f"{SEARCHERS} people search, again and again")
    done = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        searching = [group.create_task(_search(stack, done)) for _ in range(SEARCHERS)]
        code, output = await _rebuild(stack)
        done.set()
    telling.say("  $ python -m shop_search rebuild")
    for line in output.splitlines():
        telling.say(f"  {line}")
    answers = [found for task in searching for found in task.result()]
    wrong = [found for found in answers if "tea-assam" not in found]
    telling.claim("the index was built from the events, and serves", code == 0, code)
    telling.claim(f"{len(answers)} searches meanwhile all found the tea", bool(answers) and not wrong, wrong[:5])


async def _search(stack: Stack, done: asyncio.Event) -> list[list[str]]:
    """Search until it is done, at least once; return what each search found."""
    found: list[list[str]] = []
    async with dial(stack.address(SEARCH), certificates=stack.certificates) as channel:
        search: Any = SearchServiceStub(channel)
        while not done.is_set() or not found:
            answer: search_pb2.SearchResponse = await search.Search(
                search_pb2.SearchRequest(query="asam"),
                timeout=CALL,  # mistyped
            )
            found.append([hit.sku for hit in answer.hits])
            await asyncio.sleep(PAUSE.total_seconds())
    return found


async def _rebuild(stack: Stack) -> tuple[int, str]:
    """Build the index anew, as a person does; return the exit code and what was printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "shop_search", "rebuild"),
        env=os.environ | stack.environment(SEARCH),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode(errors="replace")


async def _ask(
    stack: Stack, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
) -> _FrontDoorAnswer:
    """Send a request to the gateway."""
    sent = None if body is None else json.dumps(body).encode()
    told = {"Content-Type": "application/json", **(headers or {})}
    request = urllib.request.Request(stack.shop + path, sent, told, method=method)  # noqa: S310 # of this machine

    def answer() -> _FrontDoorAnswer:
        try:
            with urllib.request.urlopen(request, timeout=CALL) as response:  # noqa: S310
                return _FrontDoorAnswer(response.status, response.read().decode())
        except urllib.error.HTTPError as refused:
            return _FrontDoorAnswer(refused.code, refused.read().decode())

    return await asyncio.to_thread(answer)
