"""The part of orders in choreographed orders: what the others say brings an order to its end.

Assembled by `assemble.py`. An order is confirmed when it is paid and its parcel is booked, in whatever order that is
heard, and rejected when somebody refuses, or at its deadline (`followup.py`): whichever is committed first. Everybody
else follows that.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from google.protobuf.message import Message

from shop.inventory.events.v1.inventory_pb2 import StockShort
from shop.payments.events.v1.payments_pb2 import PaymentFailed, PaymentTaken
from shop.shipping.events.v1.shipping_pb2 import ParcelBooked, ParcelRefused
from shop_orders import store

if TYPE_CHECKING:
    from amends_chassis.database import Connection
    from amends_events import CloudEvent, EventHandler, Outbox

    RefusalEvent = StockShort | PaymentFailed | ParcelRefused


class OrderReactions:
    """Answers the events of choreographed orders. Those of orchestrated ones change nothing: their saga decides."""

    def __init__(self, outbox: "Outbox") -> None:
        self._outbox = outbox

    @property
    def handlers(self) -> "Mapping[type[Message], EventHandler]":
        """Return which event is handled by what."""
        return {
            PaymentTaken: self._paid,
            ParcelBooked: self._booked,
            StockShort: self._refused,
            PaymentFailed: self._refused,
            ParcelRefused: self._refused,
        }

    async def _paid(self, connection: "Connection", event: "CloudEvent", taken: PaymentTaken) -> None:
        await store.note_papers(connection, self._outbox, taken.order_id, payment_id=taken.payment_id)

    async def _booked(self, connection: "Connection", event: "CloudEvent", booked: ParcelBooked) -> None:
        await store.note_papers(connection, self._outbox, booked.order_id, tracking_id=booked.tracking_id)

    async def _refused(self, connection: "Connection", event: "CloudEvent", refused: "RefusalEvent") -> None:
        await store.reject_choreographed(
            connection, self._outbox, refused.order_id, refused.message or refused.reason, refused.reason
        )
