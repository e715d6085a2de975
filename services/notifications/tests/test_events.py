"""What follows from events, on a real database; and the whole service with a real broker (faults E18, E26)."""

import asyncio
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import uuid4

import pytest_asyncio
from amends_chassis.service import Runtime, running
from amends_events import CloudEvent, EventRecord, event_type, open_broker
from amends_events.envelope import attributes, new_event_id
from amends_testkit.waiting import eventually
from google.protobuf.message import Message
from pydantic import SecretStr
from shop_notifications.__main__ import assemble
from shop_notifications.domain import MailTemplate
from shop_notifications.domain import NotificationState as State
from shop_notifications.events import CONSUMER, Intake
from shop_notifications.settings import Settings

from shop.customers.events.v1.customers_pb2 import CustomerChanged, CustomerErased
from shop.marketing.events.v1.marketing_pb2 import CampaignSent
from shop.orders.events.v1.orders_pb2 import OrderConfirmed, OrderPlaced, OrderRejected
from shop.shipping.events.v1.shipping_pb2 import ParcelHandedOver

from .mail_server import mail_server
from .world import messages, send_all, sender

RETENTION = timedelta(hours=1)


def event_of(message: Message, version: int = 1, age: timedelta = timedelta(0)) -> CloudEvent:
    kind = event_type(type(message))
    return CloudEvent(
        event_id=new_event_id(),
        source="/shop/test",
        type=kind.name,
        topic=kind.topic.name,
        key=kind.key_of(message),
        version=version,
        occurred_at=datetime.now(UTC) - age,
        headers={},
        payload=message.SerializeToString(),
    )


async def handle(database, *messages_: Message | tuple[Message, int]) -> None:
    """Handle events as the consumer does, each in a transaction; a tuple says the version."""
    handlers = Intake("shop.example").handlers
    for one in messages_:
        message, version = one if isinstance(one, tuple) else (one, 1)
        async with database.transaction() as connection:
            await handlers[type(message)](connection, event_of(message, version), message)


async def test_each_event_makes_its_message_for_whom_it_concerns(database, server):
    await handle(
        database,
        CustomerChanged(account_id="ada", email_address="ada@example.org", locale="de-DE"),
        OrderPlaced(order_id="o-1", customer_id="ada"),
        OrderConfirmed(order_id="o-1", tracking_id="t-1", customer_id="ada"),
        ParcelHandedOver(order_id="o-1", tracking_id="t-1", carrier="postal"),
        OrderPlaced(order_id="o-2", customer_id="ada"),
        OrderRejected(
            order_id="o-2", reason="no more tea", code="OUT_OF_STOCK"
        ),  # as it was before it named the customer
        CampaignSent(account_id="ada", campaign_id="c-1", subject="Neuer Tee", text="Es gibt\nneuen Tee."),
    )
    await send_all(sender(database, server.port))
    assert sorted(server.subjects()) == [
        "Das Paket Ihrer Bestellung o-1 ist unterwegs",
        "Ihre Bestellung o-1 ist bestätigt",
        "Neuer Tee",
        "Wir können Ihre Bestellung o-2 nicht ausführen",
    ]
    assert {one.customer_id for one in await messages(database)} == {"ada"}


async def test_whose_a_parcel_is_may_be_heard_after_it_was_handed_over(database, server):
    await handle(
        database,
        ParcelHandedOver(order_id="o-1", tracking_id="t-1", carrier="postal"),
        OrderPlaced(order_id="o-1", customer_id="ada"),
        CustomerChanged(account_id="ada", email_address="ada@example.org", locale="en"),
    )
    await send_all(sender(database, server.port))
    assert server.recipients == ["ada@example.org"]
    (one,) = await messages(database, customer_id="ada")
    assert one.template is MailTemplate.PARCEL_HANDED_OVER


