from datetime import timedelta

import pytest
from amends_saga.engine import Phase
from amends_saga.engine.events import (
    STEP_FENCED,
    Answered,
    Effect,
    Parked,
    ParkReason,
    ResolutionAction,
    TurnedBack,
    UndoReason,
)
from amends_testkit.engine.by_hand import ByHand
from amends_testkit.engine.shapes import shape


def at_pivot(text: str, **facts: object) -> ByHand:
    run = ByHand.ready(shape(text, **facts))  # type: ignore[arg-type]
    run.settle().ok("a").settle()
    assert run.flying == ("b",)
    return run


def parked(run: ByHand) -> Parked:
    assert run.state.parked is not None
    return run.state.parked


def test_a_guarded_pivot_that_is_rejected_is_voided_before_anything_is_undone() -> None:
    run = at_pivot("g>P").rejected("b").settle()
    assert run.flying == ("void b",)
    assert run.state.decided is None
    run.voided("void b")
    assert run.state.decided == TurnedBack(UndoReason.REJECTED, 1, (0,), "no")
    assert run.settle().flying == ("undo a",)


@pytest.mark.parametrize("text", ["g>P", "g>P>g"])
def test_a_pivot_that_never_answered_is_not_called_rejected(text: str) -> None:
    run = at_pivot(text).unknown("b").wait().unknown("b", again=None).settle().voided("void b")
    assert run.state.decided == TurnedBack(UndoReason.EXHAUSTED, 1, (0,), "no answer")
    assert run.state.steps[1].calls == 2


def test_a_pivot_that_was_rejected_after_an_attempt_without_an_answer_is_called_rejected() -> None:
    run = at_pivot("g>P").unknown("b").wait().rejected("b").settle().voided("void b")
    assert run.state.decided == TurnedBack(UndoReason.REJECTED, 1, (0,), "no")
    assert run.state.steps[1].calls == 2


def test_a_read_as_pivot_that_never_answered_is_not_called_rejected() -> None:
    unanswered = at_pivot("g>R").unknown("b", again=None)
    rejected = at_pivot("g>R").rejected("b")
    reasons = [run.state.decided.reason for run in (unanswered, rejected) if run.state.decided is not None]
    assert reasons == [UndoReason.EXHAUSTED, UndoReason.REJECTED]


def test_all_calls_of_an_action_are_counted_whoever_made_them_and_whoever_said_to() -> None:
    run = at_pivot("g>K").unknown("b").wait().unknown("b", again=None).settle()
    run = run.resolve(ResolutionAction.RETRY).settle().unknown("b").successor().wait().ok("b")
    assert run.state.steps[1].calls == 4
    assert run.state.steps[1].attempts == 1


def test_a_pivot_that_had_its_effect_after_all_goes_forward_with_the_stored_response() -> None:
    run = at_pivot("g>P>g").rejected("b").ok("void b", response=b"tracking")
    assert run.state.steps[1].response == b"tracking"
    assert run.flying == ("c",)


def test_a_pivot_whose_attempts_are_exhausted_is_voided() -> None:
    run = at_pivot("g>P").unknown("b", again=None)
    assert run.flying == ("void b",)


def test_a_pivot_that_was_attempted_and_waits_longer_than_its_policy_allows_is_voided() -> None:
    run = at_pivot("g>P").unknown("b", give_up=timedelta(seconds=10)).wait()
    run.refused("b", timedelta(hours=1))
    assert run.until == run.now + timedelta(seconds=9)
    run.wait(timedelta(seconds=9))
    assert isinstance(run.last, Answered)
    assert run.last.in_doubt
    assert run.flying == ("void b",)


@pytest.mark.parametrize("text", ["g>K", "g>I"])
def test_a_plain_pivot_that_waits_longer_than_its_policy_allows_parks(text: str) -> None:
    run = at_pivot(text).unknown("b", give_up=timedelta(seconds=10)).wait()
    run.refused("b", timedelta(hours=1)).wait(timedelta(seconds=10))
    assert parked(run).reason is ParkReason.PLAIN_IN_DOUBT


def test_a_void_is_repeated_without_end() -> None:
    run = at_pivot("g>P").rejected("b")
    for _ in range(50):
        run.unknown("void b").wait()
    assert run.flying == ("void b",)


def test_a_void_that_is_refused_parks_and_can_be_retried() -> None:
    run = at_pivot("g>P").rejected("b").rejected("void b")
    assert parked(run).reason is ParkReason.REJECTED
    assert run.settle().resolve(ResolutionAction.RETRY).flying == ("void b",)


def test_a_void_that_a_server_without_the_barrier_answers_proves_nothing() -> None:
    run = at_pivot("g>P").rejected("b").unknown("void b", reason=ParkReason.NOT_GUARDED)
    assert run.state.decided is None
    assert parked(run).reason is ParkReason.NOT_GUARDED


