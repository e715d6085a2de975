"""What the notifications service hears, and which messages follow from it. Wired by `__main__`.

The handlers write down that a message is due, in the transaction of the event; nothing is sent here. Topics have no
order between them: an address, or whose an order is, may be heard after what is to be told.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from amends_events import CloudEvent, EventHandler
from google.protobuf.message import Message

from shop.customers.events.v1.customers_pb2 import CustomerChanged, CustomerErased
from shop.marketing.events.v1.marketing_pb2 import CampaignSent
from shop.orders.events.v1.orders_pb2 import OrderConfirmed, OrderPlaced, OrderRejected
from shop.shipping.events.v1.shipping_pb2 import ParcelHandedOver
from shop_notifications import store
from shop_notifications.domain import Contact, MailTemplate, Notice

if TYPE_CHECKING:
    from amends_chassis.database import Connection

CONSUMER: Final = "notifications"


class Intake:
    """Handles events; messages get a Message-ID of the domain that they are sent from."""

    def __init__(self, domain: str) -> None:
        self._domain = domain

    @property
    def handlers(self) -> Mapping[type[Message], EventHandler]:
        """Return the handler of each type."""
        return {
            OrderPlaced: self.order_placed,
            OrderConfirmed: self.order_confirmed,
            OrderRejected: self.order_rejected,
            ParcelHandedOver: self.parcel_handed_over,
            CampaignSent: self.campaign_sent,
            CustomerChanged: self.customer_changed,
            CustomerErased: self.customer_erased,
        }

    async def order_placed(self, connection: "Connection", event: CloudEvent, message: OrderPlaced) -> None:
        """Remember whose the order is: not every event that follows says so."""
        await store.know_order(connection, message.order_id, message.customer_id)

    async def order_confirmed(self, connection: "Connection", event: CloudEvent, message: OrderConfirmed) -> None:
        """Tell that the order will be fulfilled."""
        told = {"order": message.order_id, "tracking": message.tracking_id}
        await self._tell(connection, event, MailTemplate.ORDER_CONFIRMED, told, message.order_id, message.customer_id)

    async def order_rejected(self, connection: "Connection", event: CloudEvent, message: OrderRejected) -> None:
        """Tell that the order will not be fulfilled, and why."""
        told = {"order": message.order_id, "reason": message.code}
        await self._tell(connection, event, MailTemplate.ORDER_REJECTED, told, message.order_id, message.customer_id)

    async def parcel_handed_over(self, connection: "Connection", event: CloudEvent, message: ParcelHandedOver) -> None:
        """Tell that the parcel is on its way."""
        told = {"order": message.order_id, "tracking": message.tracking_id, "carrier": message.carrier}
        await self._tell(connection, event, MailTemplate.PARCEL_HANDED_OVER, told, message.order_id)

    async def campaign_sent(self, connection: "Connection", event: CloudEvent, message: CampaignSent) -> None:
        """Write what marketing has to say."""
        told = {"subject": message.subject, "text": message.text}
        await self._tell(connection, event, MailTemplate.CAMPAIGN, told, customer_id=message.account_id)

    async def customer_changed(self, connection: "Connection", event: CloudEvent, message: CustomerChanged) -> None:
        """Remember where the customer is written to."""
        contact = Contact(message.email_address, message.locale)
        await store.know_contact(connection, message.account_id, event.version, contact)

    async def customer_erased(self, connection: "Connection", event: CloudEvent, message: CustomerErased) -> None:
        """Forget the customer."""
        await store.erase(connection, message.account_id, event.version)

    async def _tell(
        self,
        connection: "Connection",
        event: CloudEvent,
        template: MailTemplate,
        parameters: Mapping[str, str],
        order_id: str = "",
        customer_id: str = "",
    ) -> None:
        notice = Notice(event.event_id, event.occurred_at, template, parameters, order_id, customer_id)
        await store.add(connection, notice, f"<{notice.notification_id}@{self._domain}>")
