from datetime import timedelta

import pytest
from amends_saga.engine import Phase
from amends_saga.engine.events import AttemptFailed, Ended, Intent, Skipped
from amends_testkit.engine.by_hand import ByHand
from amends_testkit.engine.shapes import shape


def test_a_run_calls_its_steps_in_a_row_and_completes() -> None:
    run = ByHand.ready(shape("g>g"))
    assert run.flying == ("a",)
    run.ok("a").settle()
    assert run.flying == ("b",)
    run.ok("b")
    assert run.last == Ended(completed=True)
    assert run.state.phase is Phase.COMPLETED


def test_independent_steps_are_called_together_and_the_next_waits_for_both() -> None:
    run = ByHand.ready(shape("g|g>g"))
    assert run.flying == ("a", "b")
    assert run.ok("b").flying == ("a",)
    assert run.ok("a").flying == ("c",)


def test_nothing_is_called_before_the_start_is_on_disk() -> None:
    run = ByHand(shape("g>g"))
    assert run.flying == ()
    assert run.durable(1).flying == ("a",)


def test_the_end_is_reported_only_when_it_is_on_disk() -> None:
    run = ByHand.ready(shape("g")).ok("a")
    assert run.state.ended
    assert not run.state.settled
    assert run.settle().state.settled


def test_an_answer_of_a_guarded_step_need_not_be_on_disk_before_the_next_call() -> None:
    run = ByHand.ready(shape("g>g")).ok("a")
    assert run.state.durable < run.state.seq
    assert run.flying == ("b",)


def test_an_answer_is_on_disk_before_an_action_that_uses_it_is_called() -> None:
    run = ByHand.ready(shape("r>g", uses={"b": "a"})).ok("a", response=b"1")
    assert run.flying == ()
    assert run.settle().flying == ("b",)


def test_a_step_whose_when_is_false_is_left_out_and_the_next_begins() -> None:
    run = ByHand.ready(shape("g>g>g", when="b"), left_out="b").ok("a")
    assert run.events(Skipped) == [Skipped(1)]
    assert run.flying == ("c",)
    assert run.ok("c").state.phase is Phase.COMPLETED


def test_a_step_that_was_left_out_is_not_undone() -> None:
    run = ByHand.ready(shape("g>g>g", when="b"), left_out="b").ok("a").rejected("c").settle()
    assert run.state.decided is not None
    assert run.state.decided.undo == (0, 2)


def test_an_answer_that_when_uses_is_on_disk_before_the_step_is_called() -> None:
    run = ByHand.ready(shape("r>g", uses={"b": "a"}, when="b")).ok("a")
    assert run.flying == ()
    assert run.settle().flying == ("b",)


def test_an_unknown_answer_is_tried_again_at_the_time_that_the_policy_says() -> None:
    run = ByHand.ready(shape("g>g")).unknown("a", again=timedelta(seconds=5))
    assert isinstance(run.last, AttemptFailed)
    assert run.flying == ()
    assert run.until == run.now + timedelta(seconds=5)
    assert run.wait(timedelta(seconds=4)).flying == ()
    assert run.wait(timedelta(seconds=1)).flying == ("a",)


def test_the_owner_waits_for_the_deadline_when_there_is_nothing_else_to_wait_for() -> None:
    run = ByHand.ready(shape("g>g", deadline=timedelta(minutes=3)))
    assert run.until == run.now + timedelta(minutes=3)


def test_a_call_that_a_breaker_holds_back_is_no_attempt_and_is_made_later() -> None:
    run = ByHand.ready(shape("g>g")).refused("a", timedelta(seconds=2))
    assert run.flying == ()
    assert run.state.steps[0].attempts == 0
    assert run.wait(timedelta(seconds=2)).flying == ("a",)


def test_a_step_that_was_only_held_back_is_not_undone() -> None:
    run = ByHand.ready(shape("g|g")).refused("a", timedelta(seconds=2)).rejected("b")
    assert run.state.decided is not None
    assert run.state.decided.undo == (1,)


@pytest.mark.parametrize("text", ["g>g", "k>g"])
def test_a_wait_that_lasts_longer_than_the_policy_does_not_spin(text: str) -> None:
    run = ByHand.ready(shape(text)).settle().unknown("a", give_up=timedelta(seconds=1))
    run.wait().refused("a", timedelta(seconds=30))
    run.wait(timedelta(seconds=5))
    assert run.until is not None
    assert run.until > run.now


def test_after_the_pivot_an_unknown_answer_is_repeated_without_end() -> None:
    run = ByHand.ready(shape("P>g")).settle().ok("a")
    for _ in range(50):
        run.unknown("b").wait()
    assert run.flying == ("b",)
    assert run.state.phase is Phase.RUNNING


def test_after_the_pivot_the_deadline_means_nothing() -> None:
    run = ByHand.ready(shape("P>g")).settle().ok("a").wait(timedelta(hours=1))
    assert run.flying == ("b",)
    assert run.ok("b").state.phase is Phase.COMPLETED


def test_the_intent_to_call_the_pivot_is_on_disk_before_the_call() -> None:
    run = ByHand.ready(shape("g>P")).ok("a")
    assert run.last == Intent(1)
    assert run.flying == ()
    assert run.durable(run.state.seq - 1).flying == (), "all but the intent"
    assert run.settle().flying == ("b",)


def test_the_pivot_passes_breaker_and_bulkhead_before_its_intent_is_written() -> None:
    run = ByHand.ready(shape("P>g"), holds_admission=True)
    assert run.state.steps[0].admitting
    assert run.events(Intent) == []
    run.refused("a", timedelta(seconds=1))
    assert not run.state.steps[0].admitting
    assert run.events(Intent) == []
    run.wait(timedelta(seconds=1))
    assert run.state.steps[0].admitting


def test_a_pivot_that_is_held_back_before_its_intent_can_still_be_undone_by_the_deadline() -> None:
    run = ByHand.ready(shape("g>P"), holds_admission=True).ok("a").refused("b", timedelta(hours=2))
    run.wait(timedelta(hours=1)).settle()
    assert run.state.phase is Phase.COMPENSATING
    assert run.flying == ("undo a",)
