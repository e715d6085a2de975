from datetime import timedelta

import pytest
from amends_saga.engine import Phase
from amends_saga.engine.events import (
    Answered,
    AttemptFailed,
    Ended,
    Operation,
    Outcome,
    Parked,
    ParkReason,
    Replied,
    Reply,
    TurnedBack,
    UndoReason,
)
from amends_testkit.engine.by_hand import ByHand
from amends_testkit.engine.shapes import shape


def decided(run: ByHand) -> TurnedBack:
    assert run.state.decided is not None
    return run.state.decided


def test_a_rejection_undoes_every_step_that_was_attempted_the_rejected_one_included() -> None:
    run = ByHand.ready(shape("g>g>g")).ok("a").rejected("b")
    assert decided(run) == TurnedBack(UndoReason.REJECTED, 1, (0, 1), "no")


def test_nothing_is_undone_before_the_decision_is_on_disk() -> None:
    run = ByHand.ready(shape("g>g")).ok("a").rejected("b")
    assert run.flying == ()
    assert run.settle().flying == ("undo b",)


def test_compensations_run_backwards_one_after_the_other() -> None:
    run = ByHand.ready(shape("g>g>g")).ok("a", "b").rejected("c").settle()
    assert run.flying == ("undo c",)
    assert run.ok("undo c").flying == ("undo b",)
    assert run.ok("undo b").flying == ("undo a",)
    assert run.ok("undo a").last == Ended(completed=False)


def test_compensations_of_parallel_steps_run_together() -> None:
    run = ByHand.ready(shape("g>g|g>g")).ok("a", "b", "c").rejected("d").settle().ok("undo d")
    assert run.flying == ("undo b", "undo c")
    assert run.ok("undo c").flying == ("undo b",)
    assert run.ok("undo b").flying == ("undo a",)


def test_a_guarded_call_under_way_beside_a_rejection_is_not_awaited() -> None:
    run = ByHand.ready(shape("g|g")).rejected("b").settle()
    assert decided(run).undo == (0, 1)
    assert run.flying == ("undo a", "undo b")


def test_an_answer_to_an_action_that_comes_after_the_decision_is_not_recorded() -> None:
    run = ByHand.ready(shape("g|g")).rejected("b").settle()
    before = len(run.journal)
    run.tell(Replied(0, Operation.ACTION, Reply(Outcome.OK, b"r")))
    assert len(run.journal) == before
    assert run.flying == ("undo a", "undo b")


def test_a_step_that_was_never_called_is_not_undone_by_the_first_owner() -> None:
    run = ByHand.ready(shape("g>g>g")).rejected("a")
    assert decided(run).undo == (0,)


def test_a_read_is_not_undone() -> None:
    run = ByHand.ready(shape("r>g")).ok("a").rejected("b")
    assert decided(run).undo == (1,)


def test_a_policy_that_is_exhausted_before_the_pivot_undoes() -> None:
    run = ByHand.ready(shape("g>g")).unknown("a", again=None)
    assert decided(run).reason is UndoReason.EXHAUSTED
    assert decided(run).undo == (0,)


def test_the_deadline_undoes_before_the_pivot() -> None:
    run = ByHand.ready(shape("g>g")).ok("a").wait(timedelta(minutes=1))
    assert decided(run).reason is UndoReason.DEADLINE
    assert decided(run).undo == (0, 1)


def test_an_intent_of_the_pivot_that_is_in_the_journal_comes_before_the_deadline() -> None:
    run = ByHand.ready(shape("g>P")).ok("a").wait(timedelta(minutes=1))
    assert run.state.decided is None
    assert run.settle().flying == ("b",)


def test_a_cancel_undoes_and_says_who_asked() -> None:
    run = ByHand.ready(shape("g>g")).cancel()
    assert decided(run) == TurnedBack(UndoReason.CANCELLED, None, (0,), "ann: not needed")


