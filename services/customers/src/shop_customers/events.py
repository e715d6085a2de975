"""What the customers service tells others, and what it does when others tell something. Read by `__main__.py`."""

from collections.abc import Mapping

from amends_cache import Cache
from amends_chassis.database import Executes
from amends_events import CloudEvent, EventHandler, Outbox
from google.protobuf.message import Message

from shop.customers.events.v1.customers_pb2 import CustomerChanged, CustomerErased
from shop.identity.events.v1.identity_pb2 import AccountClosed, AccountOpened
from shop_customers import store

PUBLISHES = (CustomerChanged, CustomerErased)
CONSUMER = "customers"


def handlers(outbox: Outbox, customers: Cache) -> Mapping[type[Message], EventHandler]:
    """Return what is done for each event, in the transaction that it is given.

    The cache is told of an erasure before the commit: should that fail, the event comes again.
    """

    async def on_account_opened(connection: Executes, event: CloudEvent, opened: AccountOpened) -> None:
        await store.open_customer(connection, opened.account_id)

    async def on_account_closed(connection: Executes, event: CloudEvent, closed: AccountClosed) -> None:
        revision = await store.erase(connection, outbox, closed.account_id)
        if revision is not None:
            await customers.put(closed.account_id, revision, b"")

    return {AccountOpened: on_account_opened, AccountClosed: on_account_closed}
