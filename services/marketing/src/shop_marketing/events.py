"""What the marketing service tells others, and what it does when others tell something. Read by `__main__`."""

from collections.abc import Mapping

from amends_chassis.database import Executes
from amends_events import CloudEvent, EventHandler
from google.protobuf.message import Message

from shop.identity.events.v1.identity_pb2 import AccountClosed, AccountOpened
from shop.marketing.events.v1.marketing_pb2 import CampaignSent
from shop.orders.events.v1.orders_pb2 import OrderConfirmed
from shop_marketing import store

PUBLISHES = (CampaignSent,)
CONSUMER = "marketing"


async def on_account_opened(connection: Executes, event: CloudEvent, opened: AccountOpened) -> None:
    """Write down that there is a customer."""
    await store.open_customer(connection, opened.account_id)


async def on_account_closed(connection: Executes, event: CloudEvent, closed: AccountClosed) -> None:
    """Delete what is known about the customer."""
    await store.erase(connection, closed.account_id)


async def on_order_confirmed(connection: Executes, event: CloudEvent, confirmed: OrderConfirmed) -> None:
    """Count an order of the customer. Events of before contracts had the customer are left out."""
    if confirmed.customer_id:
        await store.ordered(connection, confirmed.customer_id, event.occurred_at)


HANDLERS: Mapping[type[Message], EventHandler] = {
    AccountOpened: on_account_opened,
    AccountClosed: on_account_closed,
    OrderConfirmed: on_order_confirmed,
}
