"""What the suite works on: payments that publish events, effects of a consumer, and a broker with names of its own."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest
from amends_embedded import Nats
from amends_events import (
    Broker,
    CloudEvent,
    Consumer,
    Ends,
    EventRecord,
    LogEntry,
    Outbox,
    Relay,
    Topic,
    UnknownError,
    event_type,
    open_broker,
    with_event,
)
from amends_events import parked as parking
from amends_events import replay as replays
from amends_events.decisions import DecidedBy
from amends_events.envelope import attributes, new_event_id
from amends_events.parked import ParkedFilter, list_parked
from amends_testkit.kafka import HOW_TO_GET, Kafka, libraries
from amends_testkit.waiting import eventually
from google.protobuf.message import Message

from shop.payments.events.v1.payments_pb2 import PaymentRefunded, PaymentTaken

EFFECTS = """
CREATE TABLE payment (order_id text PRIMARY KEY, version bigint NOT NULL);
CREATE TABLE effect (
    number bigint GENERATED ALWAYS AS IDENTITY, event_id uuid NOT NULL, key text NOT NULL, version bigint NOT NULL
);
"""
PAY = with_event(
    "INSERT INTO payment VALUES ($1, 1) ON CONFLICT (order_id) DO UPDATE SET version = payment.version + 1"
    " RETURNING version",
    1,
)
TABLES = [
    "outbox",
    "outbox_sent",
    "event_decision",
    "inbox",
    "inbox_position",
    "inbox_member",
    "inbox_parked",
    "effect",
    "payment",
]
EMPTIED = ";".join(f"DELETE FROM {table}" for table in TABLES)
SOURCE = "/shop/payments"
ADA = DecidedBy("ada", "the disk was full")
TOPIC = "shop.payments.events.v1"


class Named:
    """A broker whose topics have a prefix, so that tests share a server and no topic."""

    def __init__(self, broker: Broker, prefix: str) -> None:
        self.broker = broker
        self._prefix = prefix

    def name(self, topic: str) -> str:
        return f"{self._prefix}.{topic}"

    async def ensure(self, topics: Sequence[Topic], retention: timedelta) -> None:
        await self.broker.ensure([Topic(self.name(topic.name), topic.partitions) for topic in topics], retention)

    async def append(self, topic, partition, records):
        return await self.broker.append(self.name(topic), partition, records)

    def read(self, topic, partition, after, **options):
        return self.broker.read(self.name(topic), partition, after, **options)

    async def ends(self, topic):
        return await self.broker.ends(self.name(topic))

    async def close(self) -> None:
        """The session closes the broker itself."""


class Listed:
    """A log in memory, in one partition, that keeps whatever it is given: also the same record twice."""

    def __init__(self) -> None:
        self.log: list[EventRecord] = []

    async def append(self, topic, partition, records) -> int:
        self.log += records
        return 0

    async def read(self, topic, partition, after, *, limit=100, wait=timedelta(seconds=1)):
        while True:
            found = [] if partition else self.log[after : after + limit]
            yield [LogEntry(after + number, one) for number, one in enumerate(found, 1)]
            after += len(found)
            if not found:
                await asyncio.sleep(wait.total_seconds())

    async def ends(self, topic) -> dict[int, Ends]:
        return {number: Ends(1, 0 if number else len(self.log)) for number in range(8)}

    async def ensure(self, topics, retention) -> None:
        """Everything is there."""

    async def close(self) -> None:
        """There is nothing to close."""


def outbox() -> Outbox:
    return Outbox(SOURCE, (PaymentTaken, PaymentRefunded))


def record(number: int, key: str = "o-1", payload: bytes | None = None, kind: str | None = None) -> EventRecord:
    """An event with a version of `number`, as a relay would publish it."""
    event = CloudEvent(
        event_id=new_event_id(),
        source=SOURCE,
        type=kind or PaymentTaken.DESCRIPTOR.full_name,
        topic=TOPIC,
        key=key,
        version=number,
        occurred_at=datetime.now(UTC),
        headers={},
        payload=PaymentTaken(order_id=key).SerializeToString() if payload is None else payload,
    )
    return EventRecord(attributes(event, "urn:sha256:0"), event.payload)


async def pay(connection, box: Outbox, order_id: str) -> None:
    """The change and its event in one statement, as a store does it."""
    await connection.execute(PAY, order_id, *box.row(PaymentTaken(order_id=order_id)).values)


async def note(connection, event: CloudEvent, message: PaymentTaken) -> None:
    """A handler whose effect can be counted."""
    await connection.execute(
        "INSERT INTO effect (event_id, key, version) VALUES ($1, $2, $3)", event.event_id, event.key, event.version
    )


async def effects(pool: asyncpg.Pool) -> list[tuple[str, int]]:
    """Key and version of every effect, in the order in which they were committed for their key."""
    rows = await pool.fetch("SELECT key, version FROM effect ORDER BY number")
    return [(row["key"], row["version"]) for row in rows]


async def decide(pool, event, decision, actor: str, because: str):
    """Decide about a parked event as a person would."""
    async with pool.acquire() as connection:
        return await parking.decide(connection, event.place, decision, DecidedBy(actor, because))


async def replay(pool, moves, by: DecidedBy = ADA, **options) -> None:
    """Move the consumer `test`."""
    async with pool.acquire() as connection:
        await replays.replay(connection, "test", event_type(PaymentTaken).topic, moves, by, **options)


@asynccontextmanager
async def relaying(url: str, box: Outbox, broker: Broker, **options) -> AsyncIterator[Relay]:
    relay = Relay(lambda: asyncpg.connect(url), box, broker, **options)
    async with running(relay.run()):
        yield relay


@asynccontextmanager
async def consuming(pool, broker, handler=note, name: str = "test", **options) -> AsyncIterator[Consumer]:
    consumer = Consumer(name, pool, broker, {PaymentTaken: handler}, **options)
    async with running(consumer.run()):
        yield consumer


@asynccontextmanager
async def running(work) -> AsyncIterator[asyncio.Task]:
    """Do the block beside something that never ends; what it raises is raised here."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()


