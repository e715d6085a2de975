"""Runs whose next call is held back: visible, owned by whoever says so, and at no cost while they wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import grpc
import pytest
from amends_orchestrator.journal import claims
from amends_testkit.answers import ScriptedAnswer
from amends_testkit.waiting import eventually

from amends.saga.v1 import definition_service_pb2 as dpb
from amends.saga.v1 import run_service_pb2 as pb

from .shop import EXAMPLE, Client, Shop, open_shop, orchestrator

AWAY = ScriptedAnswer.refused(grpc.StatusCode.UNAVAILABLE, text="away")
SAGA = (EXAMPLE / "saga.yaml").read_text().replace("deadline: 60s", "deadline: 60s\n  stalledAfter: 400ms")
BREAKS = """
apiVersion: amends.dev/v1alpha1
kind: RetryPolicy
metadata: {name: quick, namespace: shop}
spec:
  timeout: 500ms
  attempts: 3
  backoff: {initial: 10ms, max: 50ms}
  circuitBreaker: {failureRatio: 0.5, minimumCalls: 2, openFor: 400ms}
  budget: {ratio: 10, minPerSecond: 1000}
"""
RUNS = 12
QUICK = {"passivate_after": timedelta(milliseconds=100)}


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    async with open_shop() as shop:
        yield shop


async def standing(connection: asyncpg.Connection) -> asyncpg.Record:
    row = await connection.fetchrow(
        "SELECT count(*) AS open, count(stalled_since) AS stalled, max(fence) AS fence, (SELECT count(*) FROM journal) "
        "AS records FROM run WHERE state < 3"
    )
    assert row is not None
    return row


async def adrift(client: Client, connection: asyncpg.Connection) -> set[tuple[object, int]]:
    """Runs that are this process's by the database, and that it does not have."""
    fleet = client.parts.fleet
    mine = await claims.owned(connection, fleet.process)
    return {(run, fence) for run, fence in mine.items() if fleet.get(run) is None}


@pytest.mark.parametrize("hot_runs", [2000, 8], ids=["room for all", "crowded"])
async def test_runs_that_wait_for_an_open_breaker_are_stalled_owned_and_end_when_it_closes(
    database_url: str, shop: Shop, hot_runs: int
):
    shop.orders.script("Confirm", AWAY)
    connection = await asyncpg.connect(database_url)
    async with orchestrator(database_url, hot_runs=hot_runs, **QUICK) as client:
        await client.apply(shop, SAGA, policy=BREAKS)
        await asyncio.gather(*(client.start(f"k{n}", wait=False) for n in range(RUNS)))

        async def all_stalled() -> bool:
            now = await standing(connection)
            return bool(now["open"] == now["stalled"] == RUNS)

        await eventually(all_stalled, timeout=timedelta(seconds=15))
        lost = await adrift(client, connection)
        for _ in range(4):
            probes = len(shop.orders.calls("Confirm"))
            await eventually(
                lambda seen=probes: len(shop.orders.calls("Confirm")) > seen
            )  # the breaker lets one through
            now = await standing(connection)
            assert now["stalled"] == RUNS, "whoever takes them, and however often, they stay stalled"
            again = await adrift(client, connection)
            assert not lost & again
            lost = again
        listed = (await client.runs.ListRuns(pb.ListRunsRequest(stalled=True))).runs
        assert len(listed) == RUNS
        assert {run.stalled.step for run in listed} == {"confirm"}
        assert all(run.stalled.reason in ("the circuit breaker is open", "away") for run in listed)
        assert all(run.stalled.HasField("since") for run in listed)
        shop.orders.script("Confirm", ScriptedAnswer.ok())

        async def all_ended() -> bool:
            return bool(await connection.fetchval("SELECT bool_and(state = 4) FROM run"))

        await eventually(all_ended, timeout=timedelta(seconds=15))
        assert await connection.fetchval("SELECT count(stalled_since) FROM run") == 0
    await connection.close()


async def test_a_run_that_waits_for_an_open_breaker_costs_no_claim_and_no_record(database_url: str, shop: Shop):
    shop.orders.script("Confirm", AWAY)
    connection = await asyncpg.connect(database_url)
    breaks = BREAKS.replace("openFor: 400ms", "openFor: 1s")
    async with orchestrator(database_url, **QUICK) as client:
        await client.apply(shop, SAGA, policy=breaks)
        first = await client.start("first", wait=False)

        async def stalled() -> bool:
            return (await client.run(first.run.run_id)).HasField("stalled")

        await eventually(stalled, timeout=timedelta(seconds=10))
        calls, before = len(shop.orders.calls("Confirm")), await standing(connection)
        await eventually(lambda: len(shop.orders.calls("Confirm")) >= calls + 3, timeout=timedelta(seconds=15))
        after = await standing(connection)
        attempts = len(shop.orders.calls("Confirm")) - calls
        assert after["records"] - before["records"] <= attempts, "what was tried is recorded, what was held back is not"
        assert after["fence"] - before["fence"] <= 1
    await connection.close()


async def test_a_run_whose_participant_is_gone_is_stalled_and_says_so(database_url: str, shop: Shop):
    gate = asyncio.Event()
    shop.shipping.script("Book", ScriptedAnswer.ok().once(gate))
    async with orchestrator(database_url) as client:
        await client.apply(shop, SAGA)
        run = (await client.start("k", wait=False)).run
        await shop.shipping.called("Book")
        await client.definitions.DeleteParticipant(dpb.DeleteParticipantRequest(namespace="shop", name="orders"))
        gate.set()

        async def stalled() -> bool:
            return (await client.run(run.run_id)).HasField("stalled")

        await eventually(stalled, timeout=timedelta(seconds=10))
        shown = (await client.run(run.run_id)).stalled
        assert shown.step == "confirm"
        assert "is not there" in shown.reason


async def test_a_call_that_is_not_answered_in_time_says_how_long_it_was_waited_for(database_url: str, shop: Shop):
    gate = asyncio.Event()
    shop.payments.script("Charge", ScriptedAnswer.ok().once(gate))
    async with orchestrator(database_url) as client:
        await client.apply(shop)
        run = (await client.start("k", wait=False)).run
        await shop.payments.called("Charge", 2)
        gate.set()
        await client.ended(run.run_id)
        failed = [event for event in await client.timeline(run.run_id) if event.kind == "ATTEMPT_FAILED"]
    assert {(event.code, event.message.partition(": ")[2]) for event in failed} == {
        ("DEADLINE_EXCEEDED", "no answer within 500ms")
    }
