"""A projection is built beside the one that serves, from a real log and from exports, and takes its place."""

import asyncio
import shutil
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import date, timedelta

import asyncpg
import pytest
from amends_chassis.database import Database
from amends_chassis.migrations import migrate
from amends_chassis.projections import versions
from amends_chassis.projections.freshness import Freshness, begin_reading, places
from amends_chassis.projections.rebuild import Rebuild
from amends_embedded import Nats
from amends_events import Consumer, open_broker
from amends_events.decisions import DecidedBy
from amends_events.parked import ParkedDecision, ParkedFilter, decide, list_parked
from amends_testkit.log import RETENTION, PrefixedBroker
from amends_testkit.waiting import eventually
from shop_reporting import store
from shop_reporting.domain import Period
from shop_reporting.parts import kind
from shop_reporting.projection import BATCH, LAYOUT, NAME, OrderProjection
from shop_reporting.repair import Repair

from .world import TOPICS, VIEWS, Kept, interleaved, orders, rows

ORDERS = 60
HUNDRED_THOUSAND, CHUNK = 100_000, 5_000
EVER = Period(date.min, date.max)


def ignore(*_):
    """Nobody watches."""


def consumes(database, broker, **options):
    async def consume(projection):
        await Consumer(projection.consumer, database.pool, broker, projection.batches, batch=BATCH, **options).run()

    return consume


def builder(database, broker, kept=None, consume=None) -> Rebuild:
    return Rebuild(database, broker, kept or Kept(), consume or consumes(database, broker), kind(ignore))


