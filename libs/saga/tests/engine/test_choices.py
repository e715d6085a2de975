"""What people are told that they can say: exactly what is accepted, and nothing that has to be said is left out."""

import pytest
from amends_saga.engine import Choice, check_resolution, choices, resolutions
from amends_saga.engine.events import Effect, ResolutionAction, Resolved
from amends_testkit.engine.by_hand import ByHand
from amends_testkit.engine.shapes import shape


def rejected(text: str, *done: str, last: str, **facts: object) -> ByHand:
    run = ByHand.ready(shape(text, **facts)).settle()  # type: ignore[arg-type]
    for call in done:
        run = run.ok(call).settle()
    return run.rejected(last).settle()


PARKED = {
    "a guarded step behind the pivot": rejected("P>g>g", "a", last="b"),
    "a guarded step behind the pivot, whose response is used": rejected("P>g>g", "a", last="b", uses={"c": "b"}),
    "a guarded step with amendments": rejected("P>g/gk", "a", last="b"),
    "a plain step with an amendment": rejected("P>k/g", "a", last="b"),
    "a plain step behind the pivot": rejected("P>i>i", "a", last="b"),
    "a plain step behind the pivot, whose response is used": rejected("P>i>i", "a", last="b", uses={"c": "b"}),
}


@pytest.mark.parametrize("run", PARKED.values(), ids=PARKED)
def test_each_choice_is_accepted_as_it_stands_and_every_open_decision_has_one(run: ByHand) -> None:
    parked = run.state.parked
    assert parked is not None
    offered = choices(run.plan, run.state)
    for choice in offered:
        result = b"" if choice.result else None
        decision = Resolved(choice.action, parked.step, parked.call, "ann", "because", choice.effect, result)
        decision = decision._replace(amendment=choice.amendment)
        assert check_resolution(run.plan, run.state, decision) is None
    assert {choice.action for choice in offered} == set(resolutions(run.plan, run.state))


def test_nothing_is_asked_for_that_is_not_needed() -> None:
    run = PARKED["a guarded step behind the pivot"]
    assert choices(run.plan, run.state) == (
        Choice(ResolutionAction.RETRY, None, False),
        Choice(ResolutionAction.SKIP, None, False),
    )


def test_a_plain_step_is_skipped_with_what_is_known_of_its_call_and_with_a_response_where_it_is_used() -> None:
    run = PARKED["a plain step behind the pivot, whose response is used"]
    assert choices(run.plan, run.state) == (
        Choice(ResolutionAction.RETRY, None, False),
        Choice(ResolutionAction.SKIP, Effect.HAPPENED, True),
        Choice(ResolutionAction.SKIP, Effect.NONE, True),
    )


def test_a_run_that_is_not_parked_has_no_choices() -> None:
    run = ByHand.ready(shape("g"))
    assert choices(run.plan, run.state) == ()