async def test_an_older_address_replaces_no_newer_one_and_none_comes_back_after_the_end(database):
    def changed(address: str) -> CustomerChanged:
        return CustomerChanged(account_id="ada", email_address=address, locale="en")

    async def known():
        return await database.pool.fetchval("SELECT email FROM contact WHERE customer_id = 'ada'")

    await handle(database, (changed("new@example.org"), 2), (changed("old@example.org"), 1))
    assert await known() == "new@example.org"
    await handle(database, OrderPlaced(order_id="o-1", customer_id="ada"), OrderConfirmed(order_id="o-1"))
    await handle(database, (CustomerErased(account_id="ada"), 3), (changed("late@example.org"), 4))
    assert await known() == ""
    (one,) = await messages(database)
    assert (one.state, dict(one.parameters)) == (State.SUPPRESSED, {})
    assert await database.pool.fetchval("SELECT count(*) FROM customer_of_order") == 0


@asynccontextmanager
async def serving(database_url: str, broker: str, port: int | None = None) -> AsyncIterator[Runtime]:
    settings = Settings(
        database_url=SecretStr(database_url),
        broker=SecretStr(broker),
        smtp=None if port is None else SecretStr(f"smtp://127.0.0.1:{port}"),
    )
    async with running(settings, partial(assemble, settings)) as runtime:
        yield runtime


@pytest_asyncio.fixture(loop_scope="session")
async def publish(nats):
    """Publishes events as a relay does."""
    broker = open_broker(nats.url)
    await broker.ensure([event_type(one).topic for one in Intake("shop.example").handlers], RETENTION)

    async def append(*events: CloudEvent) -> None:
        for event in events:
            kind = event_type_of(event)
            record = EventRecord(attributes(event, "urn:sha256:0"), event.payload)
            await broker.append(event.topic, kind.topic.partition_of(event.key), [record])

    yield append
    await broker.close()


def event_type_of(event: CloudEvent):
    return next(kind for kind in map(event_type, Intake("shop.example").handlers) if kind.name == event.type)


async def test_a_mail_follows_from_an_event_and_none_from_a_replay(database, database_url, nats, publish):
    ada, order = f"ada-{uuid4().hex}", f"o-{uuid4().hex}"
    events = [
        event_of(CustomerChanged(account_id=ada, email_address="ada@example.org", locale="en")),
        event_of(OrderPlaced(order_id=order, customer_id=ada)),
        event_of(OrderConfirmed(order_id=order, tracking_id="t-1", customer_id=ada), 2),
        event_of(OrderRejected(order_id=order, customer_id=ada), 3, timedelta(hours=25)),
    ]
    ends = "SELECT sum(position) FROM inbox_position WHERE consumer = $1"
    async with mail_server() as server:
        async with serving(database_url, nats.url, server.port) as runtime:
            await publish(*events)

            async def told():
                return [one.state for one in await messages(database, order_id=order)]

            await eventually(lambda: _is(told, [State.SUPPRESSED, State.SENT]))
            assert server.subjects() == [f"Your order {order} is confirmed"]
            position = await database.pool.fetchval(ends, CONSUMER)

            async def counted():  # after the commit
                said = await asyncio.to_thread(_metrics, runtime)
                assert 'notification_total{state="sent",template="order-confirmed"} 1.0' in said
                assert 'notification_total{state="suppressed",template="order-rejected"} 1.0' in said
                return True

            await eventually(counted)
        # Everything is read once more, as if nothing had been handled: the messages are there already.
        await database.pool.execute("UPDATE inbox_position SET position = 0, event_id = NULL; DELETE FROM inbox")
        async with serving(database_url, nats.url, server.port):

            async def read_again():
                return await database.pool.fetchval(ends, CONSUMER) >= position

            await eventually(read_again)
            assert await told() == [State.SUPPRESSED, State.SENT]
        assert len(server.mails) == 1


async def test_the_service_is_ready_while_the_mail_server_is_away_or_none_is_set(database_url, nats):
    async with mail_server() as gone:
        pass
    for port in (gone.port, None):
        async with serving(database_url, nats.url, port) as runtime:
            assert runtime.health.ready


def _metrics(runtime: Runtime):
    with urllib.request.urlopen(f"http://{runtime.metrics_address}/metrics") as answer:
        return answer.read().decode()


async def _is(look, wanted):
    return await look() == wanted
