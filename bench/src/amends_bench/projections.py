"""A projection of the shop's reporting, built from the log, beside the same by hand.

By hand is what a script would do that is thrown away afterwards: it reads the log, copies all facts into a table, and
runs the statement of the projection once. The second comparison leaves the log out of it: the facts are at hand.
"""

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from amends_chassis.database import Database
from amends_chassis.migrations import migrate
from amends_chassis.projections import versions
from amends_chassis.projections.exports import ExportClient
from amends_chassis.projections.projection import Projection
from amends_chassis.projections.rebuild import Rebuild
from amends_embedded import Nats, Postgres
from amends_events import Broker, Consumer, EventRecord, event_type, open_broker
from amends_events.broker import MAX_BATCH
from amends_events.envelope import CloudEvent, attributes, event_from, new_event_id
from google.protobuf.message import Message
from rich.progress import Progress
from shop_reporting import facts, statements
from shop_reporting.facts import SOURCES, TYPES, Fact
from shop_reporting.parts import kind
from shop_reporting.projection import BATCH, LAYOUT

from amends_bench.suite import Comparison, SuiteOptions, alternate
from amends_bench.verify import WrongTotalsError
from amends_bench.world import check_durable, used
from shop.inventory.events.v1.inventory_pb2 import StockReserved
from shop.orders.events.v1.orders_pb2 import OrderConfirmed, OrderDispatched, OrderPlaced
from shop.payments.events.v1.payments_pb2 import PaymentTaken
from shop.shipping.events.v1.shipping_pb2 import ParcelBooked
from shop.types.v1.types_pb2 import Money

SUBJECT = "a projection built from the log"
TOPICS = [source.topic for source in SOURCES]
PRICE = Money(currency="EUR", minor=1_290)
STAGED = """
CREATE TEMPORARY TABLE staged (order_id text, kind smallint, version bigint, at timestamptz, currency text,
    minor bigint, code text, reason text, shard smallint) ON COMMIT DROP
"""


async def projections(options: SuiteOptions, progress: Progress) -> list[Comparison]:
    """Measure how fast a projection is built."""
    read = Comparison("projections", SUBJECT, "the log read, COPY and one statement by hand", "events per second", 0.5)
    at_hand = Comparison("projections at hand", SUBJECT, "COPY and one statement by hand", "events per second", None)
    async with _world(2_000 if options.quick else 20_000) as world:
        await alternate(read, world.rebuilt, world.by_hand, options.rounds, progress)
        await alternate(at_hand, world.rebuilt, world.by_hand_at_hand, options.rounds, progress)
    processor = Comparison(
        "projections processor",
        SUBJECT,
        read.peer,
        "events per second of processor",
        None,
        subject_rounds=read.subject_rounds,
        peer_rounds=read.peer_rounds,
        key="per_processor_second",
    )
    return [read, at_hand, processor]


