"""A relay and a consumer that die at one of the places at which a process can die, in processes of their own.

Run by test_crash_points.py: `python -m libs.events.tests.dying relay|consumer URL BROKER PREFIX`. For each place that
there is, the work is laid out, a process is forked that dies there (exit code 137), and another one that does the
rest. One line of JSON tells what came of it.

A place is before or after anything that the outside can tell apart: a call of the broker, and a statement of the
relay's session or of a transaction of the consumer. They are counted, not listed: the last round is the one in which
nobody died.
"""

import asyncio
import json
import sys
from datetime import timedelta

import asyncpg
from amends_events import Consumer, Relay, event_type, open_broker
from amends_events import partition as reading
from amends_testkit.dying import DIED, Fate, forked
from amends_testkit.waiting import eventually

from libs.events.tests.world import EMPTIED, TOPIC, Named, effects, note, outbox, pay, read_all, record
from shop.payments.events.v1.payments_pb2 import PaymentRefunded, PaymentTaken

VERSIONS = (1, 2)


def wrapped(fate: Fate, name: str, call):
    async def around(*arguments, **named):
        said = name if not arguments or not isinstance(arguments[0], str) else f"{name} {arguments[0].split()[0]}"
        fate.here(f"before {said}")
        answer = await call(*arguments, **named)
        fate.here(f"after {said}")
        return answer

    return around


class DyingConnection(asyncpg.Connection):
    """A session whose statements are places; of a consumer's, those in transactions."""

    fate: Fate
    everything = False

    def _around(self, name: str, call, query: str):
        if self.everything or self.is_in_transaction() or query.startswith("BEGIN"):
            return wrapped(self.fate, name, call)
        return call

    async def execute(self, query, *arguments, timeout=None):
        return await self._around("execute", super().execute, query)(query, *arguments, timeout=timeout)

    async def fetch(self, query, *arguments, timeout=None, record_class=None):
        return await self._around("fetch", super().fetch, query)(query, *arguments, timeout=timeout)

    async def fetchrow(self, query, *arguments, timeout=None, record_class=None):
        return await self._around("fetchrow", super().fetchrow, query)(query, *arguments, timeout=timeout)


class DyingBroker(Named):
    """A broker whose appends are places."""

    fate: Fate

    async def append(self, topic, partition, records):
        return await wrapped(self.fate, f"append {partition}", super().append)(topic, partition, records)


def keys_of(place: int) -> list[str]:
    """The keys of one round, of two partitions."""
    names = [f"o-{place}-{number}" for number in range(32)]
    other = next(name for name in names if partition_of(name) != partition_of(names[0]))
    return [names[0], other]


def partition_of(key: str) -> int:
    return event_type(PaymentTaken).topic.partition_of(key)


async def relay(url: str, broker: Named, fate: Fate) -> None:
    """Publish until the outbox is empty."""
    DyingConnection.fate, DyingConnection.everything = fate, True
    one = Relay(lambda: asyncpg.connect(url, connection_class=DyingConnection), outbox(), broker)
    async with one._session() as connection:
        while await one.publish_once(connection):
            pass


async def follow(connection, event, message) -> None:
    """A handler with an effect, and an event that follows from it."""
    await note(connection, event, message)
    await outbox().append(connection, PaymentRefunded(order_id=event.key), event.version)


async def consume(url: str, broker: Named, fate: Fate) -> None:
    """Consume until everything has its effect."""
    reading.WAIT = timedelta(milliseconds=20)
    DyingConnection.fate = fate
    async with (
        asyncpg.create_pool(url, min_size=1, max_size=6, connection_class=DyingConnection) as pool,
        asyncpg.create_pool(url, min_size=1, max_size=1) as watching,
    ):
        consumer = Consumer("test", pool, broker, {PaymentTaken: follow}, lease=timedelta(milliseconds=200))
        task = asyncio.create_task(consumer.run())

        async def done() -> bool:
            return task.done() or len(await effects(watching)) >= len(VERSIONS)

        await eventually(done)
        task.cancel()
        await asyncio.wait([task])


async def lay_out(kind: str, url: str, broker: Named, place: int) -> None:
    """Begin anew: the work is in the outbox, or in the log behind what was handled in the rounds before."""
    topics = outbox().topics
    await broker.ensure(topics, timedelta(hours=1))
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(EMPTIED)
        if kind == "relay":
            for _ in VERSIONS:
                for key in keys_of(place):
                    await pay(connection, outbox(), key)
            return
        for partition, ends in (await broker.ends(TOPIC)).items():
            await connection.execute(
                "INSERT INTO inbox_position (consumer, topic, partition, position) VALUES ('test', $1, $2, $3)",
                TOPIC,
                partition,
                ends.last,
            )
        key = keys_of(place)[0]
        await broker.append(TOPIC, partition_of(key), [record(version, key) for version in VERSIONS])
    finally:
        await connection.close()


async def look(url: str, broker: Named, place: int) -> dict:
    """What came of it: the log as it is, the effects, and what the consumer wrote into its outbox."""
    log = {}
    for key in keys_of(place):
        found = await read_all(broker, TOPIC, partition_of(key))
        log[key] = [int(one.attributes["sequence"]) for one in found if one.attributes["subject"] == key]
    pool = await asyncpg.create_pool(url, min_size=1, max_size=1)
    try:
        rows = await pool.fetch("SELECT version FROM outbox WHERE type LIKE '%Refunded' ORDER BY seq")
        left = await pool.fetchval("SELECT count(*) FROM outbox WHERE type LIKE '%Taken'")
        had = [version for _, version in await effects(pool)]
        return {"log": log, "effects": had, "followed": [row["version"] for row in rows], "left": left}
    finally:
        await pool.close()


def main(kind: str, url: str, server: str, prefix: str) -> None:
    """Die at each place in turn, until nobody dies."""
    runs = relay if kind == "relay" else consume

    async def dying(place: int) -> list[str]:
        broker = DyingBroker(open_broker(server), prefix)
        broker.fate = Fate(0)
        await lay_out(kind, url, broker, place)
        broker.fate = Fate(place)
        await runs(url, broker, broker.fate)
        await broker.broker.close()
        return broker.fate.names

    async def rest(place: int) -> dict:
        broker = DyingBroker(open_broker(server), prefix)
        broker.fate = Fate(0)
        await runs(url, broker, broker.fate)
        found = await look(url, broker, place)
        await broker.broker.close()
        return found

    for place in range(1, 200):
        died, where = forked(lambda: dying(place))  # noqa: B023
        code, found = forked(lambda: rest(place))  # noqa: B023
        if code:
            raise RuntimeError(f"nobody could do the rest after a death {where}: {found}")
        print(json.dumps({"died": died, "where": where, **json.loads(found)}), flush=True)
        if died != DIED:
            return
    raise RuntimeError("there is no end of places")


if __name__ == "__main__":
    main(*sys.argv[1:])
