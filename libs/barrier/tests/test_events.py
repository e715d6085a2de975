"""Steps that events ask for: the fence in the transaction of whoever handles the event."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import asyncpg
import pytest
import pytest_asyncio
from amends_barrier import Reason, action, compensation, savepoint

from .ledger import Ledger

KEY = "k-1"  # what the ledger's callers use too
OPERATIONS = {"action": action, "compensation": compensation}


@pytest_asyncio.fixture(loop_scope="session")
async def pool(ledger: Ledger, suite_url: str) -> AsyncIterator[asyncpg.Pool]:
    async with asyncpg.create_pool(suite_url, min_size=1, max_size=4) as made:
        yield made


async def asked(pool: asyncpg.Pool, operation: str) -> bool:
    """Ask in a transaction of its own, which is committed."""
    async with pool.acquire() as connection, connection.transaction():
        return await OPERATIONS[operation](connection, KEY)


@pytest.mark.parametrize(
    ("order", "answers"),
    [
        (["action"], [True]),
        (["action", "action"], [True, False]),
        (["action", "compensation"], [True, True]),
        (["action", "compensation", "compensation", "action"], [True, True, False, False]),
        (["compensation", "action"], [False, False]),
        (["compensation", "compensation", "action", "compensation"], [False, False, False, False]),
    ],
)
async def test_an_effect_happens_once_is_undone_once_and_never_after_it_was_undone(
    pool: asyncpg.Pool, order: list[str], answers: list[bool]
) -> None:
    assert [await asked(pool, operation) for operation in order] == answers


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_the_right_is_rolled_back_with_the_transaction(pool: asyncpg.Pool, operation: str) -> None:
    await asked(pool, "action")
    async with pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await compensation(connection, KEY)
        await transaction.rollback()
    assert await asked(pool, "compensation")


async def test_an_effect_that_was_refused_leaves_nothing_to_undo(pool: asyncpg.Pool) -> None:
    async with pool.acquire() as connection:
        await connection.execute("BEGIN")
        with suppress(LookupError):
            async with savepoint(connection):
                assert await action(connection, KEY)
                raise LookupError("out of stock")
        await connection.execute("COMMIT")
    assert not await asked(pool, "compensation")


@pytest.mark.parametrize("is_committed", [True, False])
async def test_a_compensation_waits_for_the_action_that_is_under_way(pool: asyncpg.Pool, is_committed: bool) -> None:
    async with pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        assert await action(connection, KEY)
        undoing = asyncio.create_task(asked(pool, "compensation"))
        while not await pool.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"):
            assert not undoing.done()
        await (transaction.commit() if is_committed else transaction.rollback())
    assert await undoing is is_committed
    assert not await asked(pool, "action")


async def test_twenty_at_once_of_each_have_one_effect_that_is_undone_once_or_none(pool: asyncpg.Pool) -> None:
    order = ["action", "compensation"] * 20
    answers = await asyncio.gather(*(asked(pool, operation) for operation in order))
    done = [answer for operation, answer in zip(order, answers, strict=True) if operation == "action" and answer]
    undone = [answer for operation, answer in zip(order, answers, strict=True) if operation != "action" and answer]
    assert len(done) == len(undone) <= 1


async def test_a_call_with_the_key_of_such_a_step_is_refused(ledger: Ledger, pool: asyncpg.Pool) -> None:
    await asked(pool, "action")
    assert (await ledger.charge()).reason == Reason.KEY_REUSED
    await asked(pool, "compensation")
    assert (await ledger.charge()).reason == Reason.STEP_FENCED


async def test_a_key_that_no_call_could_have_is_refused(pool: asyncpg.Pool) -> None:
    async with pool.acquire() as connection:
        for key in ("", "order 1", "o'1", "x" * 256):
            with pytest.raises(ValueError, match="a key has"):
                await action(connection, key)
