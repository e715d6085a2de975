"""A thousand worlds in which events are published and consumed and everything goes wrong, each from a seed."""

import shlex
import subprocess
from typing import Any

import pytest
from amends_events import Ends, PositionLostError
from amends_events import partition as reading
from amends_simulation.events.statements import NOTE, STATEMENTS
from amends_simulation.events.world import EventsSimulation, simulate_events
from amends_simulation.seeds import replay, report
from amends_simulation.world import SeedResult

SEEDS = 1000
AT_ONCE = 100


def first_broken(tweak: Any, law: str, seeds: int = 100) -> SeedResult:
    """Return the first world that breaks a law."""
    for outcome in (simulate_events(seed, tweak) for seed in range(seeds)):
        if any(finding.startswith(f"{law} ") for finding in outcome.findings):
            return outcome
    raise AssertionError(f"no world breaks {law}")


@pytest.mark.parametrize("first", range(0, SEEDS, AT_ONCE))
def test_every_change_is_published_and_has_its_effects_once_and_in_order(first: int) -> None:
    broken = [report(simulate_events(seed), events=True) for seed in range(first, first + AT_ONCE)]
    assert not any(broken), "\n" + "\n".join(filter(None, broken))


def test_worlds_are_worth_living_through() -> None:
    outcomes = [simulate_events(seed) for seed in range(40)]
    told = "\n".join(line for outcome in outcomes for line in outcome.trace)
    assert sum(outcome.runs for outcome in outcomes) > 300, "changes"
    assert sum(outcome.decisions for outcome in outcomes) > 5
    assert sum(outcome.takeovers for outcome in outcomes) > 200
    assert sum(outcome.ends["stood"] for outcome in outcomes) > 1, "consumers whose log had forgotten"
    for what in ("is killed", "stands still", "is asked to leave", "ROLLBACK", "the broker is away", "does not know"):
        assert what in told


def test_the_same_seed_is_the_same_world_in_another_process_too() -> None:
    one = simulate_events(7)
    assert one == simulate_events(7)
    assert one.digest != simulate_events(8).digest
    printed = subprocess.run(shlex.split(replay(7, events=True)), capture_output=True, text=True, check=True).stdout
    assert printed.splitlines() == one.trace


def lose_what_is_acknowledged(world: EventsSimulation) -> None:
    honest = world.log.store
    world.log.store = lambda *given: 0 if world.chance.random() < 0.05 else honest(*given)  # type: ignore[method-assign]


def store_batches_backwards(world: EventsSimulation) -> None:
    honest = world.log.store
    world.log.store = lambda place, records: honest(place, records[::-1])  # type: ignore[method-assign]


def forget_what_was_handled(world: EventsSimulation) -> None:
    """Let the inbox say of every event that it is new."""

    async def advance(session: Any, *values: Any) -> Any:
        [answer] = await STATEMENTS[reading._ADVANCE](session, *values[:-1], [])
        return [answer | {"fresh": values[-1]}]

    world.tables.statements[reading._ADVANCE] = advance


def commit_effects_at_once(world: EventsSimulation) -> None:
    """Let effects stay when their transaction is rolled back."""

    async def note(session: Any, *values: Any) -> Any:
        await STATEMENTS[NOTE](session, *values)
        effects = {place: row for place, row in session._changes.items() if place[0] == "effect"}
        for place in effects:
            del session._changes[place]
        session.tables.commit(effects)
        return []

    world.tables.statements[NOTE] = note


@pytest.mark.parametrize(
    ("mistake", "law"),
    [
        (lose_what_is_acknowledged, "L1"),
        (store_batches_backwards, "L2"),
        (forget_what_was_handled, "L3"),
        (commit_effects_at_once, "L3"),
    ],
)
def test_a_mistake_is_found_out_by_its_law(mistake: Any, law: str) -> None:
    first_broken(mistake, law)


def test_a_consumer_that_jumps_over_what_the_log_has_forgotten_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def jump(topic: str, partition: int, position: int, ends: Ends | None) -> int:
        if ends is None:
            raise PositionLostError(topic)
        return max(position, ends.first - 1)

    monkeypatch.setattr(reading, "read_after", jump)
    first_broken(None, "L3")


def test_a_consumer_that_stands_still_and_says_nothing_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading.Partition, "_say_lost", lambda *_: None)
    first_broken(None, "L5")


def test_handlers_that_go_on_behind_a_parked_event_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = reading.Partition._parks
    monkeypatch.setattr(reading.Partition, "_parks", lambda self, item, _: honest(self, item, set()))
    first_broken(None, "L4", 200)


def test_what_breaks_is_printed_with_the_command_that_replays_it() -> None:
    broken = first_broken(forget_what_was_handled, "L3")
    assert report(broken, events=True).endswith(f"replay it: {replay(broken.seed, events=True)}")
    assert report(simulate_events(7), events=True) == ""
