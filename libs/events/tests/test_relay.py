import asyncio
from datetime import timedelta

import asyncpg
import pytest
from amends_events import AppendRefusedError, UnknownError, event_type
from amends_events.envelope import event_from
from amends_events.relay import LEASE, POLL_MAX, Relay
from amends_testkit.waiting import eventually

from shop.payments.events.v1.payments_pb2 import PaymentTaken

from .conftest import RETENTION
from .world import TOPIC, Named, answers, outbox, own_nats, pay, read_all, record, relaying

SOON = timedelta(seconds=5)


async def publishing(pool, broker, order_ids, box=None):
    """Commit a payment for each, in this order."""
    box = box or outbox()
    async with pool.acquire() as connection:
        for order_id in order_ids:
            await pay(connection, box, order_id)


async def emptied(pool):
    async def look():
        return await pool.fetchval("SELECT count(*) = 0 FROM outbox")

    await eventually(look, timeout=timedelta(seconds=20), what="the outbox is empty")


async def log_of(broker) -> dict[str, list[int]]:
    """The versions of each key in the log, first occurrences in their order."""
    found: dict[str, dict[int, None]] = {}
    for partition in await broker.ends(TOPIC):
        for one in await read_all(broker, TOPIC, partition):
            event = event_from(TOPIC, one.attributes, one.payload)
            found.setdefault(event.key, {})[event.version] = None
    return {key: list(versions) for key, versions in found.items()}


class Interrupted:
    """A broker that does what a test says before or after an append."""

    def __init__(self, broker: Named) -> None:
        self.broker = broker
        self.before = self.after = None

    async def append(self, topic, partition, records):
        if self.before is not None:
            await self.before(partition, records)
        duplicates = await self.broker.append(topic, partition, records)
        if self.after is not None:
            await self.after(partition, records)
        return duplicates

    def __getattr__(self, name):
        return getattr(self.broker, name)


async def test_what_is_committed_is_published_and_leaves_the_outbox(pool, events_url, broker):
    await broker.ensure(outbox().topics, RETENTION)
    orders = [f"o-{number}" for number in range(20)] * 3
    async with relaying(events_url, outbox(), broker):
        await publishing(pool, broker, orders)
        await emptied(pool)
    assert await log_of(broker) == {f"o-{number}": [1, 2, 3] for number in range(20)}


async def test_without_the_hint_it_is_found_within_a_poll(pool, events_url, either_broker):
    await either_broker.ensure(outbox().topics, RETENTION)
    async with relaying(events_url, outbox(), either_broker) as relay:
        await eventually(lambda: len(relay.owned) == 8)
        await asyncio.sleep(2 * POLL_MAX.total_seconds())  # it has slowed down
        await publishing(pool, either_broker, ["o-1"], outbox())  # the hint is another process's
        await emptied(pool)
    assert await log_of(either_broker) == {"o-1": [1]}


async def test_transactions_that_commit_in_the_reverse_order_of_their_rows_are_all_published(
    pool, events_url, either_broker
):
    await either_broker.ensure(outbox().topics, RETENTION)
    async with relaying(events_url, outbox(), either_broker), pool.acquire() as early, pool.acquire() as late:
        first = early.transaction()
        await first.start()
        await pay(early, outbox(), "o-1")
        await pay(late, outbox(), "o-2")  # has the greater number, and is committed
        await emptied(pool)
        await first.commit()
        await emptied(pool)
    assert await log_of(either_broker) == {"o-1": [1], "o-2": [1]}


@pytest.mark.parametrize("error", [UnknownError("away"), AppendRefusedError("full")], ids=["unknown", "refused"])
async def test_a_partition_that_is_refused_is_tried_again_in_order_and_others_go_on(
    pool, events_url, either_broker, error
):
    interrupted = Interrupted(either_broker)
    await either_broker.ensure(outbox().topics, RETENTION)
    refusing = asyncio.Event()
    refusing.set()

    async def refuse(partition, records):
        if partition == event_type(PaymentTaken).topic.partition_of("o-1") and refusing.is_set():
            raise error

    interrupted.before = refuse
    async with relaying(events_url, outbox(), interrupted):
        await publishing(pool, either_broker, ["o-1", "o-1", "o-2", "o-1"])

        async def only_the_refused_are_left():
            keys = {row["key"] for row in await pool.fetch("SELECT key FROM outbox")}
            return keys == {"o-1"}

        await eventually(only_the_refused_are_left)
        refusing.clear()
        await emptied(pool)
    assert await log_of(either_broker) == {"o-1": [1, 2, 3], "o-2": [1]}


async def test_a_batch_whose_answer_is_lost_is_published_again_and_keeps_its_order(pool, events_url, broker):
    interrupted = Interrupted(broker)
    await broker.ensure(outbox().topics, RETENTION)
    lost = []

    async def lose(partition, records):
        if len(lost) < 2:
            lost.append(len(records))
            raise UnknownError("the answer was lost")

    interrupted.after = lose
    await publishing(pool, broker, ["o-1", "o-1", "o-1"])
    async with relaying(events_url, outbox(), interrupted):
        await eventually(lambda: len(lost) == 2)
        await publishing(pool, broker, ["o-1", "o-1"])
        await emptied(pool)
    assert await log_of(broker) == {"o-1": [1, 2, 3, 4, 5]}


