"""How long this process may believe that it holds its lease: never longer than the database does."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import uuid4

from amends_orchestrator.journal.connection import Connect
from amends_orchestrator.journal.ids import RunIds
from amends_orchestrator.runner.heartbeat import Heartbeat
from amends_testkit.waiting import eventually

LEASE = timedelta(seconds=2)
SLOW = 0.5


class Holder:
    """Hears until when the lease is held."""

    until = 0.0

    def hold_lease(self, until: float) -> None:
        self.until = until


class SlowAnswer:
    """A connection whose answers arrive late, after the database has done its work."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def fetchrow(self, *arguments: Any) -> Any:
        row = await self._connection.fetchrow(*arguments)
        await asyncio.sleep(SLOW)
        return row

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


async def test_a_lease_counts_from_before_the_database_was_asked(connect: Connect):
    opened = await connect()

    async def slow() -> Any:
        return SlowAnswer(opened)

    process, holder, loop = uuid4(), Holder(), asyncio.get_running_loop()
    heartbeat = Heartbeat(process, "test", LEASE, slow, RunIds())
    for _ in range(2):  # made, and renewed
        asked = loop.time()
        await heartbeat.beat(holder)  # type: ignore[arg-type]
        left = await opened.fetchval("SELECT expires_at - clock_timestamp() FROM process WHERE id = $1", process)
        assert holder.until - loop.time() <= left.total_seconds()
        assert asked + LEASE.total_seconds() <= holder.until + 0.01
    await opened.close()


async def test_a_connection_that_fails_is_replaced_soon_and_the_last_one_is_closed_with_the_lease(connect: Connect):
    opened: list[Any] = []

    async def remembered() -> Any:
        opened.append(await connect())
        return opened[-1]

    process, holder, loop = uuid4(), Holder(), asyncio.get_running_loop()
    heartbeat = Heartbeat(process, "test", LEASE, remembered, RunIds())
    beating = asyncio.create_task(heartbeat.run(holder))  # type: ignore[arg-type]
    await eventually(lambda: holder.until)
    first = holder.until
    opened[0].terminate()
    await eventually(lambda: holder.until > first)
    assert holder.until - LEASE.total_seconds() - loop.time() < 0.1
    beating.cancel()
    await asyncio.gather(beating, return_exceptions=True)
    looking = await connect()
    stands = "SELECT expires_at > clock_timestamp() FROM process WHERE id = $1"
    assert await looking.fetchval(stands, process)
    await heartbeat.end()
    assert not await looking.fetchval(stands, process)
    assert [connection.is_closed() for connection in opened] == [True, True]
    await looking.close()


async def test_a_lease_that_was_never_made_can_be_ended(connect: Connect):
    async def away() -> Any:
        raise OSError("nobody listens")

    await Heartbeat(uuid4(), "test", LEASE, away, RunIds()).end()
    await Heartbeat(uuid4(), "test", LEASE, connect, RunIds()).end()
