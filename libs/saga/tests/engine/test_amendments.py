"""What a person may have done instead, behind the pivot: nothing else moves, and what it replaces never happens."""

from datetime import timedelta

import pytest
from amends_saga.engine import Choice, choices, resolutions
from amends_saga.engine.events import Effect, Operation, ResolutionAction
from amends_saga.engine.state import Ending, Phase, decided_by_person
from amends_testkit.engine.by_hand import ByHand
from amends_testkit.engine.shapes import shape


def refused(text: str, **facts: object) -> ByHand:
    """A run whose step `b`, the first behind the pivot `a`, was refused: it is parked."""
    run = ByHand.ready(shape(text, **facts)).settle().ok("a").settle()  # type: ignore[arg-type]
    return run.rejected("b").settle()


def ended(run: ByHand) -> str:
    return run.state.phase.value + decided_by_person(run.plan, run.state)


def test_an_amendment_never_begins_by_itself() -> None:
    run = ByHand.ready(shape("g>P>g/g")).settle().ok("a").settle().ok("b").ok("c").settle()
    assert ended(run) == "COMPLETED"
    assert run.state.steps[3].done is Ending.NOT_CHOSEN


def test_the_step_that_the_run_was_parked_at_is_void_before_the_amendment_is_called() -> None:
    run = refused("P>g>g/g").resolve(ResolutionAction.AMEND, amendment=3).settle()
    assert run.flying == ("void b",)
    run.voided("void b")
    # The step behind it may have been called by an owner that was replaced.
    assert run.flying == ("void c",)
    run.voided("void c").settle()
    assert run.flying == ("d",)
    run.ok("d").settle()
    assert ended(run) == "COMPLETED (amended by a person: d)"


def test_the_decision_falls_when_the_step_has_succeeded_after_all() -> None:
    run = ByHand.ready(shape("P>g>g/g")).settle().ok("a").settle().unknown("b").wait().unknown("b").park().settle()
    run = run.resolve(ResolutionAction.AMEND, amendment=3).settle().ok("void b").settle()
    assert run.flying == ("c",)
    run.ok("c").settle()
    assert ended(run) == "COMPLETED"


def test_a_step_beside_it_that_has_succeeded_stays_and_the_amendment_is_called() -> None:
    run = ByHand.ready(shape("P>g|g/g")).settle().ok("a").settle().unknown("c").rejected("b").settle()
    run = run.resolve(ResolutionAction.AMEND, amendment=3).settle()
    assert run.flying == ("void b",)
    run = run.voided("void b").settle()
    assert run.flying == ("void c",)
    run = run.ok("void c").settle().ok("d").settle()
    assert ended(run) == "COMPLETED (amended by a person: d)"
    assert run.state.steps[2].done is Ending.OK


def test_an_amendment_is_called_until_it_succeeds() -> None:
    run = refused("P>k/g").resolve(ResolutionAction.AMEND, amendment=2, effect=Effect.NONE).settle()
    for _ in range(5):
        run = run.unknown("c", again=timedelta(seconds=1)).wait()
    assert run.ok("c").settle().state.phase is Phase.COMPLETED


def test_an_amendment_that_is_refused_parks_and_another_may_be_chosen() -> None:
    run = (
        refused("P>k/gi")
        .resolve(ResolutionAction.AMEND, amendment=2, effect=Effect.NONE)
        .settle()
        .rejected("c")
        .settle()
    )
    assert run.state.parked is not None
    assert (run.state.parked.step, run.state.parked.call) == (2, Operation.ACTION)
    assert choices(run.plan, run.state) == (
        Choice(ResolutionAction.RETRY, None, False),
        Choice(ResolutionAction.SKIP, None, False),
        Choice(ResolutionAction.AMEND, None, False, 3),
    )
    run = run.resolve(ResolutionAction.AMEND, amendment=3).settle().voided("void c").settle().ok("d").settle()
    assert ended(run) == "COMPLETED (amended by a person: d)"


def test_a_skip_of_the_same_step_replaces_the_decision() -> None:
    run = refused("P>g/g").resolve(ResolutionAction.AMEND, amendment=2).settle().rejected("void b").settle()
    run = run.resolve(ResolutionAction.SKIP).settle().voided("void b").settle()
    assert ended(run) == "COMPLETED (1 skipped by a person)"


def test_a_retry_of_a_refused_void_keeps_the_decision() -> None:
    run = refused("P>g/g").resolve(ResolutionAction.AMEND, amendment=2).settle().rejected("void b").settle()
    run = run.resolve(ResolutionAction.RETRY).settle().voided("void b").settle().ok("c").settle()
    assert ended(run) == "COMPLETED (amended by a person: c)"


def test_another_owner_goes_on_with_the_decision() -> None:
    run = refused("P>g/g").resolve(ResolutionAction.AMEND, amendment=2).settle().successor().settle()
    assert run.flying == ("void b",)
    run = run.voided("void b").settle().successor().settle()
    assert run.flying == ("c",)
    assert ended(run.ok("c").settle()) == "COMPLETED (amended by a person: c)"


def test_an_amendment_is_offered_behind_the_pivot_only() -> None:
    before = ByHand.ready(shape("k>P/g")).settle().unknown("a", again=None).settle()
    assert before.state.parked is not None
    assert ResolutionAction.AMEND not in resolutions(before.plan, before.state)
    assert ResolutionAction.AMEND in resolutions(shape("P>g/g"), refused("P>g/g").state)


def test_no_amendment_is_offered_while_a_plain_step_beside_it_is_in_doubt() -> None:
    run = ByHand.ready(shape("P>g|k/g")).settle().ok("a").settle().unknown("c").rejected("b").settle()
    assert ResolutionAction.AMEND not in resolutions(run.plan, run.state)


def test_an_amendment_is_offered_while_the_plain_step_that_the_run_is_parked_at_is_in_doubt_itself() -> None:
    run = ByHand.ready(shape("P>o/g")).settle().ok("a").settle().unknown("b", again=None).settle()
    assert ResolutionAction.AMEND in resolutions(run.plan, run.state)
    assert run.refusal(ResolutionAction.AMEND, amendment=2) == "EFFECT_REQUIRED"


@pytest.mark.parametrize("amendment", [None, 1, 9])
def test_who_names_no_amendment_is_told_which_there_are(amendment: int | None) -> None:
    run = refused("P>g/gg")
    assert run.refusal(ResolutionAction.AMEND, amendment=amendment) == "AMENDMENT_UNKNOWN"
    assert run.objection(ResolutionAction.AMEND, amendment=amendment) == "say which amendment: c, d"


def test_of_a_plain_step_a_person_says_whether_it_had_its_effect() -> None:
    assert refused("P>k/g").refusal(ResolutionAction.AMEND, amendment=2) == "EFFECT_REQUIRED"