@asynccontextmanager
async def own_nats(folder: Path, **options) -> AsyncIterator[tuple[Nats, Broker]]:
    """A server of the test's own, which it may kill, and a client of it."""
    async with await Nats.start(folder, **options) as server, _client(server) as broker:
        yield server, broker


@asynccontextmanager
async def own_kafka(folder: Path) -> AsyncIterator[tuple[Kafka, Broker]]:
    """The same of the other kind; skipped, with how to get one, where there are no programs of it."""
    jars = libraries()
    if jars is None:
        pytest.skip(HOW_TO_GET)
    async with await Kafka.start(folder, jars) as server, _client(server) as broker:
        yield server, broker


@asynccontextmanager
async def _client(server: Nats | Kafka) -> AsyncIterator[Broker]:
    broker = open_broker(server.url)
    try:
        yield broker
    finally:
        await broker.close()


async def answers(broker: Broker) -> bool:
    """Whether the broker is there (again)."""
    try:
        await broker.ensure([], timedelta(hours=1))
    except UnknownError:
        return False
    return True


async def read_all(broker: Broker, topic: str, partition: int) -> list[EventRecord]:
    """Everything that a partition's log has now."""
    last = (await broker.ends(topic))[partition].last
    found: list[EventRecord] = []
    if not last:
        return found
    async for batch in broker.read(topic, partition, 0, wait=timedelta(milliseconds=200)):
        found += [stored.record for stored in batch]
        if batch and batch[-1].position >= last:
            return found
    raise AssertionError("reading never ends")


async def handled(pool, count: int) -> list[tuple[str, int]]:
    async def look():
        return len(await effects(pool)) >= count

    await eventually(look, what=f"{count} effects")
    return await effects(pool)


async def parked(pool, count: int):
    async def look():
        return len(await list_parked(pool, ParkedFilter("test"))) == count

    await eventually(look, what=f"{count} parked events")
    return await list_parked(pool, ParkedFilter("test"))


def failing(*versions: int, times: int = 1_000_000, error: type[Exception] = ValueError):
    """A handler that fails for events of these versions, so many times in all."""
    left = [times]

    async def handle(connection, event, message: Message) -> None:
        if event.version in versions and left[0]:
            left[0] -= 1
            await connection.execute(
                "INSERT INTO effect (event_id, key, version) VALUES ($1, 'half', 0)", event.event_id
            )
            raise error("not now")
        await note(connection, event, message)

    handle.left = left
    return handle
