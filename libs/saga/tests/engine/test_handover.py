from datetime import timedelta

import pytest
from amends_saga.engine import UnreadableJournalError, initial, replay, stalled_since
from amends_saga.engine.events import ParkReason, Recorded, Released, ResolutionAction
from amends_testkit.engine.by_hand import EPOCH, ByHand
from amends_testkit.engine.shapes import shape

HOUR = timedelta(hours=1)


def undo(run: ByHand) -> tuple[int, ...]:
    assert run.state.decided is not None
    return run.state.decided.undo


def test_a_takeover_goes_forward_and_sends_again() -> None:
    run = ByHand.ready(shape("g>g")).ok("a").settle().successor()
    assert run.flying == ("b",)
    assert run.state.decided is None


def test_a_takeover_calls_again_what_was_answered_and_not_recorded() -> None:
    run = ByHand.ready(shape("g>g")).ok("a")
    assert run.successor(lost=1).flying == ("a",)


def test_after_a_takeover_steps_that_a_predecessor_could_have_attempted_are_undone_too() -> None:
    run = ByHand.ready(shape("g>g>g")).successor().rejected("a")
    assert undo(run) == (0, 1, 2)


def test_after_a_takeover_a_step_whose_data_nobody_can_have_had_is_not_undone() -> None:
    run = ByHand.ready(shape("g>g>g", uses={"c": "b"})).successor().rejected("a")
    assert undo(run) == (0, 1)


def test_after_a_takeover_a_step_that_when_leaves_out_is_not_undone() -> None:
    run = ByHand.ready(shape("g>g>g", when="b"), left_out="b").successor().rejected("a")
    assert undo(run) == (0, 2)


def test_after_a_takeover_a_step_that_uses_one_that_was_left_out_is_undone_too() -> None:
    run = ByHand.ready(shape("g>g>g", uses={"c": "b"}, when="b"), left_out="b").ok("a").settle()
    assert run.flying == ("c",)
    run = run.successor()
    assert undo(run.wait(timedelta(hours=1))) == (0, 2)


def test_after_a_takeover_a_step_that_uses_one_that_a_person_skipped_is_undone_too() -> None:
    first = ByHand.ready(shape("g>r>g", uses={"c": "b"})).ok("a").rejected("b", ParkReason.NOT_GUARDED).settle()
    second = first.resolve(ResolutionAction.SKIP, result=b"7").settle()
    assert second.flying == ("c",)
    assert undo(second.successor().wait(timedelta(hours=1))) == (0, 2)


def test_after_a_takeover_a_step_whose_request_cannot_be_built_was_never_attempted() -> None:
    run = ByHand.ready(shape("g>g>g"), errors={"b": "lines[0] of nothing"}).successor().rejected("a")
    assert undo(run) == (0, 2)


@pytest.mark.parametrize(
    ("text", "reason"), [("k>g", ParkReason.PLAIN_IN_DOUBT), ("P>g", ParkReason.EXPRESSION_FAILED)]
)
def test_after_a_takeover_an_attempt_whose_request_cannot_be_built_again_is_in_doubt(
    text: str, reason: ParkReason
) -> None:
    first = ByHand.ready(shape(text)).settle()
    first.errors = {"a": "lines[0] of nothing"}
    run = first.successor().settle()
    assert run.state.parked is not None
    assert (run.state.parked.reason, run.state.parked.step) == (reason, 0)


def test_after_a_takeover_plain_steps_are_undone_only_with_a_clean_ok() -> None:
    run = ByHand.ready(shape("g>k>g")).successor().rejected("a")
    assert undo(run) == (0, 2)


def test_every_later_owner_undoes_what_the_first_could_have_attempted() -> None:
    third = ByHand.ready(shape("g>g>g")).successor().successor().rejected("a")
    assert undo(third) == (0, 1, 2)


def test_a_run_is_let_go_when_nothing_is_under_way() -> None:
    run = ByHand.ready(shape("g>g")).unknown("a").release()
    assert run.last == Released(1)
    assert not run.state.settled
    assert run.settle().state.settled


def test_a_call_under_way_is_answered_before_the_run_is_let_go() -> None:
    run = ByHand.ready(shape("g>g")).release()
    assert run.events(Released) == []
    run.ok("a")
    assert run.events(Released) == [Released(1)]
    assert run.made == ["a"]


def test_an_owner_that_is_held_back_hands_over_what_it_was_handed_over() -> None:
    first = ByHand.ready(shape("g>g>g")).refused("a", HOUR).release().settle()
    second = first.successor().refused("a", HOUR)
    assert not second.state.settled
    second.release()
    assert second.last == Released(2)
    assert second.settle().state.settled
    third = second.successor()
    assert not third.state.successor


