from datetime import timedelta

import pytest
from amends_saga.engine.events import Intent, ParkReason, ResolutionAction, TurnedBack, UndoReason
from amends_testkit.engine.by_hand import ByHand
from amends_testkit.engine.shapes import shape

DAYS = timedelta(days=1)


def reason(run: ByHand) -> ParkReason:
    assert run.state.parked is not None
    return run.state.parked.reason


def test_a_run_older_than_the_memory_of_a_barrier_is_parked_and_not_called() -> None:
    run = ByHand.ready(shape("P>g", retention=30 * DAYS)).settle().ok("a").unknown("b")
    run.wait(29 * DAYS - timedelta(seconds=1))
    assert run.flying == ("b",)
    run.unknown("b").wait()
    assert reason(run) is ParkReason.RETENTION_PASSED


def test_a_compensation_is_not_called_when_the_barrier_may_have_forgotten_its_action() -> None:
    run = ByHand.ready(shape("g", retention=3 * DAYS, deadline=None)).rejected("a").settle().unknown("undo a")
    assert reason(run.wait(2 * DAYS)) is ParkReason.RETENTION_PASSED


def test_a_void_is_not_called_when_the_barrier_may_have_forgotten_its_action() -> None:
    run = ByHand.ready(shape("P", retention=3 * DAYS, deadline=None)).settle().rejected("a").unknown("void a")
    assert reason(run.wait(2 * DAYS)) is ParkReason.RETENTION_PASSED


def test_a_person_may_let_it_be_called_all_the_same() -> None:
    run = ByHand.ready(shape("P>g", retention=3 * DAYS)).settle().ok("a").unknown("b").wait(2 * DAYS).settle()
    assert run.resolve(ResolutionAction.RETRY).flying == ("b",)


def test_a_keyed_method_is_not_called_again_after_its_window() -> None:
    run = ByHand.ready(shape("P>k", window=DAYS)).settle().ok("a").settle().unknown("b")
    run.wait(DAYS - timedelta(seconds=1))
    assert run.flying == ("b",)
    assert reason(run.unknown("b").wait()) is ParkReason.WINDOW_PASSED


def test_the_window_counts_from_the_first_intent_whoever_wrote_it() -> None:
    run = ByHand.ready(shape("P>k", window=DAYS)).settle().ok("a").settle()
    run.now += DAYS
    assert reason(run.successor()) is ParkReason.WINDOW_PASSED


def test_a_first_call_of_a_keyed_method_has_no_window() -> None:
    run = ByHand.ready(shape("P>k", window=DAYS, deadline=None)).settle().wait(2 * DAYS).ok("a").settle()
    assert run.flying == ("b",)


@pytest.mark.parametrize("call", ["a", "undo a"])
def test_before_the_pivot_an_expression_that_fails_counts_as_rejected_and_never_attempted(call: str) -> None:
    run = ByHand.ready(shape("g>g"), errors={call: "index out of range"})
    assert run.made == []
    assert run.state.decided is not None
    assert run.state.decided.reason is UndoReason.EXPRESSION
    assert run.state.decided.undo == ()


def test_an_expression_that_fails_undoes_what_came_before() -> None:
    run = ByHand.ready(shape("g>g"), errors={"b": "index out of range"}).ok("a")
    assert run.state.decided is not None
    assert run.state.decided.undo == (0,)
    assert run.made == ["a"]


@pytest.mark.parametrize("text", ["g>P", "g>K", "g>I", "g>O"])
def test_a_pivot_whose_request_cannot_be_built_was_never_called_and_undoes(text: str) -> None:
    run = ByHand.ready(shape(text), errors={"b": "index out of range"}).ok("a").settle()
    assert run.state.decided == TurnedBack(UndoReason.EXPRESSION, 1, (0,), "index out of range")
    assert run.events(Intent) == []
    assert run.ok("undo a").made == ["a", "undo a"]


@pytest.mark.parametrize("text", ["g>P", "g>K"])
def test_a_pivot_that_may_have_been_called_and_cannot_be_built_again_parks(text: str) -> None:
    run = ByHand.ready(shape(text)).ok("a").settle()
    assert run.flying == ("b",)
    run.errors = {"b": "index out of range"}
    assert reason(run.successor()) is ParkReason.EXPRESSION_FAILED


def test_behind_the_pivot_an_expression_that_fails_parks() -> None:
    run = ByHand.ready(shape("g>P>g"), errors={"c": "index out of range"}).ok("a").settle().ok("b")
    assert reason(run) is ParkReason.EXPRESSION_FAILED
    assert "c" not in run.made


def test_an_expression_is_evaluated_again_when_a_person_says_retry() -> None:
    run = ByHand.ready(shape("P>g"), errors={"b": "index out of range"}).settle().ok("a").settle()
    run.errors = {}
    assert run.resolve(ResolutionAction.RETRY).settle().flying == ("b",)


def test_a_compensation_that_uses_its_own_response_and_fails_parks() -> None:
    run = ByHand.ready(shape("g>g", uses_self="a"), errors={"undo a": "no such field"}).ok("a")
    run.rejected("b").settle().ok("undo b")
    assert reason(run) is ParkReason.EXPRESSION_FAILED
    assert "undo a" not in run.made


def test_without_a_deadline_a_run_waits_for_ever() -> None:
    run = ByHand.ready(shape("g>g", deadline=None))
    assert run.until is None
    assert run.wait(1000 * DAYS).state.decided is None


def test_the_deadline_does_not_undo_a_run_that_is_done() -> None:
    run = ByHand.ready(shape("g")).ok("a")
    assert run.wait(DAYS).state.decided is None
