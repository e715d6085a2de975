"""Every place at which the orchestrator or a participant can die is one at which it was made to die, on real Postgres.

The places of each way of an order are written down in `scenarios`; a place that is not reached fails, and so does one
that is reached and not written down. After each death the process is started again, the run comes to its end, and the
databases say whether anything was lost, doubled or left standing. Deaths during the recovery: every pair of places.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from amends_testkit.waiting import eventually

from .points import EXIT_CODE
from .scenarios import SCENARIOS, Scenario
from .world import World

PLACES = ("start.", "journal.", "call.", "insert.", "handler.", "commit.")
TAKING_OVER = ("claim.sent", "claim.committed", "claim.read")
AGAIN = 4
"""How often a pair is tried whose second place does not come: what was durable at the first death may differ."""
_orders = itertools.count(1)

each_way = pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
# `make test` takes the way that goes forward and back; `make faults` takes all.
bounded = pytest.mark.parametrize(
    "scenario",
    [pytest.param(way, marks=() if way.name == "no slot" else pytest.mark.faults) for way in SCENARIOS],
    ids=lambda scenario: scenario.name,
)


async def shared(both: Sequence[World], cases: Sequence[str], take: Callable[[World, str], Awaitable[None]]) -> None:
    """Takes all cases, one after the other in each world."""
    waiting = list(reversed(cases))

    async def work(world: World) -> None:
        while waiting:
            case = waiting.pop()
            try:
                await take(world, case)
            except Exception as error:
                raise AssertionError(f"at {case}: {type(error).__name__}: {error}") from error

    await asyncio.gather(*(work(world) for world in both))


def new_order() -> str:
    return f"order-{next(_orders)}"


async def as_it_should_be(world: World, order_id: str, scenario: Scenario) -> None:
    """Assert that the run ended as without a fault, with the same effects in the same order, and that it was told."""
    assert await world.ended(order_id) == scenario.state
    assert await world.effects(order_id) == list(scenario.effects)
    await world.told(order_id, *scenario.told)


async def dies(world: World, name: str) -> None:
    """Wait until a process has died at the place where it was told to."""
    assert await asyncio.wait_for(world.processes[name].ended, 20) == EXIT_CODE


async def quiet(world: World, scenario: Scenario) -> dict[str, set[str]]:
    """Return the places that both processes pass when none dies."""
    order_id = new_order()
    names = ("a", "participants")
    for name in names:
        world.processes[name].order("", "")
    await world.place("a", order_id, **scenario.input)
    await as_it_should_be(world, order_id, scenario)
    last = "journal.committed:ended"
    await eventually(lambda: last in world.processes["a"].reached(), what=last)
    return {name: {p for p in world.processes[name].reached() if p.startswith(PLACES)} for name in names}


@each_way
async def test_the_places_written_down_are_those_that_are_there(both: list[World], scenario: Scenario):
    seen = await quiet(both[0], scenario)
    assert seen["a"] == set(scenario.of_orchestrator())
    assert seen["participants"] == set(scenario.of_participants())


@pytest.mark.timeout(240)
@bounded
async def test_the_orchestrator_dies_at_each_place_and_the_order_ends_as_it_should(
    both: list[World], scenario: Scenario, record_property
):
    points = scenario.of_orchestrator()
    taken: list[str] = []

    async def take(world: World, point: str) -> None:
        await one_death(world, scenario, point)
        taken.append(point)

    await shared(both, points, take)
    assert sorted(taken) == sorted(points)
    record_property("counted", f"{scenario.name}: the orchestrator died at {len(taken)} of {len(points)} places")
    for world in both:
        await world.audit()


async def one_death(world: World, scenario: Scenario, point: str) -> list[str]:
    """The orchestrator dies at a place; returns what its successor came by."""
    order_id = new_order()
    world.processes["a"].order("crash", point)
    placing = asyncio.create_task(world.place("a", order_id, **scenario.input))
    await dies(world, "a")
    await world.expire()
    successor = await world.start("a")
    assert (await placing).run.idempotency_key == order_id
    await as_it_should_be(world, order_id, scenario)
    return successor.reached()


@pytest.mark.timeout(240)
@bounded
async def test_the_participants_die_at_each_place_and_the_order_ends_as_it_should(
    both: list[World], scenario: Scenario, record_property
):
    points = scenario.of_participants()
    taken: list[str] = []

    async def take(world: World, point: str) -> None:
        order_id = new_order()
        world.processes["participants"].order("crash", point)
        placing = asyncio.create_task(world.place("a", order_id, **scenario.input))
        await dies(world, "participants")
        await world.start_participants()
        await placing
        await as_it_should_be(world, order_id, scenario)
        taken.append(point)

    await shared(both, points, take)
    assert sorted(taken) == sorted(points)
    record_property("counted", f"{scenario.name}: a participant died at {len(taken)} of {len(points)} places")
    for world in both:
        await world.audit()


async def two_deaths(world: World, scenario: Scenario, first: str, second: str) -> bool:
    """The orchestrator dies, and its successor too; False when that one did not come by the second place."""
    order_id = new_order()
    world.processes["a"].order("crash", first)
    placing = asyncio.create_task(world.place("a", order_id, **scenario.input))
    await dies(world, "a")
    await world.expire()
    successor = await world.start("a", order=f"crash {second}")
    at_rest = asyncio.create_task(world.ended(order_id))
    ways: list[asyncio.Future[Any]] = [successor.ended, at_rest]
    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    if not successor.ended.done():  # the end is in the database a moment before its writer hears of it
        await asyncio.wait([successor.ended], timeout=0.3)
    died = successor.ended.done()
    if died:
        assert successor.ended.result() == EXIT_CODE
        await world.expire()
        await world.start("a")
    else:
        successor.order("", "")
    await placing
    await at_rest
    await as_it_should_be(world, order_id, scenario)
    return died


@pytest.mark.faults
@pytest.mark.timeout(3600)
@each_way
async def test_the_successor_dies_too_at_each_place_of_its_recovery(
    both: list[World], scenario: Scenario, record_property
):
    """Every pair of a first place and a place that the recovery from there comes by."""
    after: dict[str, list[str]] = {}

    async def learn(world: World, point: str) -> None:
        seen = await one_death(world, scenario, point)
        after[point] = sorted({place for place in seen if place.startswith(PLACES)} | set(TAKING_OVER[:1]))
        after[point] += [place for place in TAKING_OVER[1:] if place in seen]

    await shared(both, scenario.of_orchestrator(), learn)
    pairs = [f"{first} > {second}" for first, seconds in after.items() for second in seconds]
    taken: set[str] = set()

    async def take(world: World, pair: str) -> None:
        first, _, second = pair.partition(" > ")
        for _ in range(AGAIN):
            if await two_deaths(world, scenario, first, second):
                taken.add(pair)
                return

    await shared(both, pairs, take)
    reached = {pair.partition(" > ")[2] for pair in taken}
    wanted = {second for seconds in after.values() for second in seconds}
    assert reached == wanted, f"never taken in a recovery: {sorted(wanted - reached)}"
    said = f"{scenario.name}: the successor died too at {len(taken)} of {len(pairs)} pairs of places"
    record_property("counted", said)
    for world in both:
        await world.audit()