@dataclass(slots=True)
class _Reporting:
    postgres: Postgres
    nats: Nats
    database: Database
    broker: Broker
    orders: int
    events: int = 0
    facts: list[Fact] = field(default_factory=list)

    async def tell(self) -> None:
        """Put the events of all orders into the log."""
        places: dict[tuple[str, int], list[EventRecord]] = {}
        for message, version in itertools.chain.from_iterable(map(_order, range(self.orders))):
            kind = event_type(type(message))
            key = kind.key_of(message)
            place = (kind.topic.name, kind.topic.partition_of(key))
            places.setdefault(place, []).append(_record(kind.name, kind.topic.name, key, version, message))
            self.events += 1
        for (topic, partition), records in places.items():
            for first in range(0, len(records), MAX_BATCH):
                await self.broker.append(topic, partition, records[first : first + MAX_BATCH])

    async def rebuilt(self) -> Mapping[str, Any]:
        """Build a projection as the command does, until it serves."""
        exports: ExportClient[Fact] = ExportClient({}, lambda events: [])
        rebuild = Rebuild(self.database, self.broker, exports, self._consume, kind(_ignore))
        with self._timed() as figures:
            version = await rebuild.run(_no_progress)
        async with self.database.pool.acquire() as connection:
            await self._judge(connection, f"r{version}")
            await versions.drop_retired(connection, timedelta(0))
        return figures

    async def by_hand(self) -> Mapping[str, Any]:
        """Read the log, copy all facts into a table, and run the statement once."""
        async with self._empty() as (connection, schema):
            with self._timed() as figures:
                places = [(topic.name, number) for topic in TOPICS for number in range(topic.partitions)]
                self.facts = []
                for read in await asyncio.gather(*(self._read(*place) for place in places)):
                    self.facts += read
                await self._copy(connection, schema)
        return figures

    async def by_hand_at_hand(self) -> Mapping[str, Any]:
        """Copy facts that are in memory into a table, and run the statement once."""
        async with self._empty() as (connection, schema):
            with self._timed() as figures:
                await self._copy(connection, schema)
        return figures

    async def _consume(self, projection: Projection[Fact]) -> None:
        await Consumer(projection.consumer, self.database.pool, self.broker, projection.batches, batch=BATCH).run()

    async def _read(self, topic: str, partition: int) -> list[Fact]:
        last = (await self.broker.ends(topic))[partition].last
        found: list[Fact] = []
        if not last:
            return found
        async with aclosing(self.broker.read(topic, partition, 0, limit=BATCH)) as batches:
            async for batch in batches:
                for stored in batch:
                    event = event_from(topic, stored.record.attributes, stored.record.payload)
                    message = TYPES[event.type].FromString(event.payload)
                    found.append(facts.fact(event.type, event.key, event.version, event.occurred_at, message))
                if batch and batch[-1].position >= last:
                    break
        return found

    async def _copy(self, connection: Any, schema: str) -> None:
        async with connection.transaction():
            await connection.execute(STAGED)
            await connection.copy_records_to_table("staged", records=self.facts)
            await connection.execute(statements.take(schema, "SELECT * FROM staged"))

    @asynccontextmanager
    async def _empty(self) -> AsyncIterator[tuple[Any, str]]:
        async with self.database.pool.acquire() as connection:
            made = await versions.make(connection, LAYOUT)
            schema = f"r{made.version}"
            yield connection, schema
            await self._judge(connection, schema)
            await versions.drop(connection, made.version)

    async def _judge(self, connection: Any, schema: str) -> None:
        taken = await connection.fetchval(f"SELECT sum(taken_minor)::bigint FROM {schema}.sales")
        if taken != self.orders * PRICE.minor:
            raise WrongTotalsError(f"{taken} was taken in {schema}, not {self.orders * PRICE.minor}")

    def _timed(self) -> "_Timed":
        return _Timed(self.events, [self.postgres.pid, self.nats.pid, os.getpid()])


class _Timed:
    """Times a block, and gives its figures afterwards."""

    def __init__(self, events: int, processes: Sequence[int]) -> None:
        self._events = events
        self._processes = processes
        self._figures: dict[str, float] = {}
        self._began = self._worked = 0.0

    def __enter__(self) -> Mapping[str, float]:
        self._began, self._worked = time.perf_counter(), used(self._processes)
        return self._figures

    def __exit__(self, *_: object) -> None:
        self._figures["rate"] = self._events / (time.perf_counter() - self._began)
        self._figures["per_processor_second"] = self._events / (used(self._processes) - self._worked)


@asynccontextmanager
async def _world(orders: int) -> AsyncIterator[_Reporting]:
    with TemporaryDirectory() as folder:
        async with (
            await Postgres.start(Path(folder) / "postgres") as postgres,
            await Nats.start(Path(folder) / "nats") as nats,
        ):
            await check_durable(postgres.admin_url)
            database, broker = Database(await postgres.create("bench", "bench")), open_broker(nats.url)
            try:
                await database.connect()
                await migrate(database, "shop_reporting.migrations")
                await broker.ensure(TOPICS, timedelta(hours=1))
                world = _Reporting(postgres, nats, database, broker, orders)
                await world.tell()
                yield world
            finally:
                await broker.close()
                await database.close()


def _order(number: int) -> Iterator[tuple[Message, int]]:
    """Yield the events of an order, with the version that each gives to its row."""
    order_id = f"o-{number}"
    yield OrderPlaced(order_id=order_id, customer_id="ada", total=PRICE), 1
    yield StockReserved(order_id=order_id, reservation_id=f"res-{number}"), 1
    yield PaymentTaken(order_id=order_id, payment_id=f"pay-{number}", amount=PRICE), 1
    yield ParcelBooked(order_id=order_id, tracking_id=f"trk-{number}", carrier="postal", country="DE"), 1
    yield OrderConfirmed(order_id=order_id, tracking_id=f"trk-{number}", payment_id=f"pay-{number}"), 2
    yield OrderDispatched(order_id=order_id), 3


def _record(kind: str, topic: str, key: str, version: int, message: Message) -> EventRecord:
    event = CloudEvent(
        event_id=new_event_id(),
        source="/shop",
        type=kind,
        topic=topic,
        key=key,
        version=version,
        occurred_at=datetime.now(UTC),
        headers={},
        payload=message.SerializeToString(),
    )
    return EventRecord(attributes(event, "urn:sha256:0"), event.payload)


def _ignore(new_gaps: int) -> None:
    """Count nothing: the totals are judged."""


def _no_progress(stage: str, done: int, total: int | None) -> None:
    """Show nothing: the suite has a bar of its own."""
