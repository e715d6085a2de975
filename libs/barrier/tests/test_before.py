"""What a handler has to do outside is done before its transaction, and holds nothing while it lasts."""

import asyncio
from datetime import timedelta

import pytest
from amends_barrier import connection
from amends_testkit.waiting import eventually
from grpc import StatusCode

from .ledger import Ledger, serve


@pytest.fixture
def outside(ledger: Ledger):
    """Remembers what was prepared, with the session's count of transactions open meanwhile."""
    asked: list[str] = []

    async def ask(message):
        asked.append(message.value)
        with pytest.raises(LookupError):
            connection()

    ledger.first["Charge"] = ask
    return asked


async def test_it_comes_first_and_at_each_attempt(ledger: Ledger, outside):
    first = await ledger.charge()
    assert await ledger.charge() == first
    assert outside == ["o-1", "o-1"]
    assert await ledger.effects() == ["Charge"]


async def test_calls_that_wait_outside_leave_the_connections_to_the_others(suite_url: str):
    async with serve(suite_url, connections=1) as ledger:
        gate = asyncio.Event()

        async def wait(message):
            if message.value.startswith("slow"):
                await gate.wait()

        ledger.first["Charge"] = wait
        slow = [asyncio.create_task(ledger.charge(f"slow-{number}", key=f"k-{number}")) for number in range(20)]
        assert (await ledger.charge("quick", key="quick", timeout=timedelta(seconds=5))).ok
        gate.set()
        assert all(reply.ok for reply in await asyncio.gather(*slow))


async def test_a_refusal_there_is_the_answer_and_leaves_nothing(ledger: Ledger):
    async def refuse(message):
        raise ValueError("declined")

    ledger.first["Charge"] = refuse
    reply = await ledger.charge()
    assert (reply.code, reply.guarded) == (StatusCode.UNKNOWN, True)
    assert (ledger.calls, await ledger.rows()) == ([], {})


async def test_a_void_asks_nobody_outside(ledger: Ledger, outside):
    assert (await ledger.void()).voided == "voided"
    assert outside == []
    assert (await ledger.charge()).reason == "STEP_FENCED"


async def test_a_caller_who_leaves_meanwhile_leaves_nothing_behind(ledger: Ledger):
    cut = asyncio.Event()

    async def wait(message):
        try:
            await asyncio.Event().wait()
        finally:
            cut.set()

    ledger.first["Charge"] = wait
    await ledger.left_by_its_caller(ledger.charge(timeout=timedelta(milliseconds=100)))
    await eventually(cut.is_set)
    assert (ledger.calls, await ledger.rows()) == ([], {})


async def test_bytes_that_are_no_message_are_refused_before_anything(ledger: Ledger, outside):
    reply = await ledger.call("Charge", b"\xff", operation="action")
    assert (reply.code, reply.reason) == (StatusCode.INVALID_ARGUMENT, "REQUEST_UNREADABLE")
    assert outside == []


async def test_a_call_that_gets_no_connection_in_time_is_told_to_try_again(
    suite_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("amends_barrier.transaction.ACQUIRE_TIMEOUT", timedelta(milliseconds=50))
    async with serve(suite_url, connections=1) as ledger, ledger.pool.acquire():
        reply = await ledger.charge()
        assert (reply.code, reply.reason) == (StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")
