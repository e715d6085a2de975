"""What holds, and which limits show: within bounds, every interleaving of every small shape."""

from dataclasses import replace
from datetime import timedelta

import pytest
from amends_saga.explore import Bounds, ExplorationResult, explore
from amends_saga.plan import Plan
from amends_testkit.engine.shapes import shape

STANDS = "COMPENSATED but an effect stands"
MISSING = "COMPLETED but an effect is missing or doubled"
TWICE = "effect twice"
TOO_LATE = "action effect after its compensation"
AFTER_PIVOT = "compensated although the pivot took effect"
NO_PEOPLE = Bounds(resolutions=0, crashes=1)
CALM = Bounds(resolutions=0, crashes=1, deadline=False, duplicates=False, compensation_rejections=False)
THREE_OWNERS = Bounds(owners=3, crashes=1, attempts=1, resolutions=0, duplicates=False)
LET_GO = Bounds(releases=True, parks=True, crashes=0, duplicates=False, deadline=False)
ONE_ATTEMPT = Bounds(resolutions=0, crashes=1, attempts=1, deadline=False)


@pytest.mark.parametrize(
    ("plan", "bounds"),
    [
        pytest.param(shape("g>P"), Bounds(), id="g>P"),
        pytest.param(shape("P>g"), Bounds(), id="P>g"),
        pytest.param(shape("g>g"), ONE_ATTEMPT, id="g>g"),
        pytest.param(shape("g>P>g"), CALM, id="g>P>g"),
        pytest.param(shape("g>g>P"), CALM, id="g>g>P"),
        pytest.param(shape("g|g"), replace(CALM, owners=1, crashes=0), id="g|g"),
        pytest.param(shape("g|g>P"), ONE_ATTEMPT, id="g|g>P"),
        pytest.param(shape("r>g>g", uses={"b": "a"}), ONE_ATTEMPT, id="r>B(uses r)>C"),
        pytest.param(shape("g>g", uses_self="ab"), CALM, id="with uses_self"),
        pytest.param(shape("r>g>g", uses={"b": "a"}, when="b"), ONE_ATTEMPT, id="with when"),
        pytest.param(shape("g>P"), THREE_OWNERS, id="three owners"),
        pytest.param(
            shape("g>P"),
            LET_GO,
            id="let go and parked",
        ),
        pytest.param(shape("g>P>g"), Bounds(late=False, owners=1, crashes=0), id="answers lost and nothing late"),
    ],
)
def test_a_guarded_saga_holds(plan: Plan, bounds: Bounds) -> None:
    result = explore(plan, bounds)
    assert result.violations == []
    assert result.complete
    assert result.ends["COMPLETED"] > 0
    assert result.ends["COMPENSATED"] > 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("text", ["g>g", "g>P>g", "g>g>P", "g|g", "g|g>P", "g>g>P>g"])
def test_a_guarded_saga_holds_within_the_default_bounds(text: str) -> None:
    assert explore(shape(text), Bounds()).holds


AMENDED = Bounds(duplicates=False, deadline=False, crashes=1, attempts=1)


@pytest.mark.parametrize(
    ("text", "bounds"),
    [
        ("g>P>g/g", AMENDED),
        ("P>g>g/k", AMENDED),
        ("P>k/g", replace(AMENDED, attempts=2, owners=1)),
        ("P>g|g/g", replace(AMENDED, attempts=2, owners=1, crashes=0)),
        ("P>g/gk", replace(AMENDED, owners=1, crashes=0, resolutions=3)),
    ],
)
def test_a_saga_with_amendments_holds_whichever_a_person_chooses(text: str, bounds: Bounds) -> None:
    plan = shape(text)
    result = explore(plan, bounds)
    assert result.holds
    for index in plan.amendments:
        assert result.ends[f"COMPLETED (amended by a person: {plan.steps[index].name})"] > 0
    assert result.ends["COMPLETED"] > 0


PLAIN_SHAPES = ["k>g", "g>K", "P>k", "i>g", "g>I", "P>i", "o>g", "g>O"]


@pytest.mark.parametrize("text", PLAIN_SHAPES)
def test_a_plain_saga_holds_when_the_wire_duplicates_nothing(text: str) -> None:
    assert explore(shape(text), ONE_OWNER_LATE if text in ("k>g", "i>g") else NO_PEOPLE).violations == []


ONE_OWNER_LATE = Bounds(owners=1, crashes=0)


def limits(result: ExplorationResult, step: str) -> set[str]:
    return {violation.text for violation in result.violations if violation.step == step}


WIRE = Bounds(owners=1, crashes=0, resolutions=0, plain_duplicates=True)


@pytest.mark.parametrize(
    ("text", "step", "expected"),
    [
        ("g>g", "a", set()),
        ("k>g", "a", {STANDS}),
        ("i>g", "a", {STANDS, TOO_LATE}),
        ("o>g", "a", {STANDS, TOO_LATE, TWICE, MISSING}),
        ("g>K", "b", {STANDS, AFTER_PIVOT}),
        ("g>I", "b", {STANDS, AFTER_PIVOT}),
        ("g>O", "b", {STANDS, AFTER_PIVOT, TWICE, MISSING}),
        ("P>k", "b", set()),
        ("P>i", "b", set()),
    ],
)
def test_under_a_wire_that_duplicates_a_plain_step_shows_its_limits_and_no_others(
    text: str, step: str, expected: set[str]
) -> None:
    result = explore(shape(text), WIRE)
    assert limits(result, step) == expected
    assert {violation.step for violation in result.violations} <= {step}


def test_a_keyed_method_acts_again_when_a_call_is_late_by_more_than_its_window() -> None:
    plan = shape("k>g", window=timedelta(days=1))
    bounds = Bounds(owners=1, crashes=0, resolutions=0, windows=True)
    assert limits(explore(plan, bounds), "a") == {TWICE, MISSING}


def test_a_keyed_method_that_never_forgets_has_no_such_limit() -> None:
    assert explore(shape("k>g"), Bounds(owners=1, crashes=0, resolutions=0, windows=True)).violations == []


@pytest.mark.parametrize("text", ["k>g", "o>P", "i|g"])
def test_a_plain_step_in_doubt_ends_with_a_person_and_a_guarded_one_never_does(text: str) -> None:
    bounds = Bounds(owners=1, crashes=0, resolutions=0, compensation_rejections=False)
    assert explore(shape(text), bounds).ends["PARKED PLAIN_IN_DOUBT"] > 0
    guarded = explore(shape(text.replace("k", "g").replace("o", "g").replace("i", "g")), bounds)
    assert not [end for end in guarded.ends if end.startswith("PARKED")]


def test_a_saga_whose_when_is_false_completes_without_that_step() -> None:
    result = explore(shape("g>g", when="a"), Bounds(owners=1, crashes=0, late=False, resolutions=0))
    assert result.holds
    assert result.ends["COMPLETED"] > 1
