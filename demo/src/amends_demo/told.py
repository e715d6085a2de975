"""What the services of the shop tell each other about an order, in the broker: read, or spoiled. For the stories."""

from contextlib import aclosing
from datetime import UTC, datetime, timedelta

from amends_events import Broker, CloudEvent, EventRecord, Topic, event_type, open_broker
from amends_events.envelope import attributes, event_from, new_event_id

from shop.inventory.events.v1.inventory_pb2 import StockReserved
from shop.orders.events.v1.orders_pb2 import OrderPlaced
from shop.payments.events.v1.payments_pb2 import PaymentTaken
from shop.shipping.events.v1.shipping_pb2 import ParcelBooked

TOPICS: tuple[Topic, ...] = tuple(
    event_type(one).topic for one in (OrderPlaced, StockReserved, PaymentTaken, ParcelBooked)
)
WAIT = timedelta(milliseconds=100)


def name_of(event: CloudEvent) -> str:
    """Return what an event is called, without its package."""
    return event.type.rpartition(".")[2]


async def events_of(url: str, order_id: str) -> list[CloudEvent]:
    """Return the events of an order that the broker has now, as they happened. Raises BrokerError."""
    broker = open_broker(url)
    try:
        found = [event for topic in TOPICS for event in await _read(broker, topic, topic.partition_of(order_id))]
    finally:
        await broker.close()
    return sorted((event for event in found if event.key == order_id), key=lambda event: event.occurred_at)


async def spoil(url: str, order_id: str) -> None:
    """Put an event of an order into the broker whose bytes are no event, as no service of the shop would."""
    taken = event_type(PaymentTaken)
    event = CloudEvent(
        event_id=new_event_id(),
        source="/somebody/else",
        type=taken.name,
        topic=taken.topic.name,
        key=order_id,
        version=1,
        occurred_at=datetime.now(UTC),
        headers={},
        payload=b"\xff",
    )
    broker = open_broker(url)
    try:
        record = EventRecord(attributes(event, taken.dataschema), event.payload)
        await broker.append(event.topic, taken.topic.partition_of(order_id), [record])
    finally:
        await broker.close()


async def _read(broker: Broker, topic: Topic, partition: int) -> list[CloudEvent]:
    ends = (await broker.ends(topic.name))[partition]
    found: list[CloudEvent] = []
    async with aclosing(broker.read(topic.name, partition, ends.first - 1, wait=WAIT)) as batches:
        while len(found) <= ends.last - ends.first:
            batch = await anext(batches)
            found += [event_from(topic.name, one.record.attributes, one.record.payload) for one in batch]
    return found
