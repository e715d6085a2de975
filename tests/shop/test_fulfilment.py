"""Both ways to fulfil an order end in the same state with the same books, whatever refuses; and what can go wrong on
the way of a choreographed one."""

from typing import Any

import pytest

from shop.orders.v1.orders_pb2 import ORDER_STATE_CONFIRMED, ORDER_STATE_REJECTED
from shop.types.v1.types_pb2 import FULFILMENT_CHOREOGRAPHED, FULFILMENT_ORCHESTRATED

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
