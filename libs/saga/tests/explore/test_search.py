"""How an exploration is told: bounds, seeds, progress, and that it never pretends more than it saw."""

import re
from dataclasses import fields
from pathlib import Path

import pytest
from amends_saga.explore import Bounds, explore, replay_seed
from amends_testkit.engine.mutants import mutant
from amends_testkit.engine.shapes import shape

UNDECIDED = "if state.decided is None or state.durable < state.decided_seq:"
SMALL = Bounds(owners=1, crashes=0, resolutions=0)


def test_an_exploration_counts_states_moves_depth_and_ends() -> None:
    result = explore(shape("g>P"), SMALL)
    assert result.holds
    assert result.states > 100
    assert result.transitions > result.states
    assert result.depth > 5
    assert set(result.ends) == {"COMPLETED", "COMPENSATED", "PARKED REJECTED"}


def test_the_same_exploration_sees_the_same_states() -> None:
    assert explore(shape("g>P"), SMALL) == explore(shape("g>P"), SMALL)


def test_an_exploration_that_was_cut_off_says_so_and_does_not_hold() -> None:
    result = explore(shape("g>P"), Bounds(states=50))
    assert not result.complete
    assert not result.holds
    assert result.violations == []


def test_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    explore(shape("g>g"), Bounds(resolutions=0, crashes=1), progress=lambda states, depth: told.append((states, depth)))
    assert told == sorted(told)
    assert told


def test_the_first_path_to_a_violation_is_a_shortest_and_its_seed_replays_it() -> None:
    with mutant("backward", UNDECIDED, "if state.decided is None:") as engine:
        violation = explore(shape("g>g"), Bounds(resolutions=0), engine=engine, first_only=True).violations[0]
        path = replay_seed(shape("g>g"), violation.seed, Bounds(resolutions=0), engine=engine)
    assert path[: len(violation.path)] == violation.path
    assert path[-1] == f"!! {violation.text}"
    assert violation.path[0] == "the run is asked for"


@pytest.mark.parametrize("seed", ["1:0", "111:0", "11:999", "11:x", "nonsense", "xx:0", "", ":"])
def test_a_seed_of_another_saga_or_other_bounds_is_refused(seed: str) -> None:
    with pytest.raises(ValueError, match=r"seed"):
        replay_seed(shape("g>g"), seed + ".0" * 200, SMALL)


def test_a_seed_that_ends_early_is_the_beginning_of_a_path() -> None:
    assert replay_seed(shape("g>g"), "11:", SMALL) == ("the run is asked for",)


def test_bounds_are_read_from_texts_and_printed() -> None:
    bounds = Bounds.parse(["attempts=3", "owners=1", "late=no"])
    assert (bounds.attempts, bounds.owners, bounds.late) == (3, 1, False)
    assert bounds.text().startswith("attempts 3, owners 1, crashes 2")
    assert "late no" in bounds.text()


def test_the_default_bounds_are_two_attempts_two_crashes_two_owners_and_one_resolution() -> None:
    bounds = Bounds()
    assert (bounds.attempts, bounds.crashes, bounds.owners, bounds.resolutions) == (2, 2, 2, 1)


@pytest.mark.parametrize(
    "text",
    [
        "attemps=3",
        "attempts=many",
        "attempts=0",
        "late=3",
        "late",
        "attempts",
        "owners=x",
        "owners=²",
        "states=1" + "0" * 5000,
    ],
)
def test_a_bound_that_makes_no_sense_is_refused_with_its_name(text: str) -> None:
    with pytest.raises(ValueError, match=text.partition("=")[0]):
        Bounds.parse([text])


def test_more_bounds_see_more() -> None:
    assert explore(shape("g"), Bounds()).states > explore(shape("g"), SMALL).states


def test_every_bound_is_documented_with_its_default() -> None:
    page = (Path(__file__).parents[4] / "docs" / "how-to" / "explore-a-saga.md").read_text()
    rows = dict(re.findall(r"^\| `([a-z_]+)` \| (\w+) \|", page, re.MULTILINE))
    defaults = {field.name: getattr(Bounds(), field.name) for field in fields(Bounds)}
    shown = {True: "yes", False: "no"}
    assert rows == {name: shown[value] if isinstance(value, bool) else str(value) for name, value in defaults.items()}