async def test_two_relays_share_no_partition_and_the_second_takes_over_at_once_when_the_first_dies(
    pool, events_url, either_broker
):
    await either_broker.ensure(outbox().topics, RETENTION)
    sessions: list[asyncpg.Connection] = []

    async def connect():
        sessions.append(await asyncpg.connect(events_url))
        return sessions[-1]

    first = Relay(connect, outbox(), either_broker)
    dying = asyncio.create_task(first.run())
    await eventually(lambda: len(first.owned) == 8)
    async with relaying(events_url, outbox(), either_broker) as second:
        await publishing(pool, either_broker, ["o-1", "o-2"])
        await emptied(pool)
        assert second.owned == frozenset()
        dying.cancel()
        await asyncio.wait([dying])
        sessions[0].terminate()
        await eventually(lambda: len(second.owned) == 8, timeout=LEASE)
        await publishing(pool, either_broker, ["o-1", "o-2"])
        await emptied(pool)
    assert await log_of(either_broker) == {"o-1": [1, 2], "o-2": [1, 2]}


async def test_a_relay_that_stood_still_can_only_repeat_what_its_successor_publishes(pool, events_url, broker):
    """The first stands still between the broker and the DELETE, for longer than its lease."""
    await broker.ensure(outbox().topics, RETENTION)
    stands, goes_on = asyncio.Event(), asyncio.Event()
    stopped = Interrupted(broker)

    async def stand_still(partition, records):
        stands.set()
        await goes_on.wait()

    stopped.before = stand_still
    lease = timedelta(milliseconds=300)
    await publishing(pool, broker, ["o-1", "o-1"])
    async with relaying(events_url, outbox(), stopped, lease=lease) as zombie:
        await stands.wait()
        async with relaying(events_url, outbox(), broker) as successor:
            await eventually(lambda: len(successor.owned) == 8)
            await publishing(pool, broker, ["o-1", "o-1"])
            await emptied(pool)
            await publishing(pool, broker, ["o-1"])
            goes_on.set()  # publishes versions 1 and 2 again, and finds that its session is over
            await eventually(lambda: zombie.owned == frozenset())
            await emptied(pool)
    assert await log_of(broker) == {"o-1": [1, 2, 3, 4, 5]}


async def test_nobody_waits_for_a_broker_that_is_away_and_everything_follows_in_order(pool, events_url, own):
    async with own() as (server, broker):
        await broker.ensure(outbox().topics, RETENTION)
        async with relaying(events_url, outbox(), broker):
            await publishing(pool, broker, ["o-1", "o-2"])
            await emptied(pool)
            server.kill()
            await publishing(pool, broker, ["o-1", "o-2"] * 50)
            assert await pool.fetchval("SELECT count(*) FROM outbox") == 100
            await server.restart()
            await eventually(lambda: answers(broker))
            await emptied(pool)
        assert await log_of(broker) == {"o-1": list(range(1, 52)), "o-2": list(range(1, 52))}


async def test_a_broker_that_is_killed_again_and_again_while_publishing_loses_nothing_acknowledged(
    pool, events_url, own
):
    async with own() as (server, broker):
        await broker.ensure(outbox().topics, RETENTION)
        orders = [f"o-{number}" for number in range(8)]
        async with relaying(events_url, outbox(), broker):
            for _ in range(3):
                writing = asyncio.create_task(publishing(pool, broker, orders * 25))

                async def under_way():
                    return (await pool.fetchval("SELECT count(*) FROM outbox")) > 0

                await eventually(under_way)
                server.kill()
                await server.restart()
                await writing
            await emptied(pool)
        assert await log_of(broker) == {order: list(range(1, 76)) for order in orders}


async def test_a_log_that_is_full_refuses_and_the_outbox_keeps(pool, events_url, tmp_path):
    async with own_nats(tmp_path, max_bytes=2_000_000) as (_, broker):
        await broker.ensure(outbox().topics, RETENTION)
        stored = await _filled(broker)
        async with relaying(events_url, outbox(), broker):
            async with pool.acquire() as connection:
                for version in range(1, 4):
                    await outbox().append(
                        connection, PaymentTaken(order_id="o-2", payment_id="p" * 200_000), version
                    )  # partition 0
            for _ in range(3):
                await asyncio.sleep(POLL_MAX.total_seconds())
            assert await pool.fetchval("SELECT count(*) FROM outbox") == 3
        assert (await broker.ends(TOPIC))[0].last == stored


async def _filled(broker) -> int:
    """Fill the first partition until the broker refuses; return how many records it took."""
    for stored in range(100):
        try:
            await broker.append(TOPIC, 0, [record(stored, payload=bytes(200_000))])
        except AppendRefusedError:
            return stored
    raise AssertionError("the log is never full")
