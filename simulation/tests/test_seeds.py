"""A thousand worlds that go wrong, each from a seed, over the orchestrator's own runner, writer, claims and lease."""

import asyncio
import shlex
import subprocess
from datetime import timedelta

import pytest
from amends_simulation.seeds import replay, report
from amends_simulation.virtual import VirtualLoop
from amends_simulation.world import SeedResult, Simulation, simulate
from amends_testkit.barrier import MemoryBarrier

SEEDS = 1000
AT_ONCE = 50


def break_the_fence(world: Simulation) -> None:
    """Let the database accept every fence."""
    world.database.faults.fenced = False


class ForgetfulBarrier(MemoryBarrier):
    """It says that it voided, and records nothing."""

    def void(self, key: str, operation: str) -> bytes | None:
        row = self.rows.get((key, operation))
        return row.response if row is not None else None


def forget_voids(world: Simulation) -> None:
    world.participants.barrier = ForgetfulBarrier()


def lose_commits(world: Simulation) -> None:
    """Let the database say that it has committed when it has not."""
    database = world.database
    honest = database._batch

    def batch(sql: str, values: list[object]) -> list[object]:
        lies = "started AS" not in sql and world.chance.random() < 0.05
        return [] if lies else honest(sql, values)

    database._batch = batch  # type: ignore[method-assign]


def set_the_clock_back(world: Simulation) -> None:
    """In the middle of the storm another machine becomes the database's, whose clock is two minutes behind."""

    async def later() -> None:
        await asyncio.sleep(world.chance.uniform(5, 25))
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop.database_ahead = timedelta(minutes=-2)

    world._begin(later())


def first_broken(tweak: object, seeds: range) -> SeedResult | None:
    for seed in seeds:
        outcome = simulate(seed, tweak)  # type: ignore[arg-type]
        if outcome.findings:
            return outcome
    return None


@pytest.mark.parametrize("first", range(0, SEEDS, AT_ONCE))
def test_every_world_ends_well(first: int) -> None:
    broken = [report(simulate(seed)) for seed in range(first, first + AT_ONCE)]
    assert not any(broken), "\n" + "\n".join(filter(None, broken))


def test_a_clock_of_the_database_that_goes_back_delays_what_was_due_and_breaks_nothing() -> None:
    broken = [report(simulate(seed, set_the_clock_back)) for seed in range(25)]
    assert not any(broken), "\n" + "\n".join(filter(None, broken))


def test_worlds_are_worth_living_through() -> None:
    outcomes = [simulate(seed) for seed in range(60)]
    ends = {end for outcome in outcomes for end in outcome.ends}
    assert ends == {"4", "5"}, "runs complete, and runs are compensated"
    assert sum(outcome.decisions for outcome in outcomes) > 5
    assert sum(outcome.takeovers for outcome in outcomes) > 50
    assert sum(outcome.calls for outcome in outcomes) > 500


def test_the_same_seed_is_the_same_world() -> None:
    one, other = simulate(7), simulate(7)
    assert one == other
    assert one.digest != simulate(8).digest


def test_the_command_that_replays_a_seed_shows_the_same_world_in_another_process() -> None:
    printed = subprocess.run(shlex.split(replay(7)), capture_output=True, text=True, check=True).stdout
    assert printed.splitlines() == simulate(7).trace


def test_a_database_that_compares_no_fences_is_found_out() -> None:
    broken = first_broken(break_the_fence, range(100))
    assert broken is not None
    assert any(finding.startswith("I7") for finding in broken.findings)


def test_a_barrier_that_records_no_void_is_found_out() -> None:
    assert first_broken(forget_voids, range(300)) is not None


def test_a_database_that_loses_what_it_acknowledged_is_found_out() -> None:
    assert first_broken(lose_commits, range(20)) is not None


def test_what_breaks_is_printed_with_the_command_that_replays_it() -> None:
    broken = first_broken(break_the_fence, range(100))
    assert broken is not None
    assert report(broken).endswith(f"replay it: {replay(broken.seed)}")
    assert report(simulate(7)) == ""