def test_a_call_that_is_held_back_has_waited_since_the_record_before_whoever_owned_the_run() -> None:
    first = ByHand.ready(shape("g>g", stalled_after=timedelta(seconds=30))).ok("a").settle()
    began = first.now
    first.wait(timedelta(seconds=3)).refused("b", HOUR).release().settle()
    first.now += timedelta(seconds=20)
    second = first.successor().refused("b", HOUR)
    second.now += timedelta(seconds=8)
    assert second.release().settle().state.steps[1].waiting_since == began
    assert stalled_since(second.plan, second.state, began + timedelta(seconds=31)) == (1, began)


def test_a_call_that_fails_after_it_was_held_back_has_waited_since_then_whoever_owned_the_run() -> None:
    first = ByHand.ready(shape("P>g", stalled_after=timedelta(seconds=30))).settle().ok("a").settle()
    began = first.now
    first.refused("b", HOUR).release().settle()
    first.now += timedelta(seconds=40)
    second = first.successor().unknown("b")
    assert stalled_since(second.plan, second.state, second.now) == (1, began)
    assert second.settle().successor().state.steps[1].waiting_since == began


def test_after_a_clean_hand_over_only_what_was_attempted_is_undone() -> None:
    first = ByHand.ready(shape("g>g>g")).unknown("a").release().settle()
    second = first.successor().wait().rejected("a")
    assert undo(second) == (0,)


def test_a_hand_over_that_an_owner_did_not_live_to_write_is_a_takeover() -> None:
    first = ByHand.ready(shape("g>g>g")).unknown("a").release()
    second = first.successor(lost=1)
    assert second.state.successor


def test_an_owner_that_wrote_nothing_may_still_have_called() -> None:
    first = ByHand.ready(shape("g>g>g")).unknown("a").release().settle()
    third = replay(first.plan, "run-1", 3, first.journal)
    assert third.successor


def test_a_released_once_method_whose_call_was_never_made_is_called_by_the_next_owner() -> None:
    first = ByHand(shape("o>g")).durable(1).release().settle()
    assert first.made == []
    assert isinstance(first.last, Released)
    second = first.successor()
    assert second.flying == ("a",)
    assert not second.state.steps[0].in_doubt


def test_a_person_who_resolves_hands_over_cleanly() -> None:
    run = ByHand.ready(shape("P>g")).settle().ok("a").rejected("b").settle().resolve(ResolutionAction.RETRY)
    assert not run.state.successor


def test_the_decision_of_an_owner_binds_the_next() -> None:
    run = ByHand.ready(shape("g>g")).ok("a").rejected("b").settle().successor()
    assert run.flying == ("undo b",)
    assert undo(run) == (0, 1)


def test_a_decision_that_was_lost_is_taken_again_with_more_to_undo() -> None:
    run = ByHand.ready(shape("g>g>g")).ok("a").rejected("b")
    again = run.successor(lost=2).rejected("b")
    assert undo(again) == (0, 1, 2)


def test_a_journal_with_a_gap_is_not_run() -> None:
    run = ByHand.ready(shape("g>g")).ok("a")
    with pytest.raises(UnreadableJournalError):
        replay(run.plan, "run-1", 2, [run.journal[0], run.journal[1]._replace(seq=3)])


def test_a_journal_without_its_beginning_is_not_run() -> None:
    run = ByHand.ready(shape("g>g")).ok("a")
    with pytest.raises(UnreadableJournalError):
        replay(run.plan, "run-1", 2, run.journal[1:])
    with pytest.raises(UnreadableJournalError):
        replay(run.plan, "run-1", 2, [run.journal[1]._replace(seq=1)])


def test_a_journal_that_begins_twice_is_not_run() -> None:
    run = ByHand(shape("g>g"))
    with pytest.raises(UnreadableJournalError):
        replay(run.plan, "run-1", 2, [run.journal[0], run.journal[0]._replace(seq=2)])


def test_an_empty_journal_is_not_run() -> None:
    with pytest.raises(UnreadableJournalError):
        replay(shape("g"), "run-1", 2, [])


def test_nothing_is_said_to_a_run_that_was_let_go() -> None:
    run = ByHand.ready(shape("g>g")).unknown("a").release().settle()
    assert run.wait().made == ["a"]


def test_the_first_record_is_the_start_of_the_run() -> None:
    run = ByHand(shape("g"))
    assert run.journal[0].seq == 1
    assert run.journal[0].at == EPOCH
    assert initial(run.plan, "x").seq == 0
    assert isinstance(run.journal[0], Recorded)
