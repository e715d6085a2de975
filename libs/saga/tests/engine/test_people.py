from datetime import timedelta

import pytest
from amends_saga.engine import Phase, resolutions, stalled_since
from amends_saga.engine.events import STEP_FENCED, Effect, Operation, Parked, ParkReason, ResolutionAction
from amends_saga.engine.state import decided_by_person
from amends_testkit.engine.by_hand import EPOCH, RETRY, ByHand
from amends_testkit.engine.shapes import shape

HOUR = timedelta(hours=1)


def parked(run: ByHand) -> Parked:
    assert run.state.parked is not None
    return run.state.parked


def refused_compensation(text: str = "g>g") -> ByHand:
    run = ByHand.ready(shape(text)).settle().ok("a").settle().rejected("b").settle()
    if "undo b" in run.flying:
        run.ok("undo b")
    return run.rejected("undo a").settle()


def refused_after_pivot(text: str = "P>g>g", **facts: object) -> ByHand:
    run = ByHand.ready(shape(text, **facts)).settle().ok("a").settle()  # type: ignore[arg-type]
    return run.rejected("b").settle()


def test_a_parked_run_has_no_owner_and_calls_nothing() -> None:
    run = refused_after_pivot()
    assert run.state.settled
    assert run.wait(HOUR).flying == ()


def test_a_run_that_is_not_parked_can_not_be_resolved() -> None:
    run = ByHand.ready(shape("g"))
    assert resolutions(run.plan, run.state) == ()


def test_after_the_pivot_a_run_can_be_retried_or_skipped_and_not_undone() -> None:
    run = refused_after_pivot()
    assert resolutions(run.plan, run.state) == (ResolutionAction.RETRY, ResolutionAction.SKIP)
    assert run.refusal(ResolutionAction.COMPENSATE) == "RESOLUTION_NOT_ALLOWED"


def test_a_compensation_can_be_retried_or_skipped() -> None:
    run = refused_compensation()
    assert resolutions(run.plan, run.state) == (ResolutionAction.RETRY, ResolutionAction.SKIP)


def test_a_retry_calls_again_what_was_rejected() -> None:
    run = refused_after_pivot().resolve(ResolutionAction.RETRY)
    assert run.flying == ("b",)
    assert run.ok("b").flying == ("c",)


def test_a_retried_compensation_is_called_again() -> None:
    run = refused_compensation().resolve(ResolutionAction.RETRY)
    assert run.flying == ("undo a",)
    assert run.ok("undo a").state.phase is Phase.COMPENSATED


def test_a_skip_of_a_guarded_action_voids_it_first() -> None:
    run = refused_after_pivot().resolve(ResolutionAction.SKIP)
    assert run.flying == ("void b",)
    assert run.voided("void b").flying == ("c",)
    assert run.state.skipped_by_person == 1


def test_a_skipped_action_that_ran_after_all_counts_with_its_stored_response() -> None:
    run = refused_after_pivot().resolve(ResolutionAction.SKIP).ok("void b", response=b"stored")
    assert run.state.steps[1].response == b"stored"
    assert run.state.skipped_by_person == 0
    assert run.flying == ("c",)


def test_a_skip_of_a_guarded_compensation_voids_it_first() -> None:
    run = refused_compensation().resolve(ResolutionAction.SKIP)
    assert run.flying == ("void-undo a",)
    run.voided("void-undo a")
    assert run.state.phase is Phase.COMPENSATED
    assert run.state.skipped_by_person == 1


def test_a_skipped_compensation_that_ran_after_all_is_not_counted_as_skipped() -> None:
    run = refused_compensation().resolve(ResolutionAction.SKIP).ok("void-undo a")
    assert run.state.phase is Phase.COMPENSATED
    assert run.state.skipped_by_person == 0


def test_a_skip_survives_the_owner_that_was_to_do_it() -> None:
    run = refused_compensation().resolve(ResolutionAction.SKIP).successor()
    assert run.flying == ("void-undo a",)


def test_a_skip_of_a_plain_compensation_asks_what_happened() -> None:
    run = refused_compensation("k>g")
    assert run.refusal(ResolutionAction.SKIP) == "EFFECT_REQUIRED"
    assert run.resolve(ResolutionAction.SKIP, effect=Effect.NONE).state.phase is Phase.COMPENSATED