@asynccontextmanager
async def beside(work):
    """Do the block beside something that never ends."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()


async def whole(database, of):
    """A projection that was given everything at once."""
    async with database.pool.acquire() as connection:
        made = OrderProjection((await versions.make(connection, LAYOUT)).version, ignore)
        await made.take(connection, [one.fact for told in of for one in told])
    return made


async def caught_up(database, broker, projection, within=timedelta(seconds=30)):
    fresh = Freshness(broker, TOPICS)

    async def look():
        await fresh.look()
        read = await places(database.pool, projection.consumer)
        return len(read) == 32 and not fresh.left(read)

    await eventually(look, what="everything is read", timeout=within)


async def test_a_rebuild_from_the_log_has_row_for_row_what_the_live_projection_has(database, broker, projection):
    """E27, while events flow."""
    told = interleaved(orders(ORDERS))
    early, late = told[:250], told[250:]
    await broker.tell(early)
    async with beside(consumes(database, broker)(projection)):
        await caught_up(database, broker, projection)
        rebuilding = asyncio.create_task(builder(database, broker).run(ignore))
        await broker.tell(late)
        assert await rebuilding == 2
        await caught_up(database, broker, projection)
    async with beside(consumes(database, broker)(OrderProjection(2, ignore))):
        await caught_up(database, broker, OrderProjection(2, ignore))
    assert await rows(database.pool) == await rows(database.pool, "r1")
    assert len((await rows(database.pool))["order_process"]) == ORDERS
    serving = await versions.serving(database.pool)
    assert (serving.version, serving.from_export) == (2, False)


async def test_an_export_that_overlaps_the_stream_gives_equal_rows(database, broker, projection):
    """E28: what happens after the positions were noted is in the export too, or in part of it."""
    of = orders(ORDERS)
    told = interleaved(of)
    await broker.tell(told[:200])
    async with beside(consumes(database, broker)(projection)):
        kept = Kept(of)
        page = kept.page

        async def page_while_events_flow(source, token):
            if kept.pages == 3:
                await broker.tell(told[200:])
            return await page(source, token)

        kept.page = page_while_events_flow
        assert await builder(database, broker, kept).run(ignore, export=True) == 2
        await caught_up(database, broker, projection)
    async with beside(consumes(database, broker)(OrderProjection(2, ignore))):
        await caught_up(database, broker, OrderProjection(2, ignore))
    assert await rows(database.pool) == await rows(database.pool, "r1")
    assert (await versions.serving(database.pool)).from_export


async def test_an_export_that_fails_is_gone_on_with_where_it_was(database, broker):
    kept = Kept(orders(ORDERS))
    page = kept.page

    async def fails(source, token):
        if source == "payments" and token:
            raise ConnectionError("killed")
        return await page(source, token)

    kept.page = fails
    with pytest.raises(ConnectionError):
        await builder(database, broker, kept).run(ignore, export=True)
    read, kept.page = kept.pages, page
    assert await builder(database, broker, kept).run(ignore) == 1
    whole = Kept(orders(ORDERS))
    await builder(database, broker, whole).run(ignore, export=True)
    assert kept.pages == whole.pages > read
    assert await rows(database.pool, "r1") == await rows(database.pool, "r2")


async def test_readers_see_no_error_during_the_switch_and_one_projection_or_the_other(database, broker, projection):
    stop, seen = asyncio.Event(), []

    async def read():
        connection = await database.open_connection()
        try:
            while not stop.is_set():
                async with connection.transaction():
                    await begin_reading(connection, NAME)
                    rows = await store.funnel(connection, EVER)
                    seen.append(sum(row["placed"] for row in rows))
        finally:
            await connection.close()

    async with database.transaction() as transaction:
        await projection.take(transaction, [one.fact for told in orders(10) for one in told])
    readers = [asyncio.create_task(read()) for _ in range(3)]
    kept = Kept(orders(20))
    for _ in range(3):
        await builder(database, broker, kept).run(ignore, export=True)
    stop.set()
    await asyncio.gather(*readers)
    assert set(seen) == {10, 20}
    assert sorted(seen) == seen


async def test_one_process_builds_at_a_time(database, broker):
    async with versions.alone(database) as held:
        assert held is not None
        assert await builder(database, broker).run(ignore) is None
    assert await builder(database, broker).run(ignore) == 1


async def test_a_log_that_lost_its_store_is_replaced_by_what_services_export(database, projection, tmp_path):
    """E8: the consumer of the old projection stands still, and that of the new one needs nothing of the old log."""
    of = orders(ORDERS)
    told = interleaved(of)
    async with await Nats.start(tmp_path / "nats") as nats:
        client = open_broker(nats.url)
        broker = PrefixedBroker(client, TOPICS)
        await client.ensure(TOPICS, RETENTION)
        await broker.tell(told[:200])
        async with beside(consumes(database, broker)(projection)):
            await caught_up(database, broker, projection)
        await client.close()
    shutil.rmtree(tmp_path / "nats")
    async with await Nats.start(tmp_path / "nats") as nats:
        client = open_broker(nats.url)
        broker = PrefixedBroker(client, TOPICS)
        await client.ensure(TOPICS, RETENTION)
        await broker.tell(told[100:])
        assert await builder(database, broker, Kept(of)).run(ignore) == 2
        assert (await versions.serving(database.pool)).from_export
        async with beside(consumes(database, broker)(OrderProjection(2, ignore))):
            await caught_up(database, broker, OrderProjection(2, ignore))
        await client.close()
    wanted = await whole(database, of)
    assert await rows(database.pool) == await rows(database.pool, wanted.schema)


async def test_a_log_that_has_forgotten_is_not_begun_with(database, broker, projection):
    of = orders(ORDERS)
    await broker.tell(interleaved(of))
    ends = broker.ends

    async def forgotten(topic):
        return {number: replace(one, first=min(3, one.last + 1)) for number, one in (await ends(topic)).items()}

    broker.ends = forgotten
    assert await builder(database, broker, Kept(of)).run(ignore) == 2
    assert (await versions.serving(database.pool)).from_export
    broker.ends = ends
    wanted = await whole(database, of)
    assert await rows(database.pool) == await rows(database.pool, wanted.schema)


async def test_what_a_person_has_left_out_is_left_out_of_the_next_projection_too(database, broker, projection):
    """An event that nobody can read holds up its order in every projection; it is decided about once."""
    of = orders(9)
    taken = of[0][2]
    place = (taken.topic.name, taken.topic.partition_of(taken.key))
    await broker.append(*place, [replace(taken.record, payload=b"\xff")])
    await broker.tell(interleaved(of))
    async with beside(consumes(database, broker)(projection)):
        await caught_up(database, broker, projection)
        [poison, *behind] = await parked(database, projection)
        assert behind
        async with database.pool.acquire() as connection:
            await decide(connection, poison.place, ParkedDecision.SKIP, DecidedBy("ada", "nobody can read it"))
        await eventually(lambda: none_is_parked(database, projection), what="those behind it follow")
        assert await builder(database, broker).run(ignore) == 2
    wanted = await whole(database, of)
    assert await rows(database.pool) == await rows(database.pool, "r1") == await rows(database.pool, wanted.schema)


async def parked(database, projection):
    return await list_parked(database.pool, ParkedFilter(projection.consumer))


async def none_is_parked(database, projection):
    return not await parked(database, projection)


async def test_a_gap_is_repaired_by_the_export_of_its_order(database, projection):
    of = orders(9)
    told = [one for told in of for one in told]
    async with database.transaction() as transaction:
        await projection.take(transaction, [one.fact for one in told if one.version != 2])
    assert await database.pool.fetchval("SELECT count(*) FROM r1.version_gap") == 2
    repair = Repair(database, Kept(of), projection)
    assert await repair.close() == 2
    assert await repair.close() == 0
    assert await database.pool.fetchval("SELECT count(*) FROM r1.version_gap") == 0
    async with database.transaction() as transaction:
        await projection.take(transaction, [one.fact for one in told])
    shown = await rows(database.pool)
    assert shown["order_process"]


async def test_what_is_retired_is_dropped_when_nobody_goes_back_any_more(database, broker, projection):
    await builder(database, broker).run(ignore)
    async with database.pool.acquire() as connection:
        assert await versions.drop_retired(connection, timedelta(days=1)) == []
        assert await versions.drop_retired(connection, timedelta(0)) == [1]
        with pytest.raises(asyncpg.RaiseError, match="serves"):
            await versions.drop(connection, 2)
    assert await database.pool.fetchval("SELECT to_regnamespace('r1')") is None


async def test_who_builds_needs_no_rights_but_those_of_serving(postgres):
    """The role that serves owns nothing: schemas are made by functions of the owner."""
    owner = Database(await postgres.create("reporting_owner", "reporting_roles"))
    serving = Database(await postgres.create("reporting_serves", "reporting_roles", owner="reporting_owner"))
    await owner.connect()
    await serving.connect()
    try:
        await migrate(owner, "shop_reporting.migrations", serving="reporting_serves")
        async with serving.pool.acquire() as connection:
            for _ in range(2):
                made = await versions.make(connection, LAYOUT)
                await versions.switch(connection, made.version)
                await OrderProjection(made.version, ignore).take(connection, [one.fact for one in orders(1)[0]])
                assert await connection.fetchval("SELECT count(*) FROM order_process") == 1
            assert await versions.drop_retired(connection, timedelta(0)) == [1]
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute("CREATE SCHEMA mine")
    finally:
        await serving.close()
        await owner.close()
        await postgres.drop("reporting_roles", "reporting_serves")


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_a_hundred_thousand_orders_are_rebuilt_row_for_row(database, broker, projection):
    async with beside(consumes(database, broker)(projection)):
        for first in range(0, HUNDRED_THOUSAND, CHUNK):
            await broker.tell(interleaved(orders(CHUNK, first), seed=first))
        await caught_up(database, broker, projection, timedelta(minutes=20))
        assert await builder(database, broker).run(ignore) == 2
    for view in VIEWS:
        for one, other in (("r1", "r2"), ("r2", "r1")):
            differ = f"SELECT count(*) FROM (TABLE {one}.{view} EXCEPT ALL TABLE {other}.{view}) AS differ"
            assert await database.pool.fetchval(differ) == 0
    assert await database.pool.fetchval("SELECT count(*) FROM order_process") == HUNDRED_THOUSAND