def test_a_cancel_after_the_intent_of_the_pivot_is_not_recorded() -> None:
    run = ByHand.ready(shape("g>P")).ok("a")
    assert run.cancel().state.cancel is None
    assert run.state.decided is None


def test_a_second_cancel_is_not_recorded() -> None:
    run = ByHand.ready(shape("k>g")).settle().cancel()
    before = len(run.journal)
    assert len(run.cancel().journal) == before


def test_a_cancel_of_a_parked_run_is_not_recorded() -> None:
    run = ByHand.ready(shape("o>g")).settle().unknown("a", again=None)
    assert run.state.parked is not None
    assert run.cancel().state.cancel is None


def test_a_compensation_is_repeated_without_end() -> None:
    run = ByHand.ready(shape("g")).rejected("a").settle()
    for _ in range(50):
        run.unknown("undo a")
        assert isinstance(run.last, AttemptFailed)
        run.wait()
    assert run.flying == ("undo a",)


@pytest.mark.parametrize("reason", ["", ParkReason.ACTION_UNKNOWN, ParkReason.KEY_REUSED])
def test_a_compensation_that_is_rejected_parks_with_the_reason(reason: str) -> None:
    run = ByHand.ready(shape("g")).rejected("a").settle().rejected("undo a", reason)
    assert isinstance(run.last, Parked)
    assert run.last.reason == (reason or ParkReason.REJECTED)


def test_a_compensation_of_a_server_without_the_barrier_parks() -> None:
    run = ByHand.ready(shape("g")).rejected("a").settle()
    run.unknown("undo a", reason=ParkReason.NOT_GUARDED)
    assert isinstance(run.last, Parked)
    assert run.last.reason is ParkReason.NOT_GUARDED


def test_a_park_waits_until_the_other_compensations_were_answered() -> None:
    run = ByHand.ready(shape("g|g>g")).ok("a", "b").rejected("c").settle().ok("undo c").rejected("undo a")
    assert run.state.parked is None
    assert run.ok("undo b").state.parked is not None


def test_once_the_decision_is_there_nothing_goes_forward() -> None:
    run = ByHand.ready(shape("g>g>g")).ok("a").rejected("b").settle()
    run.ok("undo b", "undo a").settle()
    assert [call for call in run.made if not call.startswith("undo")] == ["a", "b"]
    assert run.state.phase is Phase.COMPENSATED


def test_a_compensation_that_uses_its_own_response_is_sent_after_a_clean_answer() -> None:
    run = ByHand.ready(shape("g>g", uses_self="a")).ok("a", response=b"id-7").rejected("b").settle().ok("undo b")
    assert run.flying == ("undo a",)
    assert run.state.steps[0].compensation == b"undo id-7"


def test_in_doubt_a_compensation_that_uses_its_own_response_is_preceded_by_a_void() -> None:
    run = ByHand.ready(shape("g>g", uses_self="a")).unknown("a", again=None).settle()
    assert run.flying == ("void a",)
    run.ok("void a", response=b"id-7")
    assert run.flying == ("undo a",)
    assert run.state.steps[0].compensation == b"undo id-7"


def test_a_void_that_finds_nothing_needs_no_compensation() -> None:
    run = ByHand.ready(shape("g>g", uses_self="a")).unknown("a", again=None).settle().voided("void a")
    assert run.last == Ended(completed=False)
    assert "undo a" not in run.made


def test_a_rejected_step_whose_compensation_uses_its_response_is_voided() -> None:
    run = ByHand.ready(shape("g", uses_self="a")).rejected("a").settle()
    assert run.flying == ("void a",)


def test_the_decision_and_the_answer_before_it_are_in_order() -> None:
    run = ByHand.ready(shape("g>g")).ok("a").rejected("b")
    kinds = [type(entry.event) for entry in run.journal]
    assert kinds[-2:] == [Answered, TurnedBack]
