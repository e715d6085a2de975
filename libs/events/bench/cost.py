"""What events cost, each side beside what it is compared with, in turns on one machine.

    python libs/events/bench/cost.py [--rounds 5]

Four ratios: a transaction with an event against the same one without; the relay against a client that publishes the
same batches; a relay that is told against one that looks each second; a consumer in batches of 100 against one by one.
Postgres and NATS are real, with fsync, and share the machine.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
from amends_embedded import Nats, Postgres
from amends_events import (
    INBOX,
    OUTBOX,
    Broker,
    CloudEvent,
    Consumer,
    EventRecord,
    Outbox,
    Relay,
    Topic,
    event_type,
    open_broker,
    with_event,
)
from amends_events import partition as reading
from amends_events import relay as relaying

from shop.payments.events.v1.payments_pb2 import PaymentTaken

TABLES = """
CREATE TABLE payment (order_id text PRIMARY KEY, minor bigint NOT NULL, version bigint NOT NULL DEFAULT 1);
CREATE TABLE entry (order_id text NOT NULL, minor bigint NOT NULL);
CREATE TABLE effect (order_id text NOT NULL);
"""
INSERT = "INSERT INTO payment (order_id, minor) VALUES ($1, $2) RETURNING version"
FUSED = with_event(INSERT, 2)
ENTRY = "INSERT INTO entry VALUES ($1, $2)"
CONNECTIONS = 16
TRANSACTIONS = 1600
EVENTS = 20_000
SAMPLES = 30
Change = Callable[[Any, str], Awaitable[None]]
BOX = Outbox("/shop/payments", [PaymentTaken])
TOPIC: Topic = event_type(PaymentTaken).topic


def event(order_id: str) -> PaymentTaken:
    """Return an event of about 300 bytes."""
    return PaymentTaken(order_id=order_id, payment_id="p" * 270)


async def plain(connection: Any, order_id: str) -> None:
    """Pay, and tell nobody."""
    async with connection.transaction():
        await connection.fetchval(INSERT, order_id, 100)
        await connection.execute(ENTRY, order_id, 100)


async def appended(connection: Any, order_id: str) -> None:
    """Pay, and write the event by a statement of its own."""
    async with connection.transaction():
        version = await connection.fetchval(INSERT, order_id, 100)
        await connection.execute(ENTRY, order_id, 100)
        await BOX.append(connection, event(order_id), version)


async def fused(connection: Any, order_id: str) -> None:
    """Pay, and write the event in the statement of the change."""
    async with connection.transaction():
        await connection.fetchval(FUSED, order_id, 100, *BOX.row(event(order_id)).values)
        await connection.execute(ENTRY, order_id, 100)


async def rate(pool: Any, change: Change) -> float:
    """Return how many changes a second are committed, CONNECTIONS at a time."""
    await pool.execute("TRUNCATE payment, entry, outbox")
    numbers = iter(range(TRANSACTIONS))

    async def work() -> None:
        async with pool.acquire() as connection:
            for number in numbers:
                await change(connection, f"o-{number}")

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(CONNECTIONS)))
    return TRANSACTIONS / (time.perf_counter() - began)


async def filled(pool: Any, events: int) -> None:
    """Put so many events into the outbox."""
    await pool.execute("TRUNCATE outbox")
    rows = [(*BOX.row(event(f"o-{number}")).values, 1) for number in range(events)]
    await pool.copy_records_to_table(
        "outbox",
        records=rows,
        columns=["event_id", "topic", "partition", "key", "type", "dataschema", "headers", "payload", "version"],
    )


class Kept:
    """Keeps the batches that the broker has taken."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.batches: list[tuple[str, int, Sequence[EventRecord]]] = []

    async def append(self, topic: str, partition: int, records: Sequence[EventRecord]) -> int:
        """Store the records."""
        self.batches.append((topic, partition, records))
        return await self.broker.append(topic, partition, records)


