"""The cost of events: each side beside what it is compared with, on a real Postgres and a real NATS server with fsync.

A charge with its event against the charge alone; the relay against a client that publishes the same batches, and
beside a transaction that stands idle; a relay that is told against one that looks each second; a consumer of batches
against one that handles them one by one.
"""

import asyncio
import itertools
import os
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import asyncpg
from amends_embedded import Nats, Postgres
from amends_events import (
    INBOX,
    OUTBOX,
    Batches,
    Broker,
    CloudEvent,
    Consumer,
    EventRecord,
    Outbox,
    Relay,
    Result,
    event_type,
    open_broker,
    with_event,
)
from amends_events import relay as relaying
from amends_events.envelope import new_event_id
from amends_testkit.waiting import eventually
from rich.progress import Progress

from amends_bench.suite import Comparison, Round, SuiteOptions, alternate
from amends_bench.verify import WrongTotalsError
from amends_bench.world import check_durable, used
from shop.payments.events.v1.payments_pb2 import PaymentTaken

# A payment and its double entry, as in libs/barrier/bench: what the shop's payments do for a charge.
TABLES = """
CREATE TABLE payment (
    payment_id text PRIMARY KEY, order_id text NOT NULL UNIQUE, minor bigint NOT NULL CHECK (minor > 0),
    version bigint NOT NULL DEFAULT 1, charged_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE entry (
    entry_id text PRIMARY KEY, payment_id text NOT NULL REFERENCES payment, at timestamptz NOT NULL DEFAULT now());
CREATE TABLE posting (
    entry_id text NOT NULL REFERENCES entry, account text NOT NULL, minor bigint NOT NULL,
    PRIMARY KEY (entry_id, account));
CREATE TABLE effect (order_id text NOT NULL, event_id uuid NOT NULL);
"""
PAYMENT = (
    "INSERT INTO payment (payment_id, order_id, minor) VALUES ($1, $2, $3)"
    " ON CONFLICT (order_id) DO NOTHING RETURNING payment_id, version"
)
FUSED = with_event(PAYMENT, 3)
ENTRY = "INSERT INTO entry (entry_id, payment_id) VALUES ($1, $2)"
POSTING = "INSERT INTO posting (entry_id, account, minor) SELECT $1, p.* FROM unnest($2::text[], $3::bigint[]) AS p"
EMPTY = "TRUNCATE payment, entry, posting, effect, outbox, inbox, inbox_position, inbox_member"
CONNECTIONS = 16
SOURCE = "/shop/payments"
TOPIC = event_type(PaymentTaken).topic
PATIENCE = timedelta(seconds=60)
Charge = Callable[[Any, str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class EventsWorld:
    """The servers of this benchmark, and clients of them."""

    postgres: Postgres
    url: str
    pool: Any
    broker: Broker
    outbox: Outbox

    def processor_seconds(self) -> float:
        """Return the processor time of this process and of Postgres."""
        return used([self.postgres.pid, os.getpid()])


async def events(options: SuiteOptions, progress: Progress) -> list[Comparison]:
    """Measure all that is said of events."""
    size = 4_000 if options.quick else 20_000
    found = [
        Comparison("events own", "a charge, and its event by a statement of its own", "a charge", "per second", 0.85),
        Comparison("events fused", "a charge with its event in its statement", "a charge", "per second", 1.0),
        Comparison("events relay", "the relay", "a bare client with the same batches", "per second", 0.6),
        Comparison("events idle", "the relay beside an idle transaction", "the relay", "per second", 0.5),
        Comparison("events latency", "commit to published, looking each second", "told", "seconds", 50),
        Comparison("events batches", "handled 100 at once, by a statement", "one by one", "per second", 15),
        Comparison("events transactions", "handled 100 in a transaction", "one by one", "per second", None),
    ]
    async with _world() as world:
        relay = _Drain(world, size)
        sides: list[tuple[Round, Round]] = [
            (_charges(world, options, _own), _charges(world, options, _alone)),
            (_charges(world, options, _fused), _charges(world, options, _alone)),
            (relay.published, relay.published_by_hand),
            (relay.published_beside_an_idle_transaction, relay.published),
            (_latency(world, told=False), _latency(world, told=True)),
            (_consumed(world, _TOGETHER, 100, 10_000), _consumed(world, _TOGETHER, 1, 400)),
            (_consumed(world, _EACH, 100, 4_000), _consumed(world, _EACH, 1, 400)),
        ]
        for one, (subject, peer) in zip(found, sides, strict=True):
            if one.name != "events latency":
                await subject()
                await peer()
            rounds = options.rounds
            if one.name == "events latency":  # each round of its peer looks for seconds
                rounds = 1 if options.quick else min(rounds, 5)
            await alternate(one, subject, peer, rounds, progress)
    return [*found, *_by_processor(found[:2])]


def _by_processor(charges: Sequence[Comparison]) -> Iterator[Comparison]:
    """Yield the same rounds by what they cost, which other work on the machine changes less."""
    for one in charges:
        yield Comparison(
            f"{one.name} processor",
            one.subject,
            one.peer,
            "per second of processor",
            None,
            subject_rounds=one.subject_rounds,
            peer_rounds=one.peer_rounds,
            key="per_processor_second",
        )


@asynccontextmanager
async def _world() -> AsyncIterator[EventsWorld]:
    with TemporaryDirectory() as folder:
        async with (
            await Postgres.start(Path(folder) / "postgres") as postgres,
            await Nats.start(Path(folder) / "nats") as nats,
        ):
            await check_durable(postgres.admin_url)
            url = await postgres.create("bench", "bench")
            async with asyncpg.create_pool(url, min_size=CONNECTIONS, max_size=CONNECTIONS) as pool:
                await pool.execute(OUTBOX + INBOX + TABLES)
                broker = open_broker(nats.url)
                try:
                    await broker.ensure([TOPIC], timedelta(hours=1))
                    yield EventsWorld(postgres, url, pool, broker, Outbox(SOURCE, [PaymentTaken]))
                finally:
                    await broker.close()


# ---------------------------------------------------------------- charges


def _event(order_id: str) -> PaymentTaken:
    """Return an event of about 300 bytes."""
    return PaymentTaken(order_id=order_id, payment_id="p" * 260)


def _charges(world: EventsWorld, options: SuiteOptions, charge: Callable[[EventsWorld, Any, str], Any]) -> Round:
    async def round_() -> Mapping[str, Any]:
        await world.pool.execute(EMPTY)
        numbers, done = itertools.count(), 0
        until = time.perf_counter() + options.duration.total_seconds()

        async def client() -> None:
            nonlocal done
            while time.perf_counter() < until:
                async with world.pool.acquire() as connection, connection.transaction():
                    await charge(world, connection, f"o-{next(numbers)}")
                done += 1

        began, worked = time.perf_counter(), world.processor_seconds()
        await asyncio.gather(*(client() for _ in range(CONNECTIONS)))
        took, worked = time.perf_counter() - began, world.processor_seconds() - worked
        events = await world.pool.fetchval("SELECT count(*) FROM outbox")
        if events != (0 if charge is _alone else done):
            raise WrongTotalsError(f"{done} charges left {events} events")
        return {"rate": done / took, "per_processor_second": done / worked}

    return round_


async def _booked(connection: Any, order_id: str, payment_id: str) -> None:
    await connection.execute(ENTRY, f"ent_{order_id}", payment_id)
    await connection.execute(POSTING, f"ent_{order_id}", ["cards", "merchant"], [-100, 100])


async def _alone(world: EventsWorld, connection: Any, order_id: str) -> None:
    row = await connection.fetchrow(PAYMENT, f"pay_{order_id}", order_id, 100)
    await _booked(connection, order_id, row["payment_id"])


async def _own(world: EventsWorld, connection: Any, order_id: str) -> None:
    row = await connection.fetchrow(PAYMENT, f"pay_{order_id}", order_id, 100)
    await _booked(connection, order_id, row["payment_id"])
    await world.outbox.append(connection, _event(order_id), row["version"])


async def _fused(world: EventsWorld, connection: Any, order_id: str) -> None:
    row = await connection.fetchrow(FUSED, f"pay_{order_id}", order_id, 100, *world.outbox.row(_event(order_id)).values)
    await _booked(connection, order_id, row["payment_id"])


# ---------------------------------------------------------------- relay


class _Kept:
    """Keeps the batches that the broker has taken."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.batches: list[tuple[str, int, Sequence[EventRecord]]] = []

    async def append(self, topic: str, partition: int, records: Sequence[EventRecord]) -> int:
        """Store the records."""
        self.batches.append((topic, partition, records))
        return await self._broker.append(topic, partition, records)


class _Drain:
    """An outbox that is full, and what publishes it."""

    def __init__(self, world: EventsWorld, size: int) -> None:
        self._world = world
        self._size = size
        self._batches: list[tuple[str, int, Sequence[EventRecord]]] = []

    async def published(self) -> Mapping[str, Any]:
        """Let the relay empty the outbox."""
        await self._fill()
        return await self._drained()

    async def published_beside_an_idle_transaction(self) -> Mapping[str, Any]:
        """Let the relay empty the outbox while a transaction that has read it keeps every deleted row alive."""
        await self._fill()
        idle = await asyncpg.connect(self._world.url)
        try:
            await idle.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            await idle.fetchval("SELECT count(*) FROM outbox")
            return await self._drained()
        finally:
            await idle.close()

    async def published_by_hand(self) -> Mapping[str, Any]:
        """Publish the batches of the last time once more, as other events, as many at once as there are partitions."""
        batches = [
            (
                topic,
                partition,
                [EventRecord({**one.attributes, "id": str(new_event_id())}, one.payload) for one in records],
            )
            for topic, partition, records in self._batches
        ]
        began = time.perf_counter()
        for first in range(0, len(batches), TOPIC.partitions):
            together = batches[first : first + TOPIC.partitions]
            await asyncio.gather(*(self._world.broker.append(*batch) for batch in together))
        return {"rate": self._size / (time.perf_counter() - began)}

    async def _fill(self) -> None:
        await self._world.pool.execute("TRUNCATE outbox")
        rows = [(*self._world.outbox.row(_event(f"o-{number}")).values, 1) for number in range(self._size)]
        columns = ["event_id", "topic", "partition", "key", "type", "dataschema", "headers", "payload", "version"]
        await self._world.pool.copy_records_to_table("outbox", records=rows, columns=columns)

    async def _drained(self) -> Mapping[str, Any]:
        kept = _Kept(self._world.broker)
        relay = _relay(self._world, self._world.outbox, kept)
        async with relay._session() as connection:
            began = time.perf_counter()
            published = 0
            while found := await relay.publish_once(connection):
                published += found
            took = time.perf_counter() - began
        if published != self._size:
            raise WrongTotalsError(f"{published} of {self._size} events were published")
        self._batches = kept.batches
        return {"rate": self._size / took}


def _relay(world: EventsWorld, outbox: Outbox, broker: Any) -> Relay:
    return Relay(lambda: asyncpg.connect(world.url), outbox, broker)


class _Told:
    """Notes when the event of which key was acknowledged."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._at: dict[str, asyncio.Future[float]] = {}

    async def append(self, topic: str, partition: int, records: Sequence[EventRecord]) -> int:
        """Store the records."""
        duplicates = await self._broker.append(topic, partition, records)
        for one in records:
            self.when(one.attributes["subject"]).set_result(time.perf_counter())
        return duplicates

    def when(self, key: str) -> "asyncio.Future[float]":
        """Return what will say when the event of a key was acknowledged."""
        return self._at.setdefault(key, asyncio.get_running_loop().create_future())


def _latency(world: EventsWorld, *, told: bool) -> Round:
    """Return the round that takes the median time from a commit to the broker's answer."""

    async def round_() -> Mapping[str, Any]:
        await world.pool.execute(EMPTY)
        broker = _Told(world.broker)
        # A relay that shares no outbox with whoever commits is not told, and looks.
        relay = _relay(world, world.outbox if told else Outbox(SOURCE, [PaymentTaken]), broker)
        task = asyncio.create_task(relay.run())
        await eventually(lambda: len(relay.owned) == TOPIC.partitions)
        found = []
        for number in range(30 if told else 6):
            order_id = f"l-{time.time_ns()}"
            values = world.outbox.row(_event(order_id)).values
            await world.pool.fetchrow(FUSED, f"pay_{order_id}", order_id, 100, *values)
            committed = time.perf_counter()
            async with asyncio.timeout(PATIENCE.total_seconds()):
                found.append(await broker.when(order_id) - committed)
            await asyncio.sleep(0.037 * (1 + number % 5))  # commits fall anywhere between two looks
        task.cancel()
        await asyncio.wait([task])
        return {"rate": statistics.median(found)}

    if told:
        return round_

    async def slowly() -> Mapping[str, Any]:
        with _looking(timedelta(seconds=1)):
            return await round_()

    return slowly


@contextmanager
def _looking(every: timedelta) -> Iterator[None]:
    """Have relays look at this interval."""
    before = relaying.POLL_MIN, relaying.POLL_MAX
    relaying.POLL_MIN = relaying.POLL_MAX = every
    try:
        yield
    finally:
        relaying.POLL_MIN, relaying.POLL_MAX = before


# ---------------------------------------------------------------- consumer


async def _effect(connection: Any, event: CloudEvent, message: PaymentTaken) -> None:
    await connection.execute("INSERT INTO effect VALUES ($1, $2)", message.order_id, event.event_id)


async def _all_effects(connection: Any, events: Sequence[tuple[CloudEvent, PaymentTaken]]) -> None:
    await connection.execute(
        "INSERT INTO effect SELECT * FROM unnest($1::text[], $2::uuid[])",
        [message.order_id for _, message in events],
        [event.event_id for event, _ in events],
    )


_TOGETHER = Batches((PaymentTaken,), _all_effects)
_EACH = {PaymentTaken: _effect}


class _Enough:
    """A meter that says when so many events were handled, and since when: what comes before the first is no rate."""

    def __init__(self, events: int) -> None:
        self._events = events
        self._counted = 0
        self._began = self._ended = 0.0
        self.reached = asyncio.Event()

    @property
    def rate(self) -> float:
        """Return the events a second after the first transaction."""
        return self._counted / (self._ended - self._began)

    def handled(self, consumer: str, event_type: str, result: Any, events: int = 1) -> None:
        """Count what was committed with its effect."""
        if result is not Result.HANDLED:
            return
        now = time.perf_counter()
        if not self._began:
            self._began = now
            return
        self._counted += events
        self._ended = now
        if self._counted >= self._events:
            self.reached.set()

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


def _consumed(world: EventsWorld, handlers: Any, batch: int, events: int) -> Round:
    """Return the round in which a consumer that was never there before handles what the log has."""

    async def round_() -> Mapping[str, Any]:
        await world.pool.execute(EMPTY)
        meter: Any = _Enough(events)
        consumer = Consumer(f"c{time.time_ns()}", world.pool, world.broker, handlers, meter, batch=batch)
        task = asyncio.create_task(consumer.run())
        async with asyncio.timeout(PATIENCE.total_seconds()):
            await meter.reached.wait()
        rate = meter.rate
        task.cancel()
        await asyncio.wait([task])
        effects, distinct = await world.pool.fetchrow("SELECT count(*), count(DISTINCT event_id) FROM effect")
        if effects != distinct or effects < events:
            raise WrongTotalsError(f"{effects} effects of {distinct} events")
        return {"rate": rate}

    return round_
