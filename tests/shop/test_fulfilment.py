"""Both ways to fulfil an order end in the same state with the same books, whatever refuses; and what can go wrong on
the way of a choreographed one."""

import asyncio
from datetime import timedelta
from typing import Any

import grpc.aio
import pytest
from amends_events import partition
from amends_events.backoff import EventBackoff
from amends_events.decisions import DecidedBy
from amends_events.parked import ParkedDecision, decide
from amends_testkit.service import refusal_of
from amends_testkit.waiting import eventually
from shop_orders.domain import Fulfilment

from shop.orders.v1.orders_pb2 import ORDER_STATE_CONFIRMED, ORDER_STATE_PENDING, ORDER_STATE_REJECTED
from shop.payments.v1.payments_pb2 import CloseDisputeRequest, KeepCardRequest
from shop.types.v1.types_pb2 import (
    FULFILMENT_CHOREOGRAPHED,
    FULFILMENT_ORCHESTRATED,
    FULFILMENT_UNSPECIFIED,
    Money,
)

from .market import Effects, Market, wish

ORCHESTRATED, CHOREOGRAPHED = FULFILMENT_ORCHESTRATED, FULFILMENT_CHOREOGRAPHED
OUTCOMES: dict[str, tuple[dict[str, Any], str]] = {
    "confirmed": ({}, ""),
    "the card network fails twice": ({"card": "tok_processingError"}, ""),
    "the card network is slow": ({"card": "tok_slow"}, ""),
    "out of stock": ({"quantity": 100_000}, "were asked for"),
    "never received": ({"sku": "ghost"}, "there is no article ghost"),
    "card declined": ({"card": "tok_chargeDeclined"}, "the card was declined"),
    "no money": ({"card": "tok_insufficientFunds"}, "insufficient funds"),
    "no such card": ({"card": "tok_nobody"}, "the token belongs to no card"),
    "no slot": ({"country": "AT"}, "no carrier has a slot"),
    "not served": ({"country": "IT"}, "no carrier goes to IT"),
    "no such postal code": ({"country": "ES"}, "postal_code"),
}


UNDONE = [Effects(stock, money) for stock in ("", "released") for money in ("", "refunded")]


@pytest.mark.parametrize("outcome", OUTCOMES)
async def test_an_order_ends_the_same_in_both_ways(
    market: Market, fulfilment: Any, outcome: str, order_id: str
) -> None:
    wanted, why = OUTCOMES[outcome]
    order = await market.place(wish(order_id, **wanted), fulfilment)
    assert order.fulfilment == fulfilment
    if why:
        assert (order.state, order.tracking_id, order.payment_id) == (ORDER_STATE_REJECTED, "", "")
        assert why in order.reason
        await market.come_to(order_id, *UNDONE)
    else:
        assert (order.state, order.reason) == (ORDER_STATE_CONFIRMED, "")
        assert order.tracking_id
        assert order.payment_id
        await market.come_to(order_id, Effects("dispatched", "charged", True))
    assert await market.broken_laws() == []


@pytest.fixture
def shop(nats_market: Market) -> Market:
    """The shop over NATS, for what concerns choreographed orders alone."""
    return nats_market


async def test_the_same_order_again_is_the_same_order_and_another_one_is_refused(shop: Market, order_id: str) -> None:
    first = await shop.place(wish(order_id), CHOREOGRAPHED)
    assert await shop.place(wish(order_id), CHOREOGRAPHED) == first
    assert await shop.place(wish(order_id), ORCHESTRATED) == first, "it stays as it was accepted"
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await shop.place(wish(order_id, card="tok_mastercard"), CHOREOGRAPHED)
    assert refusal_of(refused.value) == ("ALREADY_EXISTS", "ORDER_REUSED")


async def test_an_order_that_is_being_placed_with_another_card_is_refused(shop: Market, order_id: str) -> None:
    amount = Money(currency="EUR", minor=900)
    kept = KeepCardRequest(order_id=order_id, amount=amount, card_token="tok_mastercard")
    await shop.stubs["payments"].KeepCard(kept)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await shop.place(wish(order_id), CHOREOGRAPHED)
    assert refusal_of(refused.value) == ("ALREADY_EXISTS", "ORDER_REUSED")
    assert await shop.effects(order_id) == Effects()


async def test_a_choreographed_order_needs_payments_when_it_is_placed_and_not_the_inventory(
    shop: Market, order_id: str
) -> None:
    async with shop.without("payments"):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await shop.place(wish(order_id), CHOREOGRAPHED, wait=False)
        assert refusal_of(refused.value) == ("UNAVAILABLE", "NEIGHBOUR_AWAY")
    async with shop.without("inventory"):
        placed = await shop.place(wish(order_id), CHOREOGRAPHED, wait=False)
        assert placed.state == ORDER_STATE_PENDING
    assert (await shop.ended(order_id)).state == ORDER_STATE_CONFIRMED


