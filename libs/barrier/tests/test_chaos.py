"""Actions, compensations and voids of the same keys at once, while connections are killed and callers leave."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import asyncpg
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from grpc import StatusCode

from .ledger import Ledger, Reply, leave_effect, serve

AGAIN = (StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED, StatusCode.CANCELLED, StatusCode.INTERNAL)
KILL = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1
"""
KEYS, AT_ONCE = 120, 30
TRIES = 300
Called = Callable[..., Awaitable[Reply]]


@asynccontextmanager
async def kills(url: str, chance: random.Random):
    """One connection to the database after the other is ended by the server, until the block ends."""
    connection = await asyncpg.connect(url)

    async def kill() -> None:
        while True:
            await asyncio.sleep(chance.uniform(0, 0.04))
            await connection.execute(KILL)

    killing = asyncio.create_task(kill())
    try:
        yield
    finally:
        killing.cancel()
        await asyncio.gather(killing, return_exceptions=True)
        await connection.close()


async def insist(call: Called, key: str, chance: random.Random) -> Reply:
    """Call until there is a definite answer, now and then with little patience."""
    for _ in range(TRIES):
        patience = timedelta(seconds=chance.choice((0.01, 0.03, 5, 5, 5)))
        reply = await call(key, key=key, timeout=patience)
        if reply.code not in AGAIN:
            return reply
        await asyncio.sleep(0.002)
    raise AssertionError(f"no definite answer for {key}: {reply}")


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
async def test_nothing_is_half_done_doubled_or_late_while_connections_die(suite_url: str, isolation: str) -> None:
    chance = random.Random(isolation)
    async with serve(suite_url, default_transaction_isolation=isolation) as ledger:

        async def charge(message: StringValue, context) -> StringValue:
            number = await leave_effect("Charge", message.value)
            await asyncio.sleep(chance.uniform(0, 0.01))
            if chance.random() < 0.1:
                await context.abort(StatusCode.INTERNAL, "out of order")
            return StringValue(value=f"Charge {number}")

        async def void(what: str, **more) -> Reply:
            return await ledger.void(**more)

        async def one_saga(key: str) -> dict[str, list[Reply]]:
            calls: list[Called] = [ledger.charge] * chance.randint(0, 3) + [ledger.refund] * chance.randint(0, 3)
            calls += [void] * chance.randint(0, 2)
            chance.shuffle(calls)
            replies = await asyncio.gather(*(insist(call, key, chance) for call in calls))
            said: dict[str, list[Reply]] = {"charge": [], "refund": [], "void": []}
            for call, reply in zip(calls, replies, strict=True):
                said[call.__name__].append(reply)
            return said

        ledger.on["Charge"] = charge
        keys = [f"k-{number}" for number in range(KEYS)]
        told: list[dict[str, list[Reply]]] = []
        async with kills(suite_url, chance):
            for first in range(0, KEYS, AT_ONCE):
                told += await asyncio.gather(*(one_saga(key) for key in keys[first : first + AT_ONCE]))
            await ledger.barrier.drain()
        await ledger.pool.expire_connections()  # those that were killed while idle
        assert len(told) == KEYS
        for key, said in zip(keys, told, strict=True):
            await assert_answers_agree_with_effects(ledger, key, said)


async def assert_answers_agree_with_effects(ledger: Ledger, key: str, said: dict[str, list[Reply]]) -> None:
    """Assert that the caller was told what was done."""
    effects = await ledger.effects(key)
    assert effects in ([], ["Charge"], ["Charge", "Refund"])
    assert {reply.reason for reply in said["charge"]} <= {"", "STEP_FENCED"}
    assert all(reply.ok for reply in said["refund"] + said["void"])
    for replies in ([reply for reply in said["charge"] if reply.ok], said["refund"], said["void"]):
        assert len({(reply.response, reply.voided) for reply in replies}) <= 1
    if any(reply.ok for reply in said["charge"]):
        assert effects
    if said["refund"]:
        assert effects in ([], ["Charge", "Refund"])
    if any(reply.voided == "voided" for reply in said["void"]):
        assert effects == []
