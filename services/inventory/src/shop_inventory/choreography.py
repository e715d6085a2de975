"""The part of the inventory in choreographed orders: stock is kept when one is placed, and given back when it fails.

Assembled by `__main__.py`. A handler does what a guarded method does, by the same functions, in the transaction of its
consumer. What undoes may come before what it undoes, so the barrier's fence is asked first.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from amends_barrier import action, compensation, savepoint
from amends_chassis.domain import RefusedError
from google.protobuf.message import Message

from shop.orders.events.v1.orders_pb2 import OrderPlaced, OrderRejected
from shop.payments.events.v1.payments_pb2 import PaymentFailed
from shop.shipping.events.v1.shipping_pb2 import ParcelRefused
from shop.types.v1.types_pb2 import FULFILMENT_CHOREOGRAPHED
from shop_inventory import domain, store
from shop_inventory.domain import Line

if TYPE_CHECKING:
    from amends_chassis.database import Connection
    from amends_events import CloudEvent, EventHandler, Outbox


class StockReactions:
    """Answers the events of choreographed orders."""

    def __init__(self, outbox: "Outbox") -> None:
        self._outbox = outbox

    @property
    def handlers(self) -> "Mapping[type[Message], EventHandler]":
        """Return which event is handled by what."""
        return {
            OrderPlaced: self._reserve,
            PaymentFailed: self._release,
            ParcelRefused: self._release,
            OrderRejected: self._follow,
        }

    async def _reserve(self, connection: "Connection", event: "CloudEvent", placed: OrderPlaced) -> None:
        if placed.fulfilment != FULFILMENT_CHOREOGRAPHED:
            return
        order_id = placed.order_id
        try:
            async with savepoint(connection):
                if await action(connection, _step(order_id)):
                    lines = domain.lines(Line(line.sku, line.quantity) for line in placed.lines)
                    await store.reserve(connection, self._outbox, order_id, lines)
        except RefusedError as refusal:
            await store.refuse(connection, self._outbox, order_id, refusal.reason, str(refusal))

    async def _follow(self, connection: "Connection", event: "CloudEvent", rejected: OrderRejected) -> None:
        if rejected.fulfilment == FULFILMENT_CHOREOGRAPHED:
            await self._release(connection, event, rejected)

    async def _release(self, connection: "Connection", event: "CloudEvent", failed: Any) -> None:
        if await compensation(connection, _step(failed.order_id)):
            await store.release(connection, self._outbox, failed.order_id)


def _step(order_id: str) -> str:
    return f"{order_id}/reserve"