@pytest.fixture(params=["nats", "kafka"])
def any_shop(request: pytest.FixtureRequest) -> Market:
    """The shop over each kind of broker."""
    shop: Market = request.getfixturevalue(f"{request.param}_market")
    return shop


async def test_an_order_that_payments_hears_of_too_late_is_rejected_and_never_charged(
    any_shop: Market, order_id: str
) -> None:
    shop = any_shop
    async with shop.without("inventory"):
        await shop.place(wish(order_id), CHOREOGRAPHED, wait=False)
        await shop.stop("payments")
    await shop.come_to(order_id, Effects("held"))
    async with shop.looking("payments") as connection:  # the time passes
        await connection.execute("UPDATE kept_card SET expires_at = now() WHERE order_id = $1", order_id)
    async with shop.looking("orders") as connection:
        await connection.execute(
            "UPDATE orders SET deadline = now(), follow_up_at = now() WHERE order_id = $1", order_id
        )
    rejected = await shop.ended(order_id)
    assert (rejected.state, rejected.reason) == (ORDER_STATE_REJECTED, "the order took too long")
    await shop.come_to(order_id, Effects("released"))
    await shop.start("payments")
    later = await shop.place(wish(f"{order_id}-later"), CHOREOGRAPHED)
    assert later.state == ORDER_STATE_CONFIRMED
    await shop.heard_everything("payments")
    assert await shop.effects(order_id) == Effects("released"), "it was charged after it was rejected"
    assert await shop.broken_laws() == []


async def test_a_refund_that_is_refused_is_parked_and_done_when_the_dispute_is_over(
    any_shop: Market, order_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = any_shop
    monkeypatch.setattr(partition, "BACKOFF", EventBackoff(timedelta(milliseconds=2)))
    order = await shop.place(wish(order_id, card="tok_disputed", country="AT"), CHOREOGRAPHED)
    assert order.state == ORDER_STATE_REJECTED
    parked = await shop.parked("payments", order_id, 2)  # what shipping said, and what orders made of it
    assert {one.type.rpartition(".")[2] for one in parked} == {"ParcelRefused", "OrderRejected"}
    await shop.stubs["payments"].CloseDispute(CloseDisputeRequest(order_id=order_id))
    async with shop.looking("payments") as connection:
        for one in parked:
            await decide(connection, one.place, ParkedDecision.RETRY, DecidedBy("grace", "the dispute is closed"))
    await shop.come_to(order_id, Effects("released", "refunded"))
    assert await shop.parked("payments", order_id, 0) == []


async def test_orders_that_say_nothing_are_fulfilled_as_the_shop_has_set_it(shop: Market, order_id: str) -> None:
    placed = await shop.place(wish(order_id), FULFILMENT_UNSPECIFIED)
    assert (placed.fulfilment, bool(placed.run_id)) == (ORCHESTRATED, True)
    shop.default = Fulfilment.CHOREOGRAPHED
    async with shop.without("orders"):
        pass
    placed = await shop.place(wish(f"{order_id}-b"), FULFILMENT_UNSPECIFIED)
    shop.default = Fulfilment.ORCHESTRATED
    async with shop.without("orders"):
        pass
    assert (placed.fulfilment, placed.run_id, placed.state) == (CHOREOGRAPHED, "", ORDER_STATE_CONFIRMED)


async def test_a_parcel_is_handed_over_once_its_goods_have_left(market: Market, fulfilment: Any, order_id: str) -> None:
    await market.place(wish(order_id), fulfilment)

    async def handed_over() -> bool:
        async with market.looking("shipping") as connection:
            state = await connection.fetchval("SELECT state FROM shipment WHERE order_id = $1", order_id)
        return bool(state == "handed_over")

    await eventually(handed_over, what="the carrier has the parcel")


async def test_orders_of_both_kinds_at_once_share_articles_slots_and_cards(shop: Market, order_id: str) -> None:
    wishes: list[dict[str, Any]] = [{}, {"card": "tok_chargeDeclined"}, {"country": "AT"}, {}]
    placed = await asyncio.gather(
        *(
            shop.place(wish(f"{order_id}-{number}", **wishes[number % len(wishes)]), way)
            for number in range(12)
            for way in ([CHOREOGRAPHED, ORCHESTRATED][number // len(wishes) % 2],)
        )
    )
    for number, order in enumerate(placed):
        wanted = ORDER_STATE_REJECTED if wishes[number % len(wishes)] else ORDER_STATE_CONFIRMED
        assert (number, (await shop.ended(order.order_id)).state) == (number, wanted)
        done = [Effects("dispatched", "charged", True)] if wanted == ORDER_STATE_CONFIRMED else UNDONE
        await shop.come_to(order.order_id, *done)
    assert await shop.broken_laws() == []