def test_a_pivot_that_was_fenced_is_proof_enough_to_undo() -> None:
    run = at_pivot("g>P").rejected("b", STEP_FENCED)
    assert run.state.decided is not None
    assert "void b" not in run.made


@pytest.mark.parametrize("reason", [ParkReason.KEY_REUSED, ParkReason.NOT_GUARDED])
def test_a_pivot_whose_answer_no_retry_mends_parks(reason: ParkReason) -> None:
    run = at_pivot("g>P").unknown("b", again=None, reason=reason)
    assert parked(run).reason is reason
    assert "void b" not in run.made


def test_a_plain_pivot_that_is_rejected_at_its_only_attempt_undoes() -> None:
    run = at_pivot("g>O").rejected("b")
    assert run.state.decided is not None


def test_a_plain_pivot_that_is_rejected_after_an_unknown_attempt_parks() -> None:
    run = at_pivot("g>K").unknown("b").wait().rejected("b")
    assert parked(run).reason is ParkReason.PLAIN_IN_DOUBT


def test_a_plain_pivot_that_is_rejected_for_a_second_owner_parks() -> None:
    run = at_pivot("g>K").successor().rejected("b")
    assert parked(run).reason is ParkReason.PLAIN_IN_DOUBT


def test_a_plain_pivot_that_is_unknown_at_the_end_parks() -> None:
    run = at_pivot("g>K").unknown("b", again=None)
    assert parked(run).reason is ParkReason.PLAIN_IN_DOUBT


def test_a_once_pivot_is_never_attempted_by_a_second_owner() -> None:
    run = at_pivot("g>O").successor()
    assert run.made == []
    assert parked(run).reason is ParkReason.PLAIN_IN_DOUBT


def test_a_once_pivot_that_is_not_answered_parks_at_once() -> None:
    run = at_pivot("g>O").unknown("b")
    assert parked(run).reason is ParkReason.PLAIN_IN_DOUBT


def test_a_rejection_after_the_pivot_parks() -> None:
    run = at_pivot("g>P>g").ok("b").rejected("c")
    assert parked(run) == Parked(ParkReason.REJECTED, 2, parked(run).call, "no")


def test_compensate_at_a_guarded_pivot_goes_through_void() -> None:
    run = at_pivot("g>P").unknown("b", again=None, reason=ParkReason.KEY_REUSED).settle()
    run = run.resolve(ResolutionAction.COMPENSATE)
    assert run.flying == ("void b",)
    assert run.voided("void b").state.decided is not None


def test_compensate_at_a_pivot_that_had_its_effect_goes_forward() -> None:
    run = at_pivot("g>P>g").unknown("b", again=None, reason=ParkReason.KEY_REUSED).settle()
    run = run.resolve(ResolutionAction.COMPENSATE).ok("void b")
    assert run.state.decided is None
    assert run.flying == ("c",)


def test_compensate_at_a_plain_pivot_needs_to_know_that_nothing_happened() -> None:
    run = at_pivot("g>K").unknown("b", again=None).settle()
    assert run.refusal(ResolutionAction.COMPENSATE) == "EFFECT_REQUIRED"
    assert run.refusal(ResolutionAction.COMPENSATE, effect=Effect.HAPPENED) == "EFFECT_REQUIRED"
    run = run.resolve(ResolutionAction.COMPENSATE, effect=Effect.NONE)
    assert run.state.decided is not None
    assert run.flying == ()
    assert run.settle().flying == ("undo a",)


def test_a_pivot_that_a_person_skips_before_its_intent_is_passed_all_the_same() -> None:
    run = ByHand.ready(shape("g>P>g"), holds_admission=True).ok("a").refused("b", timedelta(hours=1))
    run = run.park().settle().resolve(ResolutionAction.SKIP, result=b"assumed")
    assert run.flying == ("void b",)
    run.voided("void b")
    assert run.flying == ("c",)
    run.wait(timedelta(hours=2))
    assert run.state.decided is None
    assert run.cancel().state.cancel is None
    assert run.ok("c").state.phase is Phase.COMPLETED
    assert run.state.skipped_by_person == 1


def test_after_a_pivot_that_a_person_skipped_compensate_is_not_possible() -> None:
    run = at_pivot("g>K>g").unknown("b", again=None).settle()
    run = run.resolve(ResolutionAction.SKIP, effect=Effect.NONE, result=b"x").rejected("c").settle()
    assert run.refusal(ResolutionAction.COMPENSATE) == "RESOLUTION_NOT_ALLOWED"


def test_a_second_owner_sends_the_pivot_again_when_its_intent_is_in_the_journal() -> None:
    run = at_pivot("g>P").successor()
    assert run.flying == ("b",)
    assert run.state.decided is None
