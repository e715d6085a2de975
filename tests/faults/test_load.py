"""Faults while many orders are on their way, and limits: a database that dies, a service that is down for all."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from amends_embedded import Postgres
from amends_testkit.waiting import eventually

from amends.saga.v1 import definition_service_pb2 as dpb
from amends.saga.v1.definition_service_pb2_grpc import DefinitionServiceStub

from .places import CallPlaces, action
from .scenarios import SCENARIOS
from .test_crash_points import as_it_should_be, new_order
from .test_processes import place_all
from .world import POLICY, SAGA, World, patiently, worlds

ACCEPTED, DECLINED, _ = SCENARIOS
RATIO, PER_SECOND, ATTEMPTS = 0.2, 5, 4
# More specific than the others' policy, so that it has a guard, and a budget, that nothing was counted in before.
BUDGETED = f"""
apiVersion: amends.dev/v1alpha1
kind: RetryPolicy
metadata: {{name: budgeted, namespace: shop}}
spec:
  selector: {{participants: [shop.payments.v1.PaymentService]}}
  timeout: 300ms
  attempts: {ATTEMPTS}
  backoff: {{initial: 10ms, max: 300ms}}
  circuitBreaker: {{failureRatio: 1.0, minimumCalls: 100000}}
  budget: {{ratio: {RATIO}, minPerSecond: {PER_SECOND}}}
"""
BOUND = 3
NARROW = POLICY + f"  bulkhead: {{maxConcurrent: {BOUND}, maxQueued: 500}}\n"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Postgres]:
    """A Postgres that tests may kill."""
    async with await Postgres.start(tmp_path_factory.mktemp("own-postgres")) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def own(server: Postgres, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """A world over it."""
    numbers = itertools.count(1)

    async def make() -> str:
        name = f"own_{next(numbers)}"
        return await server.create(name, name)

    folder: Path = tmp_path_factory.mktemp("own")
    async with worlds(1, folder, make) as [world]:
        yield world


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", ["killed", pytest.param("restarted", marks=pytest.mark.faults)])
async def test_a_database_that_dies_under_load_loses_no_order_and_comes_back(own: World, server: Postgres, kind: str):
    orders = [new_order() for _ in range(60)]
    placing = asyncio.create_task(place_all(own, "a", orders))
    await eventually(lambda: some_have_ended(own, orders), what="the load is under way")
    if kind == "killed":
        server.kill()
    await server.restart()
    await placing
    for order_id in orders:
        await as_it_should_be(own, order_id, ACCEPTED)
    log = own.processes["a"].log()
    assert "journal.unreachable" in log
    assert "journal.reachable" in log
    await own.audit()


async def some_have_ended(world: World, orders: list[str]) -> Any:
    query = "SELECT id FROM run WHERE idempotency_key = ANY($1) AND state >= 4"
    return len(await patiently(world.journal, query, orders)) >= 15


def times(world: World, place: str) -> int:
    """How often the orchestrator came by a place."""
    return world.processes["a"].reached().count(place)


def most_at_once(reached: list[str], call: CallPlaces) -> int:
    """How many calls of a step were under way at once."""
    most = now = 0
    for place in reached:
        now += (place == call.sent) - (place == call.answered)
        most = max(most, now)
    return most


@pytest.mark.faults
@pytest.mark.timeout(180)
async def test_a_service_that_fails_every_call_is_called_no_more_than_the_budget_allows(world: World):
    """More retries than ten seconds allow take longer than nine: the budget forgets at the earliest after that."""
    definitions = DefinitionServiceStub(world.channel("a"))
    manifest = dpb.Manifest(text=BUDGETED, source="policy.yaml")
    await definitions.ApplyRetryPolicy(dpb.ApplyRetryPolicyRequest(manifest=manifest), timeout=10)
    orders = [new_order() for _ in range(24)]
    world.processes["a"].order("", "")
    began = asyncio.get_running_loop().time()
    try:
        await asyncio.gather(*(world.place("a", order_id, card="tok_broken") for order_id in orders))
        quick = new_order()
        await world.place("a", quick, card="tok_declined")
        for order_id in (*orders, quick):
            assert await world.ended(order_id) == "COMPENSATED"
        seconds = asyncio.get_running_loop().time() - began
    finally:
        gone = dpb.DeleteRetryPolicyRequest(namespace="shop", name="budgeted")
        await definitions.DeleteRetryPolicy(gone, timeout=10)
    retries = (ATTEMPTS - 1) * len(orders)
    assert retries <= times(world, action("charge").sent) - len(orders) - 1 < retries + ATTEMPTS
    charges_and_refunds = 2 * (len(orders) + 1)
    assert 10 * PER_SECOND + RATIO * charges_and_refunds < retries
    assert seconds > 9
    for order_id in orders:
        assert await world.effects(order_id) == list(DECLINED.effects)
    await world.audit()


@pytest.mark.timeout(180)
async def test_when_an_outage_ends_the_bulkhead_lets_them_return_a_few_at_a_time(world: World):
    await world.apply("a", NARROW)
    orders = [new_order() for _ in range(60)]
    await world.processes["participants"].kill()
    a = world.processes["a"]
    a.order("", "")
    await asyncio.gather(*(world.place("a", order_id) for order_id in orders))
    await world.start_participants()
    ended = [await world.ended(order_id) for order_id in orders]
    assert ended.count("COMPLETED") + ended.count("COMPENSATED") == len(orders)
    places = a.reached()
    for step in ("reserve", "charge", "ship", "confirm"):
        assert most_at_once(places, action(step)) <= BOUND
    assert most_at_once(places, action("reserve")) == BOUND, "they did come together"
    await world.apply("a")
    await world.audit()


async def test_a_request_too_large_to_be_sent_is_a_definite_failure_and_not_repeated(world: World):
    once = "ReserveRequest{order_id: input.order_id,"
    saga = SAGA.replace(once, once.replace("input.order_id", "input.order_id + input.order_id"))
    key = new_order()
    await world.apply("a", saga=saga)
    await world.processes["a"].kill()
    await world.expire()
    a = await world.start("a", AMENDS_MAX_MESSAGE_BYTES="3000")
    a.order("", "")
    await world.place("a", key, long="x" * 2000)
    assert await world.ended(key) == "COMPENSATED"
    assert times(world, action("reserve").sent) == 0
    assert [place for place in a.reached() if place.startswith("journal.sent:attempt_failed")] == []
    assert "at most 3000 can be sent" in (await world.row(key))["message"]
    await a.kill()
    await world.expire()
    await world.start("a")
    await world.apply("a")
    await world.audit()


async def test_an_expression_that_fails_when_it_runs_undoes_before_the_pivot_and_parks_behind_it(world: World):
    before, behind, other = new_order(), new_order(), new_order()
    broken = "input.lines[7].sku"
    await world.apply("a", saga=SAGA.replace("card_token: input.card_token", f"card_token: {broken}"))
    await world.place("a", before)
    assert await world.ended(before) == "COMPENSATED"
    assert await world.effects(before) == ["reserve:action", "reserve:compensation"]
    await world.apply("a", saga=SAGA.replace("payment_id: charge.payment_id", f"payment_id: {broken}"))
    await world.place("a", behind)
    assert await world.ended(behind) == "PARKED"
    row = await world.row(behind)
    assert (row["reason"], row["step"]) == ("EXPRESSION_FAILED", "confirm")
    await world.apply("a")
    await world.place("a", other)
    await as_it_should_be(world, other, ACCEPTED)
    await world.audit()