def test_a_skip_of_a_plain_action_asks_what_happened() -> None:
    run = refused_after_pivot("P>k>g")
    assert run.refusal(ResolutionAction.SKIP) == "EFFECT_REQUIRED"
    run = run.resolve(ResolutionAction.SKIP, effect=Effect.HAPPENED)
    assert run.flying == ("c",)


def test_a_skip_asks_for_the_response_that_later_steps_use() -> None:
    run = refused_after_pivot("P>g>g", uses={"c": "b"})
    assert run.refusal(ResolutionAction.SKIP) == "RESULT_REQUIRED"
    run = run.resolve(ResolutionAction.SKIP, result=b"assumed").voided("void b").settle()
    assert run.flying == ("c",)
    assert run.state.steps[2].request == b"do assumed"


def test_the_response_that_a_skipped_step_had_is_preferred_to_the_assumed_one() -> None:
    run = refused_after_pivot("P>g>g", uses={"c": "b"}).resolve(ResolutionAction.SKIP, result=b"assumed")
    run.ok("void b", response=b"real").settle()
    assert run.state.steps[2].request == b"do real"


def test_a_resolution_of_another_step_or_call_is_refused() -> None:
    run = refused_after_pivot()
    assert run.refusal(ResolutionAction.RETRY, step=2) == "RESOLUTION_NOT_ALLOWED"
    assert run.refusal(ResolutionAction.RETRY, call=Operation.VOID) == "RESOLUTION_NOT_ALLOWED"


def test_a_key_that_was_fenced_is_never_retried() -> None:
    run = refused_after_pivot()
    fenced = ByHand.ready(shape("P>g")).settle().ok("a").rejected("b", STEP_FENCED).settle()
    assert ResolutionAction.RETRY in resolutions(run.plan, run.state)
    assert ResolutionAction.RETRY not in resolutions(fenced.plan, fenced.state)


@pytest.mark.parametrize("reason", [ParkReason.KEY_REUSED, ParkReason.NOT_GUARDED])
def test_an_answer_that_no_retry_mends_parks_and_may_be_compensated(reason: ParkReason) -> None:
    run = ByHand.ready(shape("g>g")).unknown("a", reason=reason).settle()
    assert parked(run).reason is reason
    run = run.resolve(ResolutionAction.COMPENSATE)
    assert run.state.decided is not None
    assert run.state.decided.undo == (0,)


def test_a_park_waits_until_the_calls_under_way_were_answered_and_recorded() -> None:
    run = ByHand.ready(shape("P>g|g")).settle().ok("a").rejected("b")
    assert run.state.parked is None
    run.ok("c")
    assert parked(run).step == 1
    assert run.state.steps[2].done is not None


def test_while_a_park_is_waited_for_nothing_new_is_called() -> None:
    run = ByHand.ready(shape("P>g|g")).settle().ok("a").rejected("b").unknown("c")
    assert run.state.parked is not None
    assert run.wait().flying == ()


def test_a_run_whose_step_has_waited_too_long_is_stalled() -> None:
    run = ByHand.ready(shape("P>g", stalled_after=timedelta(seconds=30))).settle().ok("a").unknown("b")
    assert stalled_since(run.plan, run.state, run.now + timedelta(seconds=30)) is None
    assert stalled_since(run.plan, run.state, run.now + timedelta(seconds=31)) == (1, run.now)


def test_without_a_limit_of_its_own_a_run_is_stalled_after_its_deadline() -> None:
    run = ByHand.ready(shape("P>g", deadline=timedelta(minutes=2))).settle().ok("a").unknown("b")
    assert stalled_since(run.plan, run.state, run.now + timedelta(minutes=2)) is None
    assert stalled_since(run.plan, run.state, run.now + timedelta(minutes=3)) is not None


def test_a_step_that_was_answered_does_not_wait_any_more() -> None:
    run = ByHand.ready(shape("P>g>g")).settle().ok("a").unknown("b").wait().ok("b")
    assert stalled_since(run.plan, run.state, run.now + HOUR) is None


def test_a_stalled_run_can_be_parked_by_a_person() -> None:
    run = ByHand.ready(shape("P>g")).settle().ok("a").unknown("b").wait(timedelta(milliseconds=1)).park()
    assert parked(run) == Parked(ParkReason.BY_PERSON, 1, Operation.ACTION, "ann: too long")
    assert run.settle().resolve(ResolutionAction.RETRY).flying == ("b",)


