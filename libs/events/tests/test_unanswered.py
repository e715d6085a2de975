"""Transactions that are committed while their answer is lost: memory and database stay the same."""

from contextlib import asynccontextmanager

import asyncpg
import pytest
from amends_events.parked import ParkedDecision
from amends_testkit.waiting import eventually

from .world import TOPIC, Listed, consuming, decide, failing, handled, parked, record

pytestmark = pytest.mark.usefixtures("hurried")


class Unanswered:
    """A pool of which the first transaction with a statement that has a text is committed and says that it failed."""

    def __init__(self, pool: asyncpg.Pool, text: str) -> None:
        self._pool, self._text = pool, text
        self.unanswered = 0

    def __getattr__(self, name: str):
        return getattr(self._pool, name)

    @asynccontextmanager
    async def acquire(self, **options):
        async with self._pool.acquire(**options) as connection:
            yield _Unanswered(self, connection, self._text)


class _Unanswered:
    def __init__(self, pool: Unanswered, connection, text: str) -> None:
        self._all, self._connection, self._text = pool, connection, text
        self._heard = False

    def __getattr__(self, name: str):
        return getattr(self._connection, name)

    async def executemany(self, sql: str, *values) -> None:
        self._heard |= self._text in sql
        await self._connection.executemany(sql, *values)

    async def execute(self, sql: str, *values) -> str:
        tag = await self._connection.execute(sql, *values)
        self._heard |= self._text in sql
        if sql == "COMMIT" and self._heard and not self._all.unanswered:
            self._all.unanswered += 1
            raise ConnectionResetError("the answer is lost")
        return tag


@pytest.mark.parametrize("payload", [None, b"\xff"], ids=["failed", "undecodable"])
async def test_a_key_that_was_parked_by_a_commit_without_an_answer_waits_and_is_released(pool, payload):
    listed, unanswered = Listed(), Unanswered(pool, "INSERT INTO inbox_parked")
    await listed.append(TOPIC, 0, [record(1, payload=payload)])
    async with consuming(unanswered, listed, failing(1)):
        (poison,) = await parked(pool, 1)
        await listed.append(TOPIC, 0, [record(2), record(3, "o-2")])
        assert await handled(pool, 1) == [("o-2", 3)]
        await parked(pool, 2)
        await decide(pool, poison, ParkedDecision.SKIP, "ada", "a test order")
        assert await handled(pool, 2) == [("o-2", 3), ("o-1", 2)]
        await parked(pool, 0)
    assert unanswered.unanswered == 1


async def test_a_key_that_was_released_by_a_commit_without_an_answer_is_free(pool):
    listed, unanswered = Listed(), Unanswered(pool, "SET released_at")
    await listed.append(TOPIC, 0, [record(1)])
    async with consuming(unanswered, listed, failing(1)) as consumer:
        (poison,) = await parked(pool, 1)
        await decide(pool, poison, ParkedDecision.SKIP, "ada", "a test order")
        await parked(pool, 0)

        async def free() -> bool:
            return not any(partition.blocked for partition in consumer.partitions)

        await eventually(free, what="a key that is free")
    assert unanswered.unanswered == 1
