"""What pages are made of: parts with deadlines, seals, and the basket."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta

import grpc
import pytest
from amends_chassis.domain import IdentifierInvalidError
from amends_resilience import BreakerOpenError, deadline
from prometheus_client import CollectorRegistry
from shop_gateway.pages.basket import MOST_ARTICLES, MOST_PIECES, Basket, BasketFullError
from shop_gateway.pages.compose import Composer, Part
from shop_gateway.pages.forms import local, number
from shop_gateway.pages.rendering import money
from shop_gateway.pages.seals import Seals

from shop.types.v1.types_pb2 import Money

HOUR = timedelta(hours=1)
SOON = timedelta(milliseconds=50)


def failing(code: grpc.StatusCode) -> Callable[[], Awaitable[str]]:
    async def read() -> str:
        raise grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata())

    return read


async def hanging() -> str:
    await asyncio.Event().wait()
    return "never"


async def quick() -> str:
    return "there"


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def composer(registry: CollectorRegistry) -> Composer:
    return Composer(registry)


def counted(registry: CollectorRegistry, part: str) -> dict[str, float]:
    samples = [sample for metric in registry.collect() for sample in metric.samples if sample.name.endswith("_total")]
    return {sample.labels["shown"]: sample.value for sample in samples if sample.labels["part"] == part}


async def test_parts_are_read_at_once_and_one_that_hangs_takes_its_own_time_alone(composer: Composer) -> None:
    async def slow() -> str:
        await asyncio.sleep(0.05)
        return "slow"

    began = time.monotonic()
    parts = await asyncio.gather(
        *(composer.part("slow", slow, missing="gone") for _ in range(20)),
        composer.part("hanging", hanging, missing="gone", within=timedelta(milliseconds=100)),
    )
    assert time.monotonic() - began < 0.5  # one after the other would take a second for the slow ones alone
    assert [part.value for part in parts] == [*["slow"] * 20, None]
    assert parts[-1].missing == "gone"


async def test_what_is_missing_has_a_substitute_or_a_sentence(composer: Composer, registry: CollectorRegistry) -> None:
    away = failing(grpc.StatusCode.UNAVAILABLE)
    whole = await composer.part("p", quick, missing="gone", instead=away)
    substitute = await composer.part("p", away, missing="gone", instead=quick)
    late = await composer.part("p", hanging, missing="gone", instead=quick, within=SOON)
    nothing = await composer.part("p", away, missing="gone", instead=hanging, within=SOON)
    assert (whole, substitute, late) == (Part("there"), Part("there", "gone"), Part("there", "gone"))
    assert (nothing.value, nothing.missing) == (None, "gone")
    assert counted(registry, "p") == {"whole": 1, "substitute": 2, "missing": 1}
    with pytest.raises(grpc.aio.AioRpcError):
        nothing.needed()


@pytest.mark.parametrize("code", [grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAUTHENTICATED])
async def test_nothing_stands_in_for_what_a_service_has_answered(composer: Composer, code: grpc.StatusCode) -> None:
    refused = await composer.part("p", failing(code), missing="gone", instead=quick)
    assert refused.value is None
    for ask in (refused.needed, lambda: refused.or_else("something")):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            ask()
        assert caught.value.code() is code


async def test_a_breaker_that_is_open_is_a_missing_part_and_a_mistake_in_the_page_is_one(composer: Composer) -> None:
    async def refused() -> str:
        raise BreakerOpenError(timedelta(seconds=1))

    async def mistaken() -> str:
        raise KeyError("page")

    assert (await composer.part("p", refused, missing="gone")).or_else("empty") == Part("empty", "gone")
    with pytest.raises(KeyError):
        await composer.part("p", mistaken, missing="gone", instead=quick)


async def test_the_calls_of_a_part_have_its_deadline(composer: Composer) -> None:
    async def left() -> timedelta | None:
        return deadline.remaining()

    part = await composer.part("p", left, missing="", within=SOON)
    assert part.value is not None
    assert timedelta() < part.value <= SOON
    assert deadline.remaining() is None


def test_a_seal_holds_for_its_purpose_its_secret_and_its_time() -> None:
    now = [1_000.0]
    seals = Seals(b"s" * 32, lambda: now[0])
    sealed = seals.seal("basket", {"mug": 1}, HOUR)
    assert seals.open("basket", sealed) == {"mug": 1}
    assert seals.open("session", sealed) is None
    assert Seals(b"t" * 32, lambda: now[0]).open("basket", sealed) is None
    now[0] += HOUR.total_seconds()
    assert seals.open("basket", sealed) is None


@pytest.mark.parametrize("at", [0, 5, 40, 50, -1])
def test_a_sealed_text_that_was_changed_anywhere_is_none(at: int) -> None:
    seals = Seals(b"s" * 32)
    sealed = list(seals.seal("basket", {"mug": 1, "tea": 2}, HOUR))
    sealed[at] = "A" if sealed[at] != "A" else "Q"
    assert seals.open("basket", "".join(sealed)) is None


@pytest.mark.parametrize("text", ["", "A", "é", "====", "A" * 44, "\x00", "a b"])
def test_what_was_never_sealed_is_none(text: str) -> None:
    assert Seals(b"s" * 32).open("basket", text) is None


def test_a_basket_adds_up_and_has_bounds() -> None:
    basket = Basket().add("mug", 1).add("mug", 2).add("tea", 1)
    assert (basket.kept, basket.count) == ({"mug": 3, "tea": 1}, 4)
    assert Basket.parse(basket.kept) == basket
    assert basket.put("mug", 0).kept == {"tea": 1}
    assert basket.put("tea", 500).pieces["tea"] == MOST_PIECES
    for number_ in range(MOST_ARTICLES - 2):
        basket = basket.add(f"article-{number_}", 1)
    with pytest.raises(BasketFullError):
        basket.add("one more", 1)
    for sku in ("x" * 101, "\N{GRINNING FACE}", ""):
        with pytest.raises(IdentifierInvalidError):
            Basket().add(sku, 1)


def test_a_full_basket_fits_into_a_cookie() -> None:
    basket = Basket({f"{number_:x>100}": MOST_PIECES for number_ in range(MOST_ARTICLES)})
    assert len(Seals(b"s" * 32).seal("basket", basket.kept, HOUR)) < 4096 - 100


@pytest.mark.parametrize(
    ("currency", "minor", "text"), [("EUR", 1290, "EUR 12.90"), ("EUR", 5, "EUR 0.05"), ("JPY", 1290, "JPY 1,290")]
)
def test_money_is_written_in_its_unit(currency: str, minor: int, text: str) -> None:
    assert money(Money(currency=currency, minor=minor)) == text


@pytest.mark.parametrize(("path", "leads_to"), [("/orders", "/orders"), ("//evil", "/account"), ("x", "/account")])
def test_a_path_is_of_this_site(path: str, leads_to: str) -> None:
    assert local(path) == leads_to


def test_a_number_has_three_digits() -> None:
    assert [number(text) for text in ("7", "099", "-1", "1000", "", "٣")] == [7, 99, None, None, None, None]