def test_a_compensation_that_stalls_can_be_parked_and_skipped() -> None:
    run = ByHand.ready(shape("g")).rejected("a").settle().unknown("undo a").park().settle()
    assert parked(run).call is Operation.COMPENSATION
    assert run.resolve(ResolutionAction.SKIP).flying == ("void-undo a",)


def test_time_that_a_run_was_parked_does_not_count_against_its_deadline() -> None:
    run = ByHand.ready(shape("o>g")).settle().unknown("a").settle()
    run.now += HOUR
    run = run.resolve(ResolutionAction.SKIP, effect=Effect.HAPPENED, deadline=run.now + HOUR)
    assert run.state.decided is None
    assert run.state.deadline == EPOCH + 2 * HOUR


def test_a_step_whose_skip_is_under_way_when_the_run_turns_back_is_undone_like_all_others() -> None:
    run = ByHand.ready(shape("g>g")).unknown("a", reason=ParkReason.KEY_REUSED).settle()
    run = run.resolve(ResolutionAction.SKIP)
    assert run.flying == ("void a",)
    run.wait(HOUR).settle()
    assert run.state.decided is not None
    assert run.state.decided.undo == (0,)
    assert run.flying == ("undo a",)


def test_a_skipped_step_that_a_predecessor_had_called_is_undone_later() -> None:
    first = ByHand.ready(shape("g>g"))
    second = first.successor().refused("a", HOUR).park().settle()
    third = second.resolve(ResolutionAction.SKIP).ok("void a", response=b"r").rejected("b")
    assert third.state.decided is not None
    assert third.state.decided.undo == (0, 1)


def test_a_read_that_is_skipped_takes_the_response_that_was_said() -> None:
    run = ByHand.ready(shape("P>r>g", uses={"c": "b"})).settle().ok("a").settle().rejected("b").settle()
    run = run.resolve(ResolutionAction.SKIP, result=b"7").settle()
    assert run.flying == ("c",)
    assert run.state.steps[2].request == b"do 7"


def test_the_end_says_what_a_person_did_with_steps() -> None:
    skipped = refused_compensation().resolve(ResolutionAction.SKIP).voided("void-undo a")
    undone = ByHand.ready(shape("o>g")).settle().unknown("a").settle()
    undone = undone.resolve(ResolutionAction.COMPENSATE, effect=Effect.HAPPENED).settle().ok("undo a")
    alone = ByHand.ready(shape("g")).ok("a")
    assert decided_by_person(skipped.plan, skipped.state) == " (1 skipped by a person)"
    assert decided_by_person(undone.plan, undone.state) == " (1 decided by a person)"
    assert decided_by_person(alone.plan, alone.state) == ""


def test_what_waits_is_called_at_once_when_a_person_says_so() -> None:
    forward = ByHand.ready(shape("g>g")).settle().unknown("a", again=HOUR).settle()
    assert forward.flying == ()
    assert forward.try_now().flying == ("a",)
    backward = ByHand.ready(shape("g>g")).settle().ok("a").settle().rejected("b").settle()
    if "undo b" in backward.flying:
        backward.ok("undo b")
    backward.unknown("undo a", again=HOUR).settle()
    assert backward.flying == ()
    assert backward.try_now().flying == ("undo a",)


def test_what_a_breaker_holds_back_asks_it_again_when_a_person_says_so() -> None:
    run = ByHand.ready(shape("g>g")).settle().refused("a", HOUR).settle()
    assert run.flying == ()
    assert run.try_now().flying == ("a",)


def test_to_try_now_leaves_no_record_and_does_nothing_to_what_does_not_wait() -> None:
    for run in (
        ByHand.ready(shape("g>g")).settle(),
        ByHand.ready(shape("g>g")).settle().unknown("a", again=None).settle(),
        refused_after_pivot(),
        refused_compensation(),
        ByHand.ready(shape("g")).settle().ok("a").settle(),
    ):
        before, journal = run.state, list(run.journal)
        run.try_now()
        assert (run.state, run.journal) == (before, journal)


@pytest.mark.parametrize("text", ["g>g", "P>g", "k>g", "g>P>g"])
def test_to_try_now_is_the_same_as_that_the_time_has_come(text: str) -> None:
    first, other = (ByHand.ready(shape(text)).settle().unknown("a", again=RETRY).settle() for _ in range(2))
    first.try_now()
    other.wait(RETRY)
    assert first.flying == other.flying
    assert [step._replace(retry_at=None) for step in first.state.steps] == [
        step._replace(retry_at=None) for step in other.state.steps
    ]
