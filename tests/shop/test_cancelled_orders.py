"""An order is cancelled by its customer, in whichever way it is fulfilled."""

import grpc
import pytest
from amends_testkit.waiting import eventually

from shop.orders.v1 import orders_pb2
from shop.types.v1 import types_pb2

from .market import Effects, Market, wish

NOTHING = [Effects(stock, money) for stock in ("", "released") for money in ("", "refunded")]
BOTH = {"orchestrated": types_pb2.FULFILMENT_ORCHESTRATED, "choreographed": types_pb2.FULFILMENT_CHOREOGRAPHED}


@pytest.mark.parametrize("how", BOTH)
async def test_what_was_done_for_a_cancelled_order_is_undone(nats_market: Market, order_id: str, how: str) -> None:
    async with nats_market.without("inventory"):
        await nats_market.place(wish(order_id), BOTH[how], wait=False)
        for _ in range(2):  # the same again changes nothing
            asked = orders_pb2.CancelOrderRequest(order_id=order_id)
            answer = await nats_market.stubs["orders"].CancelOrder(asked, timeout=20)
            assert answer.order.state in (orders_pb2.ORDER_STATE_PENDING, orders_pb2.ORDER_STATE_REJECTED)
    assert (await nats_market.ended(order_id)).state == orders_pb2.ORDER_STATE_REJECTED

    async def undone() -> bool:
        return await nats_market.effects(order_id) in NOTHING

    await eventually(undone, what="nothing is left of the order")
    assert await nats_market.broken_laws() == []


@pytest.mark.parametrize("how", BOTH)
async def test_an_order_that_is_on_its_way_cannot_be_cancelled(nats_market: Market, order_id: str, how: str) -> None:
    placed = await nats_market.place(wish(order_id), BOTH[how])
    assert placed.state == orders_pb2.ORDER_STATE_CONFIRMED
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await nats_market.stubs["orders"].CancelOrder(orders_pb2.CancelOrderRequest(order_id=order_id), timeout=20)
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
