"""The peer of sagas: a service that calls the three participants one after the other, without durability.

Plain grpc.aio, as somebody would write it who does not think about crashes. Started by `world`.
"""

import asyncio
import os
from hashlib import sha256
from typing import Any

import grpc
import grpc.aio
from amends_chassis.dial import dial

from amends_bench.process import serve_until_told
from shop.inventory.v1 import inventory_pb2
from shop.inventory.v1.inventory_pb2_grpc import InventoryServiceStub
from shop.orders.v1 import orders_pb2
from shop.orders.v1.orders_pb2_grpc import OrderServiceServicer, add_OrderServiceServicer_to_server
from shop.payments.v1 import payments_pb2
from shop.payments.v1.payments_pb2_grpc import PaymentServiceStub
from shop.shipping.v1 import shipping_pb2
from shop.shipping.v1.shipping_pb2_grpc import ShippingServiceStub
from shop.types.v1 import types_pb2

CALL_SECONDS = 3.0


class Front(OrderServiceServicer):
    """Places orders by calling everybody."""

    def __init__(self, inventory: Any, payments: Any, shipping: Any, *, keys: bool) -> None:
        self._inventory = inventory
        self._payments = payments
        self._shipping = shipping
        self._keys = keys

    async def PlaceOrder(self, request: orders_pb2.PlaceOrderRequest, context: Any) -> orders_pb2.PlaceOrderResponse:
        """Reserve the stock, charge the card and ship the goods."""
        order, lines = request.order_id, request.lines
        await self._inventory.Reserve(
            inventory_pb2.ReserveRequest(order_id=order, lines=lines),
            timeout=CALL_SECONDS,
            metadata=self._metadata(order, "reserve"),
        )
        await self._payments.Charge(
            payments_pb2.ChargeRequest(
                order_id=order, amount=types_pb2.Money(currency="EUR", minor=4200), card_token=request.card_token
            ),
            timeout=CALL_SECONDS,
            metadata=self._metadata(order, "charge"),
        )
        await self._shipping.Book(
            shipping_pb2.BookRequest(order_id=order, address=request.address, lines=lines),
            timeout=CALL_SECONDS,
            metadata=self._metadata(order, "ship"),
        )
        return orders_pb2.PlaceOrderResponse(order=orders_pb2.Order(order_id=order))

    def _metadata(self, order: str, step: str) -> tuple[tuple[str, str], ...] | None:
        """Return the metadata that the barrier reads from a call; None when there is no barrier."""
        if not self._keys:
            return None
        return (
            ("amends-run-id", order),
            ("amends-step", step),
            ("amends-operation", "action"),
            ("amends-idempotency-key", sha256(f"{order}/{step}".encode()).hexdigest()),
        )


async def main() -> None:
    """Serve until a signal stops it. Targets come as AMENDS_BENCH_INVENTORY, _PAYMENTS and _SHIPPING."""
    async with (
        dial(os.environ["AMENDS_BENCH_INVENTORY"]) as inventory,
        dial(os.environ["AMENDS_BENCH_PAYMENTS"]) as payments,
        dial(os.environ["AMENDS_BENCH_SHIPPING"]) as shipping,
    ):
        front = Front(  # type: ignore[abstract] # what it does not do is answered with UNIMPLEMENTED
            InventoryServiceStub(inventory),
            PaymentServiceStub(payments),
            ShippingServiceStub(shipping),
            keys=os.environ.get("AMENDS_BENCH_KEYS") == "1",
        )
        server = grpc.aio.server()
        add_OrderServiceServicer_to_server(front, server)
        await serve_until_told("front", server)


if __name__ == "__main__":
    asyncio.run(main())
