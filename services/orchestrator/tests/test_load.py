"""Load is bounded: calls under way by the bulkhead, calls to a dead service by its breaker, retries by the budget."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import grpc
import pytest
from amends_testkit.answers import ScriptedAnswer
from amends_testkit.participant import FakeParticipant
from amends_testkit.waiting import eventually

from amends.saga.v1 import definition_service_pb2 as dpb

from .shop import Client, Shop, open_shop, orchestrator, state

AWAY = ScriptedAnswer.refused(grpc.StatusCode.UNAVAILABLE, text="away")


def policy(**spec: str) -> str:
    lines = {"timeout": "2s", "attempts": "3", "backoff": "{initial: 10ms, max: 50ms}"} | spec
    text = "\n".join(f"  {name}: {value}" for name, value in lines.items())
    return (
        f"apiVersion: amends.dev/v1alpha1\nkind: RetryPolicy\nmetadata: {{name: p, namespace: shop}}\nspec:\n{text}\n"
    )


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    async with open_shop() as shop:
        yield shop


@pytest.fixture
async def client(database_url: str) -> AsyncIterator[Client]:
    async with orchestrator(database_url) as client:
        yield client


class Busy:
    """Counts how many calls of a participant are under way at once."""

    def __init__(self, participant: FakeParticipant) -> None:
        self.most = self._now = 0
        serve = participant._serve

        async def counted(*arguments: object) -> bytes:
            self._now += 1
            self.most = max(self.most, self._now)
            try:
                return await serve(*arguments)  # type: ignore[arg-type]
            finally:
                self._now -= 1

        participant._serve = counted  # type: ignore[method-assign, assignment]


async def test_no_more_calls_are_under_way_than_the_bulkhead_has_places(client: Client, shop: Shop):
    busy = {name: Busy(part) for name, part in shop.parts.items()}
    shop.payments.script("Charge", ScriptedAnswer.ok().after(timedelta(milliseconds=20)))
    await client.apply(shop, policy=policy(bulkhead="{maxConcurrent: 3, maxQueued: 4}"))
    answers = await asyncio.gather(*(client.start(f"k{n}") for n in range(40)))
    assert {state(answer.run) for answer in answers} == {"COMPLETED"}
    assert busy["payments"].most == 3
    assert all(part.most <= 3 for part in busy.values())
    assert len(shop.payments.calls("Charge")) == 40, "being held back is no attempt"


async def test_an_open_breaker_costs_no_attempts_and_all_runs_go_on_when_it_closes(client: Client, shop: Shop):
    shop.payments.script("Charge", AWAY)
    breaker = "{failureRatio: 0.5, minimumCalls: 5, window: 10s, openFor: 300ms}"
    await client.apply(shop, policy=policy(attempts="100", circuitBreaker=breaker))
    started = await asyncio.gather(*(client.start(f"k{n}", wait=False) for n in range(30)))
    await shop.payments.called("Charge", 5)
    await eventually(lambda: held(client) > 20, what="most runs are held back")
    sent = len(shop.payments.calls("Charge"))
    assert sent < 40, "thirty runs with retries would have sent hundreds"
    shop.payments.script("Charge", ScriptedAnswer.ok())
    runs = [await client.ended(answer.run.run_id) for answer in started]
    assert {state(run) for run in runs} == {"COMPLETED"}


def held(client: Client) -> int:
    return sum(
        step.retry_at is not None and "breaker" in step.message
        for run in client.parts.fleet.runs.values()
        for step in run.state.steps
    )


async def test_retries_stay_within_their_budget(client: Client, shop: Shop):
    shop.payments.script("Charge", AWAY)
    breaker = "{failureRatio: 1.0, minimumCalls: 100000}"
    budget = "{ratio: 0.0, minPerSecond: 1}"
    await client.apply(shop, policy=policy(attempts="100", circuitBreaker=breaker, budget=budget))
    started = await asyncio.gather(*(client.start(f"k{n}", wait=False) for n in range(30)))
    await eventually(lambda: len(shop.payments.calls("Charge")) >= 40, what="the budget is spent")
    await asyncio.sleep(0.15)
    assert len(shop.payments.calls("Charge")) <= 30 + 10 + 2, "ten seconds' worth of one retry a second"
    shop.payments.script("Charge", ScriptedAnswer.ok())
    assert len(started) == 30


async def test_a_participant_that_is_deleted_stalls_its_runs_and_they_go_on_when_it_is_back(client: Client, shop: Shop):
    await client.apply(shop)
    gate = asyncio.Event()
    shop.inventory.script("Reserve", ScriptedAnswer.ok().once(gate))
    run = (await client.start("k", wait=False)).run
    await shop.inventory.called("Reserve")
    await client.definitions.DeleteParticipant(dpb.DeleteParticipantRequest(namespace="shop", name="payments"))
    gate.set()

    def waits() -> bool:
        return any(
            "Participant" in step.message for live in client.parts.fleet.runs.values() for step in live.state.steps
        )

    await eventually(waits)
    assert not shop.payments.received
    await client.apply(shop)
    assert state(await client.ended(run.run_id)) == "COMPLETED"


async def test_what_fits_into_memory_is_bounded_by_runs_by_bytes_and_by_the_end_of_the_process(
    client: Client, shop: Shop
):
    fleet, gate = client.parts.fleet, asyncio.Event()
    await client.apply(shop)
    assert fleet.spare_runs == fleet.limits.hot_runs
    shop.payments.script("Charge", ScriptedAnswer.ok().once(gate))
    await asyncio.gather(*(client.start(f"k{number}", wait=False) for number in range(3)))
    assert (len(fleet.runs), fleet.weight > 0) == (3, True)
    whole = fleet.limits
    for most, spare in ((4, 1), (3, 0), (2, 0)):
        fleet.limits = replace(whole, hot_runs=most)
        assert fleet.spare_runs == spare
    for hot_bytes, spare in ((fleet.weight + 1, whole.hot_runs - 3), (fleet.weight, 0), (1, 0)):
        fleet.limits = replace(whole, hot_bytes=hot_bytes)
        assert fleet.spare_runs == spare
    fleet.limits = whole
    fleet.draining = True
    assert fleet.spare_runs == 0
    fleet.draining = False
    gate.set()
