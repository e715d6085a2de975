"""The part of shipping in choreographed orders: the announced parcel is booked when the order is paid, and called off
when the order fails. For every order the parcel is handed over once its goods have left the warehouse.

Assembled by `__main__.py`. A handler does what `Book` does, by the same functions, in the transaction of its consumer.
What undoes may come before what it undoes, so the barrier's fence is asked first.
"""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

from amends_barrier import action, compensation, savepoint
from amends_chassis.database import Database
from amends_chassis.domain import RefusedError
from google.protobuf.message import Message

from shop.orders.events.v1.orders_pb2 import OrderDispatched, OrderRejected
from shop.payments.events.v1.payments_pb2 import PaymentTaken
from shop.types.v1.types_pb2 import FULFILMENT_CHOREOGRAPHED
from shop_shipping import domain, store

if TYPE_CHECKING:
    from amends_chassis.database import Connection
    from amends_events import CloudEvent, EventHandler, Outbox

FORGET_EVERY = timedelta(minutes=1)


class ParcelReactions:
    """Answers the events of orders."""

    def __init__(self, outbox: "Outbox") -> None:
        self._outbox = outbox

    @property
    def handlers(self) -> "Mapping[type[Message], EventHandler]":
        """Return which event is handled by what."""
        return {PaymentTaken: self._book, OrderRejected: self._cancel, OrderDispatched: self._hand_over}

    async def _book(self, connection: "Connection", event: "CloudEvent", taken: PaymentTaken) -> None:
        order_id = taken.order_id
        parcel = await store.announced_parcel_of(connection, order_id)
        if parcel is None:  # the parcel of an orchestrated order is booked by its saga, and one too late by nobody
            return
        address, lines = parcel
        try:
            async with savepoint(connection):
                if await action(connection, _step(order_id)):
                    await store.book(connection, self._outbox, order_id, domain.deliverable(address), lines)
        except RefusedError as refusal:
            await store.refuse(connection, self._outbox, order_id, refusal.reason, str(refusal))
        await store.forget_announced_parcel(connection, order_id)

    async def _cancel(self, connection: "Connection", event: "CloudEvent", rejected: OrderRejected) -> None:
        if rejected.fulfilment != FULFILMENT_CHOREOGRAPHED:
            return
        await store.forget_announced_parcel(connection, rejected.order_id)
        if await compensation(connection, _step(rejected.order_id)):
            await store.cancel(connection, self._outbox, rejected.order_id)

    async def _hand_over(self, connection: "Connection", event: "CloudEvent", dispatched: OrderDispatched) -> None:
        await store.hand_over(connection, self._outbox, dispatched.order_id)


async def forget_announced_parcels(database: Database) -> None:
    """Forget announced parcels whose time is over, for ever."""
    while True:
        async with database.transaction() as transaction:
            await store.forget_expired_parcels(transaction)
        await asyncio.sleep(FORGET_EVERY.total_seconds())


def _step(order_id: str) -> str:
    return f"{order_id}/ship"
