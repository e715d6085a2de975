"""A customer's whole way in a real browser: with script and without, wide and narrow, and with services dead."""

import itertools
import os
import signal
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import pytest
from amends_demo.mail import mails
from amends_demo.stack import Stack
from amends_testkit.waiting import eventually

from .browser import Browser
from .processes import READS, start

Browse = Callable[..., Browser]
WRITTEN = "Order confirmed"
REFRESHES = ("meta-refresh",)
"""An order in progress is loaded again while there is no script; axe has seen such a page interrupt whoever reads it.
This one says the same again, ends when the order does, and has a link for whoever wants to decide when."""
ADDRESS = {
    "Name_on_the_parcel": "Ada Lovelace",
    "Street_and_number": "Rosenweg 3",
    "Postal_code": "10115",
    "City": "Berlin",
    "Country": "DE",
}
_people = itertools.count(1)


def signed_up(browser: Browser) -> str:
    """Sign up, and return the e-mail address."""
    address = f"ada-{os.getpid()}-{next(_people)}@example.com"
    browser.open("/sign-up")
    browser.fill(Your_name="Ada Lovelace", **{"E-mail_address": address}, Password="correct horse battery")
    browser.press("Sign up")
    return address


def in_the_basket(browser: Browser) -> None:
    """Put a tea into the basket, and go to the check-out."""
    browser.open("/articles/tea-assam")
    browser.press("Put into the basket")
    browser.follow("To the check-out")


def ordered(browser: Browser) -> None:
    """Fill in the check-out, and order."""
    browser.fill(**ADDRESS, Card_token="tok_visa")
    browser.press("Order and pay")
    assert browser.heading == "Your order"


@contextmanager
def stopped(stack: Stack, name: str) -> Any:
    """Let a process stand still for a block: it is there, and answers nobody."""
    os.kill(stack.child(name).pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(stack.child(name).pid, signal.SIGCONT)


@pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])
@pytest.mark.parametrize("width", [320, 1280])
async def test_the_whole_way(stack: Stack, browse: Browse, width: int, script: bool) -> None:
    browser = browse(width=width, script=script)
    browser.open("/")
    browser.looks_good()
    browser.picture("articles", at=1280)
    browser.follow("Sign up")
    browser.looks_good()
    address = signed_up(browser)
    browser.fill(Search_for="assm")  # mistyped
    browser.press("Search")
    browser.see("Assam")
    browser.looks_good()
    browser.follow("Assam")
    assert "In stock" in browser.text
    browser.looks_good()
    browser.picture("article", at=1280)
    browser.press("Put into the basket")
    browser.looks_good()
    browser.follow("To the check-out")
    browser.looks_good()
    browser.picture("checkout", at=320)
    with stopped(stack, "shipping"):
        ordered(browser)
        assert "In progress" in browser.text
        browser.looks_good(but=() if script else REFRESHES)
        browser.picture("order-in-progress", at=320)
    browser.see("Confirmed")  # nobody loads the page again but the page itself
    order_id = browser.driver.current_url.rpartition("/")[2]
    browser.looks_good()

    written = await _mail_to(stack, address)
    assert order_id in written.text
    browser.open(f"/orders/{order_id}")
    browser.see(WRITTEN)
    browser.picture("order", at=1280)
    browser.follow("My orders")
    assert order_id in browser.text
    browser.looks_good()
    browser.follow("My account")
    browser.looks_good()
    assert browser.complaints() == []
    for path in ("/account/close", "/sign-in", "/search?q=zzzzz", "/nowhere"):
        browser.open(path)
        browser.looks_good()


async def _mail_to(stack: Stack, address: str) -> Any:
    async def arrived() -> Any:
        mine = [mail for mail in mails(stack.inbox) if mail.recipient == address]
        return next((mail for mail in mine if "confirmed" in mail.subject), None)

    return await eventually(arrived, what=f"a mail to {address}")


@pytest.mark.parametrize(
    ("dead", "page", "missing"),
    [
        ("catalog", "/articles/tea-assam", "The catalogue is away"),
        ("search", "/search?q=tea", "Search is away"),
        (READS, "/articles/tea-assam", "It is not known at the moment how many there are"),
        ("marketing", "/articles/tea-assam", "whether you get our letters"),
    ],
    ids=["catalog", "search", READS, "marketing"],
)
async def test_an_order_while_a_service_is_dead(
    stack: Stack, browse: Browse, dead: str, page: str, missing: str
) -> None:
    browser = browse(width=320)
    signed_up(browser)
    stack.child(dead).kill()
    try:
        browser.open(page)
        assert any(missing in sentence for sentence in browser.missing), browser.missing
        browser.looks_good()
        browser.picture(f"without-{dead}", at=320)
        in_the_basket(browser)
        ordered(browser)
        browser.see("Confirmed")
    finally:
        await start(stack, dead)

    async def is_whole() -> bool:
        browser.open(page)
        return not browser.missing

    await eventually(is_whole, what="nothing is missing any more")
