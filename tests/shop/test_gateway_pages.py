"""The pages of the shop over HTTP: what a browser is told, which forms are taken, and what a page is without a part."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial
from html import unescape
from typing import Any

import httpx
import pytest
import pytest_asyncio
from amends_chassis.service import running
from pydantic import SecretStr
from shop_identity.assemble import assemble as assemble_identity
from shop_identity.settings import Settings as IdentitySettings

from .front import NOBODY, PASSWORD, Front, gateway

ADDRESS: dict[str, Any] = {
    "recipient": "Ada",
    "street": "Rosenweg 3",
    "city": "Berlin",
    "postal_code": "10115",
    "country": "de",
}
PAGES = ("/", "/categories/tea", "/search?q=mug", "/articles/mug", "/basket", "/sign-in", "/sign-up")
OF_A_PERSON = ("/orders", "/account", "/checkout", "/orders/x", "/orders/x/progress", "/account/close")


class Visitor:
    """A browser without script: it keeps cookies and sends the forms that pages have."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.origin = str(client.base_url).rstrip("/")

    async def get(self, path: str) -> httpx.Response:
        return await self.client.get(path, follow_redirects=True)

    async def send(self, page: str, action: str, follow: bool = True, **fields: str) -> httpx.Response:
        """Send a form of a page, with its hidden fields and those that are typed."""
        return await self.post(action, hidden(await self.get(page), action) | fields, follow=follow)

    async def post(self, action: str, fields: dict[str, str], *, follow: bool = True, **headers: str) -> httpx.Response:
        sent = {"origin": self.origin} | {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.post(action, data=fields, headers=sent, follow_redirects=follow)

    async def sign_up(self, address: str) -> httpx.Response:
        return await self.send("/sign-up", "/sign-up", name="Ada", email_address=address, password=PASSWORD)

    async def checkout(self) -> dict[str, str]:
        """The fields of the check-out for one mug, filled in."""
        await self.send("/articles/mug", "/basket", pieces="1")
        return hidden(await self.get("/checkout"), "/checkout") | ADDRESS | {"card_token": "tok_visa"}


def hidden(page: httpx.Response, action: str) -> dict[str, str]:
    """The hidden fields of the first form of a page with an action."""
    form = re.search(rf'<form action="{re.escape(action)}".*?</form>', page.text, re.DOTALL)
    assert form, page.text
    return {unescape(name): unescape(value) for name, value in HIDDEN.findall(form[0])}


HIDDEN = re.compile(r'<input type="hidden" name="([^"]*)" value="([^"]*)">')


@pytest_asyncio.fixture(loop_scope="session")
async def visitor(client: httpx.AsyncClient) -> AsyncIterator[Visitor]:
    """Somebody who comes for the first time."""
    async with httpx.AsyncClient(base_url=client.base_url, timeout=20) as own:
        yield Visitor(own)


@pytest.fixture
def address(request: pytest.FixtureRequest) -> str:
    """An e-mail address of the test alone."""
    return f"{abs(hash(request.node.nodeid))}@example.com"


async def test_every_page_forbids_what_is_not_its_own(visitor: Visitor) -> None:
    for path in (*PAGES, "/nowhere"):
        page = await visitor.get(path)
        assert page.status_code == (404 if path == "/nowhere" else 200), path
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert page.headers["cache-control"] == "no-store"
        assert page.headers["x-content-type-options"] == "nosniff"
        assert page.headers["referrer-policy"] == "same-origin"
        assert not re.search(r"<script(?![^>]* src=)|<style| style=| on[a-z]+=|https?://", page.text), path


async def test_pages_of_a_person_lead_to_the_form_to_sign_in(visitor: Visitor) -> None:
    for path in OF_A_PERSON:
        answer = await visitor.client.get(path)
        assert (answer.status_code, answer.headers["location"].partition("?")[0]) == (303, "/sign-in"), path


async def test_an_address_says_what_can_be_done_there(visitor: Visitor) -> None:
    for path, methods in (("/basket", "GET HEAD POST"), ("/orders", "GET HEAD"), ("/sign-out", "POST")):
        answer = await visitor.client.delete(path)
        assert (answer.status_code, sorted(answer.headers["allow"].split(", "))) == (405, methods.split())


async def test_static_files_are_kept_for_good_under_an_address_that_changes_with_them(visitor: Visitor) -> None:
    [style] = re.findall(r'href="(/static/[^"]+\.css)"', (await visitor.get("/")).text)
    answer = await visitor.get(style)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/css; charset=utf-8")
    assert "immutable" in answer.headers["cache-control"]
    for other in ("/static/000000000000/shop.css", "/static/x/..%2f__init__.py", "/static/x/nothing"):
        assert (await visitor.get(other)).status_code == 404


async def test_a_picture_cannot_do_anything_and_is_not_sent_twice(visitor: Visitor) -> None:
    picture = await visitor.get("/pictures/tea%2Fassam")
    assert picture.headers["content-type"].startswith("image/svg+xml")
    assert "sandbox" in picture.headers["content-security-policy"]
    again = await visitor.client.get("/pictures/tea%2Fassam", headers={"if-none-match": picture.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


async def test_what_is_typed_is_shown_as_text(visitor: Visitor) -> None:
    page = await visitor.get("/search?q=%3Cscript%3Ealert(1)%3C/script%3E%22%27")
    assert "<script>alert" not in page.text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page.text


async def test_cookies_are_for_browsers_alone_and_for_tls_beyond_this_machine(visitor: Visitor) -> None:
    [here] = (await visitor.client.get("/")).headers.get_list("set-cookie")
    assert "httponly" in here.lower()
    assert "samesite=lax" in here.lower()
    assert "secure" not in here.lower()
    [there] = (await visitor.client.get("/", headers={"host": "shop.example"})).headers.get_list("set-cookie")
    assert there.startswith("__Host-visitor=")
    assert "secure" in there.lower()


@pytest.mark.parametrize(
    "forged",
    [
        {"form_proof": ""},
        {"form_proof": "x" * 43},
        {"header": {"origin": "https://evil.example"}},
        {"header": {"origin": "null"}},
        {"header": {"origin": "http://["}},
        {"header": {"sec_fetch_site": "cross-site"}},
    ],
    ids=["no proof", "another proof", "another site", "a hidden origin", "no origin", "what the browser says"],
)
async def test_a_form_that_is_not_of_a_page_of_ours_is_refused(visitor: Visitor, forged: dict[str, Any]) -> None:
    fields = hidden(await visitor.get("/articles/mug"), "/basket") | {"pieces": "1"}
    headers = forged.get("header", {})
    fields |= {name: value for name, value in forged.items() if name != "header"}
    answer = await visitor.post("/basket", fields, follow=False, **headers)
    assert answer.status_code == 403
    assert "Your basket is empty" in (await visitor.get("/basket")).text


async def test_the_proof_of_one_visitor_is_none_for_another(visitor: Visitor, client: httpx.AsyncClient) -> None:
    async with httpx.AsyncClient(base_url=client.base_url) as other:
        fields = hidden(await Visitor(other).get("/articles/mug"), "/basket") | {"pieces": "1"}
    await visitor.get("/")
    assert (await visitor.post("/basket", fields, follow=False)).status_code == 403


async def test_cookies_that_somebody_has_made_are_as_none(visitor: Visitor) -> None:
    visitor.client.cookies.set("basket", "eyJtdWciOjF9")
    visitor.client.cookies.set("session", "A" * 100)
    assert "Your basket is empty" in (await visitor.get("/basket")).text
    assert (await visitor.client.get("/account")).status_code == 303


@pytest.mark.parametrize("target", ["//evil.example/", "https://evil.example/", "/\\evil.example"])
async def test_after_signing_in_nobody_is_led_to_another_site(visitor: Visitor, address: str, target: str) -> None:
    await visitor.sign_up(address)
    await visitor.send("/account", "/sign-out")
    fields: dict[str, Any] = {"email_address": address, "password": PASSWORD, "next": target}
    answer = await visitor.send("/sign-in", "/sign-in", follow=False, **fields)
    assert (answer.status_code, answer.headers["location"]) == (303, "/account")


async def test_a_check_out_that_is_sent_five_times_at_once_is_one_order(visitor: Visitor, address: str) -> None:
    await visitor.sign_up(address)
    fields = await visitor.checkout()
    cookies = dict(visitor.client.cookies)
    clients = [httpx.AsyncClient(base_url=visitor.client.base_url, cookies=cookies) for _ in range(5)]
    answers = await asyncio.gather(*(Visitor(one).post("/checkout", fields, follow=False) for one in clients))
    assert len({answer.headers["location"] for answer in answers}) == 1
    assert {answer.status_code for answer in answers} == {303}
    late = await visitor.post("/checkout", fields, follow=False)  # with the basket that the browser still shows
    again = await visitor.post("/checkout", fields, follow=False)  # with the empty one
    assert {late.headers["location"], again.headers["location"]} == {answers[0].headers["location"]}
    orders = await visitor.get("/orders")
    assert orders.text.count("Order of") == 1
    assert "Your basket is empty" in (await visitor.get("/basket")).text
    await asyncio.gather(*(one.aclose() for one in clients))


async def test_what_is_ordered_is_the_basket_that_was_shown(visitor: Visitor, address: str) -> None:
    await visitor.sign_up(address)
    fields = await visitor.checkout()
    await visitor.send("/articles/mug", "/basket", pieces="2")  # in another tab
    changed = await visitor.post("/checkout", fields)
    assert (changed.status_code, "Your basket has changed" in changed.text) == (409, True)
    assert "3 × Blue mug" in changed.text
    placed = await visitor.post("/checkout", fields | hidden(changed, "/checkout"), follow=False)
    await visitor.send("/articles/mug", "/basket", pieces="1")
    again = await visitor.post("/checkout", fields | hidden(changed, "/checkout"), follow=False)
    assert again.headers["location"] == placed.headers["location"]
    assert "Basket (1)" in (await visitor.get("/orders")).text, "what was added later is still there"


async def test_an_order_tells_its_progress_and_another_customer_nothing(
    visitor: Visitor, client: httpx.AsyncClient, address: str
) -> None:
    await visitor.sign_up(address)
    placed = await visitor.post("/checkout", await visitor.checkout(), follow=False)
    path = placed.headers["location"]
    async with visitor.client.stream("GET", f"{path}/progress") as progress:
        assert progress.headers["content-type"].startswith("text/event-stream")
        told = [line async for line in progress.aiter_lines() if line.startswith("data:")]
    assert '"state":"Confirmed"' in told[-1]
    assert "Confirmed" in (await visitor.get(path)).text
    async with httpx.AsyncClient(base_url=client.base_url) as other:
        await Visitor(other).sign_up(f"other-{address}")
        for foreign in (path, f"{path}/progress"):
            assert (await other.get(foreign)).status_code == 404


async def test_what_a_service_refuses_is_said_in_words_and_what_was_typed_stays(visitor: Visitor, address: str) -> None:
    await visitor.sign_up(address)
    fields = await visitor.checkout() | {"street": " ", "city": 'Ber"lin'}
    page = await visitor.post("/checkout", fields)
    assert page.status_code == 400
    assert "The address is not complete" in page.text
    assert 'value="Ber&#34;lin"' in page.text
    assert hidden(page, "/checkout")["key"] == fields["key"]
    wrong = await visitor.send("/account/close", "/account/close", password="another password")
    assert (wrong.status_code, "is wrong" in wrong.text) == (401, True)


async def test_addresses_and_consent_are_kept_and_a_closed_account_is_gone(visitor: Visitor, address: str) -> None:
    await visitor.sign_up(address)
    assert "Home: Ada, Rosenweg 3" in unmarked(
        await visitor.send("/account", "/account/addresses", label="Home", **ADDRESS)
    )
    await visitor.send("/account", "/account/letters", letters="yes")
    assert "You will hear from us" in (await visitor.get("/articles/mug")).text
    await visitor.send("/account", "/account/addresses/remove")
    assert "No address is saved" in (await visitor.get("/account")).text
    closed = await visitor.send("/account/close", "/account/close", password=PASSWORD)
    assert "Your account is closed" in closed.text
    assert (await visitor.client.get("/account")).status_code == 303


def unmarked(page: httpx.Response) -> str:
    return re.sub(r"<[^>]+>", "", page.text)


@pytest.mark.parametrize(
    ("dead", "path", "missing", "there"),
    [
        ("catalog_target", "/articles/mug", "The catalogue is away", "EUR 9.00"),
        ("catalog_target", "/", "pictures and categories are missing", "EUR 9.00"),
        ("search_target", "/search?q=mug", "Search is away", "Blue mug"),
        ("inventory_target", "/articles/mug", "not known at the moment how many", "Blue mug"),
        ("orders_target", "/articles/mug", "", "Blue mug"),
    ],
)
async def test_a_page_says_what_is_missing(front: Front, dead: str, path: str, missing: str, there: str) -> None:
    async with gateway(**(front.settings | {dead: NOBODY})) as client:
        page = await client.get(path)
    assert page.status_code == 200
    sentences = re.findall(r'<p class="missing" role="status">(.*?)</p>', page.text)
    assert any(missing in sentence for sentence in sentences) if missing else not sentences
    assert there in page.text


async def test_while_identity_is_away_a_visitor_reads_on(front: Front) -> None:
    async with gateway(**(front.settings | {"identity_target": NOBODY})) as client:
        assert (await client.get("/articles/mug")).status_code == 200
        visitor = Visitor(client)
        tried = await visitor.send("/sign-in", "/sign-in", email_address="ada@example.com", password=PASSWORD)
    assert tried.status_code == 503
    assert 'role="alert"' in tried.text


@asynccontextmanager
async def hasty_identity(url: str, lifetime: timedelta) -> AsyncIterator[str]:
    """The address of an identity whose access tokens do not last."""
    settings = IdentitySettings(
        database_url=SecretStr(url), key_secret=SecretStr("k" * 32), access_token_lifetime=lifetime
    )
    async with running(settings, partial(assemble_identity, settings)) as identity:
        yield identity.address


async def test_two_tabs_exchange_a_refresh_token_once(front: Front, database_url: str, address: str) -> None:
    async with (
        hasty_identity(database_url, timedelta(seconds=30)) as identity,
        gateway(**(front.settings | {"identity_target": identity})) as client,
    ):
        await Visitor(client).sign_up(address)
        first = dict(client.cookies)
        tabs = [httpx.AsyncClient(base_url=client.base_url, cookies=first) for _ in range(4)]
        answers = await asyncio.gather(*(tab.get("/account/close") for tab in tabs))
        assert {answer.status_code for answer in answers} == {200}, "nobody was signed out"
        assert first["session"] not in {answer.cookies["session"] for answer in answers}
        for tab in tabs:  # each goes on with what it was given
            assert (await tab.get("/account/close")).status_code == 200
            await tab.aclose()


async def test_while_identity_is_away_nobody_is_signed_out(front: Front, database_url: str, address: str) -> None:
    async with AsyncExitStack() as stack:
        identity = await stack.enter_async_context(hasty_identity(database_url, timedelta(milliseconds=1)))
        async with gateway(**(front.settings | {"identity_target": identity})) as client:
            await Visitor(client).sign_up(address)
            kept = client.cookies["session"]
            await stack.aclose()
            shown = await client.get("/articles/mug")
            assert shown.status_code == 200
            assert "My account" in shown.text
            assert (await client.get("/account")).status_code == 503
            assert client.cookies["session"] == kept
