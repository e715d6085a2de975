"""Facts in, rows out, on a real Postgres: whatever comes twice, late or from two sides at once."""

import asyncio
import random
from collections import Counter

from amends_chassis.projections import versions
from shop_reporting.facts import columns
from shop_reporting.projection import LAYOUT, OrderProjection

from shop.payments.events.v1.payments_pb2 import PaymentRefunded, PaymentTaken

from .world import interleaved, order, orders, rows, split

MANY = 90


async def take(database, projection, told, size=40):
    for piece in split(told, size):
        async with database.transaction() as transaction:
            await projection.take(transaction, [one.fact for one in piece])


async def other(database, projection):
    """A second projection beside the first."""
    async with database.pool.acquire() as connection:
        made = await versions.make(connection, LAYOUT)
    return OrderProjection(made.version, lambda new: None)


async def test_sums_are_those_of_the_events(database, projection):
    of = orders(MANY)
    await take(database, projection, interleaved(of))
    found = await rows(database.pool)
    taken, refunded = Counter(), Counter()
    for one in (one for told in of for one in told):
        if isinstance(one.message, PaymentTaken):
            taken[one.at.date(), one.message.amount.currency] += one.message.amount.minor
        if isinstance(one.message, PaymentRefunded):
            refunded[one.at.date(), one.message.amount.currency] += one.message.amount.minor
    assert {(day, currency): minor for day, currency, *_, minor, _, _ in found["sales"] if minor} == taken
    assert {(day, currency): minor for day, currency, *_, minor in found["sales"] if minor} == refunded
    funnel = [sum(column) for column in zip(*(row[2:] for row in found["funnel"]), strict=True)]
    assert funnel == [90, 80, 60, 50, 30, 40, 10, 20]
    undone = [sum(column) for column in zip(*(row[2:] for row in found["undone"]), strict=True)]
    assert undone == [50, 40, 20, 30, 30, 20, 10]


async def test_every_sequence_with_duplicates_ends_in_the_same_rows(database, projection):
    of = orders(MANY)
    await take(database, projection, interleaved(of))
    wanted = await rows(database.pool)
    for seed in range(4):
        chance = random.Random(seed)
        told = [one for told in of for one in told] * 2
        chance.shuffle(told)
        again = await other(database, projection)
        await take(database, again, told, size=chance.choice([1, 13, 500]) if seed else 1_000)
        assert await rows(database.pool, again.schema) == wanted


async def test_sums_of_topics_that_are_read_at_once_are_right(database, projection):
    """Four consumers write the same orders and the same sums; none waits for another in a circle."""
    of = orders(300)
    wanted = await other(database, projection)
    await take(database, wanted, [one for told in of for one in told], size=1_000)
    topics = {}
    for one in interleaved(of):
        topics.setdefault(one.topic.name, []).append(one)
    await asyncio.gather(*(take(database, projection, told, size=25) for told in topics.values()))
    assert await rows(database.pool) == await rows(database.pool, wanted.schema)


async def test_what_is_known_writes_no_row(database, projection):
    told = [one for told in orders(20) for one in told]
    await take(database, projection, told)
    before = await database.pool.fetch("SELECT ctid, xmin, * FROM r1.order_fact")
    await take(database, projection, told)
    assert await database.pool.fetch("SELECT ctid, xmin, * FROM r1.order_fact") == before


async def test_a_version_that_was_jumped_over_is_a_gap_until_it_comes(database, projection):
    counted = []
    projection._count_gaps = counted.append
    placed, *_, refunded, released = order(5)
    taken = order(5)[2]
    await take(database, projection, [placed, refunded, released])
    gaps = await database.pool.fetch("SELECT order_id, source FROM r1.version_gap ORDER BY source")
    assert [tuple(gap) for gap in gaps] == [("o-000005", "inventory"), ("o-000005", "payments")]
    await take(database, projection, [taken])
    gaps = await database.pool.fetch("SELECT source FROM r1.version_gap")
    assert [tuple(gap) for gap in gaps] == [("inventory",)]
    assert counted == [2, 0]


async def test_an_order_is_open_until_all_is_undone(database, projection):
    async def is_open(told):
        await take(database, projection, [told])
        return await database.pool.fetchval("SELECT open_since IS NOT NULL FROM order_process")

    assert [await is_open(one) for one in order(5)] == [True, True, True, True, True, False]
    await database.pool.execute("TRUNCATE r1.order_fact")
    assert [await is_open(one) for one in reversed(order(5))] == [False, False, False, False, False, False]
    await database.pool.execute("TRUNCATE r1.order_fact")
    assert [await is_open(one) for one in order(2)] == [True, True, True, True, False]


def test_no_facts_have_no_columns():
    assert columns([]) == ()
