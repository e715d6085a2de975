"""Replicas share the partitions of the real log, and one takes over what a dead one had: each event counts once."""

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta

from amends_events import Consumer
from amends_testkit.waiting import eventually

from .test_rebuild import caught_up
from .world import interleaved, orders, rows

LEASE = timedelta(milliseconds=600)


async def test_two_share_the_partitions_and_a_third_takes_over_on_death(database, broker, projection):
    told = interleaved(orders(90))
    thirds = (told[:150], told[150:300], told[300:])

    def consumer() -> Consumer:
        return Consumer(projection.consumer, database.pool, broker, projection.batches, batch=10, lease=LEASE)

    @asynccontextmanager
    async def running(one: Consumer):
        task = asyncio.create_task(one.run())
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def shares(wanted):
        rows = await database.pool.fetch("SELECT count(*) FROM inbox_position GROUP BY owner ORDER BY 1")
        return [row[0] for row in rows] == wanted

    async def nothing() -> None:
        """A dead process gives nothing back."""

    await broker.tell(thirds[0])
    one, other, third = consumer(), consumer(), consumer()
    async with running(one):
        async with running(other):
            await eventually(lambda: shares([16, 16]), what="two share")
            await broker.tell(thirds[1])
            other._leave = nothing
        async with running(third):
            await broker.tell(thirds[2])
            await caught_up(database, broker, projection)
            await eventually(lambda: shares([16, 16]), what="a third has what the dead one had")
            owners = await database.pool.fetch("SELECT DISTINCT owner FROM inbox_position")
            assert {row["owner"] for row in owners} == {one.owner, third.owner}
    funnel = [sum(column) for column in zip(*(row[2:] for row in (await rows(database.pool))["funnel"]), strict=True)]
    assert funnel == [90, 80, 60, 50, 30, 40, 10, 20]