class Told:
    """Notes when the event of which key was acknowledged."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.at: dict[str, asyncio.Future[float]] = {}

    async def append(self, topic: str, partition: int, records: Sequence[EventRecord]) -> int:
        """Store the records."""
        duplicates = await self.broker.append(topic, partition, records)
        for one in records:
            self.when(one.attributes["subject"]).set_result(time.perf_counter())
        return duplicates

    def when(self, key: str) -> "asyncio.Future[float]":
        """Return what will say when the event of a key was acknowledged."""
        return self.at.setdefault(key, asyncio.get_running_loop().create_future())


async def drained(pool: Any, url: str, broker: Broker) -> tuple[float, float]:
    """Return the events a second of the relay, and of a client that publishes the same batches of other events."""
    await filled(pool, EVENTS)
    kept = Kept(broker)
    relay = Relay(lambda: asyncpg.connect(url), BOX, kept)  # type: ignore[arg-type]  # all that a relay uses
    async with relay._session() as connection:
        began = time.perf_counter()
        while await relay.publish_once(connection):
            pass
        ours = EVENTS / (time.perf_counter() - began)
    again = [
        (
            topic,
            partition,
            [type(one)({**one.attributes, "id": f"{one.attributes['id']}-b"}, one.payload) for one in records],
        )
        for topic, partition, records in kept.batches
    ]
    began = time.perf_counter()
    for start in range(0, len(again), TOPIC.partitions):  # as many at once as the relay has partitions
        await asyncio.gather(*(broker.append(*batch) for batch in again[start : start + TOPIC.partitions]))
    return ours, EVENTS / (time.perf_counter() - began)


@contextmanager
def looking(least: timedelta, most: timedelta) -> Iterator[None]:
    """Have relays look at these intervals."""
    before = relaying.POLL_MIN, relaying.POLL_MAX
    relaying.POLL_MIN, relaying.POLL_MAX = least, most
    try:
        yield
    finally:
        relaying.POLL_MIN, relaying.POLL_MAX = before


async def latency(pool: Any, url: str, broker: Broker, box: Outbox, samples: int) -> float:
    """Return the median seconds from a commit to the broker's answer; `box` is the relay's own when it is told."""
    await pool.execute("TRUNCATE payment, entry, outbox")
    told = Told(broker)
    task = asyncio.create_task(Relay(lambda: asyncpg.connect(url), BOX, told).run())
    found = []
    await asyncio.sleep(1.5)  # it has claimed its partitions, and has nothing to do
    for number in range(samples):
        order_id = f"l-{time.time_ns()}"
        await pool.fetchval(FUSED, order_id, 100, *box.row(event(order_id)).values)
        committed = time.perf_counter()
        async with asyncio.timeout(10):
            found.append(await told.when(order_id) - committed)
        await asyncio.sleep(0.037 * (1 + number % 5))
    task.cancel()
    await asyncio.wait([task])
    return statistics.median(found)


async def consumed(pool: Any, broker: Broker, batch: int, events: int) -> float:
    """Return the events a second of a consumer that takes so many in one transaction."""
    name = f"c{time.time_ns()}"
    await pool.execute("TRUNCATE inbox, inbox_position, inbox_member, effect")

    handled, enough = 0, asyncio.Event()

    async def handle(connection: Any, one: CloudEvent, message: PaymentTaken) -> None:
        nonlocal handled
        await connection.execute("INSERT INTO effect VALUES ($1)", message.order_id)
        handled += 1
        if handled >= events:
            enough.set()

    reading.BATCH = batch
    consumer = Consumer(name, pool, broker, {PaymentTaken: handle})
    began = time.perf_counter()
    task = asyncio.create_task(consumer.run())
    await enough.wait()
    took = time.perf_counter() - began
    done = await pool.fetchval("SELECT count(*) FROM effect")
    task.cancel()
    await asyncio.wait([task])
    return done / took


def shown(name: str, ratios: list[float], target: str) -> None:
    """Print a ratio: the median of the rounds, and their spread."""
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    print(f"{name:64} {statistics.median(ratios):8.2f}   ({spread})   target {target}", flush=True)


async def main(rounds: int) -> None:
    """Measure on servers of its own."""
    with tempfile.TemporaryDirectory() as folder:
        async with (
            await Postgres.start(Path(folder) / "pg") as postgres,
            await Nats.start(Path(folder) / "nats") as nats,
        ):
            url = await postgres.create("bench", "bench")
            async with asyncpg.create_pool(url, min_size=CONNECTIONS, max_size=CONNECTIONS) as pool:
                await pool.execute(OUTBOX + INBOX + TABLES)
                broker = open_broker(nats.url)
                await broker.ensure([TOPIC], timedelta(hours=1))
                await measured(pool, url, broker, rounds)
                await broker.close()


async def measured(pool: Any, url: str, broker: Broker, rounds: int) -> None:
    """Print the four ratios."""
    sides = [[await rate(pool, change) for change in (plain, appended, fused)] for _ in range(rounds)]
    shown("a transaction with an event of its own statement / without", [b / a for a, b, _ in sides], ">= 0.85")
    shown("a transaction with the event in its statement / without", [c / a for a, _, c in sides], ">= 1.0")
    pairs = [await drained(pool, url, broker) for _ in range(rounds)]
    shown("relay / bare client with the same batches, events a second", [a / b for a, b in pairs], ">= 0.6")
    ours, bare = (statistics.median(side) for side in zip(*pairs, strict=True))
    print(f"  relay {ours:,.0f}/s, bare client {bare:,.0f}/s")
    told = [await latency(pool, url, broker, BOX, SAMPLES) for _ in range(rounds)]
    with looking(timedelta(seconds=1), timedelta(seconds=1)):
        stranger = Outbox("/shop/payments", [PaymentTaken])
        slow = [await latency(pool, url, broker, stranger, SAMPLES // 3) for _ in range(max(1, rounds // 2))]
    shown(
        "commit to published, p50: looking each second / told", [statistics.median(slow) / one for one in told], ">= 50"
    )
    print(
        f"  told {statistics.median(told) * 1000:.1f} ms, looking each second {statistics.median(slow) * 1000:.0f} ms"
    )
    whole = [await consumed(pool, broker, 100, 5000) for _ in range(rounds)]
    single = [await consumed(pool, broker, 1, 500) for _ in range(rounds)]
    shown("consumer in batches of 100 / one by one", [a / b for a, b in zip(whole, single, strict=True)], ">= 15")
    print(f"  batches {statistics.median(whole):,.0f}/s, one by one {statistics.median(single):,.0f}/s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    asyncio.run(main(parser.parse_args().rounds))
