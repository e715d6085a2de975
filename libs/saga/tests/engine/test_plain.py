import pytest
from amends_saga.engine.events import Answered, Effect, Intent, ParkReason, ResolutionAction
from amends_saga.engine.state import answer_known
from amends_testkit.engine.by_hand import ByHand
from amends_testkit.engine.shapes import shape

PLAIN = ["k", "i", "o"]


def reason(run: ByHand) -> ParkReason:
    assert run.state.parked is not None
    return run.state.parked.reason


def undo(run: ByHand) -> tuple[int, ...]:
    assert run.state.decided is not None
    return run.state.decided.undo


@pytest.mark.parametrize("kind", PLAIN)
def test_the_intent_of_a_plain_action_is_on_disk_before_the_call(kind: str) -> None:
    run = ByHand(shape(f"{kind}>g")).durable(1)
    assert run.last == Intent(0)
    assert run.flying == ()
    assert run.durable(1).wait().flying == (), "whatever it hears, but of the intent"
    assert run.settle().flying == ("a",)


@pytest.mark.parametrize("kind", PLAIN)
def test_the_outcome_of_a_plain_action_is_on_disk_before_the_call_that_follows(kind: str) -> None:
    run = ByHand.ready(shape(f"{kind}>g")).settle().ok("a")
    assert run.flying == ()
    assert run.settle().flying == ("b",)


def test_a_guarded_action_has_no_intent() -> None:
    assert ByHand.ready(shape("g>g")).events(Intent) == []


@pytest.mark.parametrize("kind", PLAIN)
def test_a_plain_step_with_a_clean_ok_is_undone(kind: str) -> None:
    run = ByHand.ready(shape(f"{kind}>g")).settle().ok("a").settle().rejected("b")
    assert undo(run) == (0, 1)


@pytest.mark.parametrize("kind", PLAIN)
def test_a_plain_step_that_was_cleanly_rejected_is_left_alone(kind: str) -> None:
    run = ByHand.ready(shape(f"g>{kind}")).ok("a").settle().rejected("b")
    assert undo(run) == (0,)


@pytest.mark.parametrize("kind", ["k", "i"])
def test_an_ok_after_an_unknown_attempt_is_in_doubt_and_parks_when_it_is_to_be_undone(kind: str) -> None:
    run = ByHand.ready(shape(f"{kind}>g")).settle().unknown("a").wait().ok("a").settle().rejected("b")
    assert reason(run) is ParkReason.PLAIN_IN_DOUBT
    assert run.state.decided is None


@pytest.mark.parametrize("kind", ["k", "i"])
def test_a_rejection_after_an_unknown_attempt_is_in_doubt_and_parks(kind: str) -> None:
    run = ByHand.ready(shape(f"{kind}>g")).settle().unknown("a").wait().rejected("a")
    assert reason(run) is ParkReason.PLAIN_IN_DOUBT


@pytest.mark.parametrize("kind", ["k", "i"])
def test_the_doubt_survives_the_owner(kind: str) -> None:
    run = ByHand.ready(shape(f"{kind}>g")).settle().unknown("a").wait().ok("a").settle()
    record = run.events(Answered)[-1]
    assert isinstance(record, Answered)
    assert record.in_doubt
    assert reason(run.successor().rejected("b")) is ParkReason.PLAIN_IN_DOUBT


@pytest.mark.parametrize("kind", ["k", "i"])
def test_an_open_intent_is_in_doubt_for_the_next_owner(kind: str) -> None:
    run = ByHand.ready(shape(f"{kind}>g")).settle().successor()
    assert run.flying == ("a",)
    record = run.ok("a").events(Answered)[-1]
    assert isinstance(record, Answered)
    assert record.in_doubt


def test_a_once_method_is_not_attempted_again_by_anybody() -> None:
    run = ByHand.ready(shape("o>g")).settle().unknown("a")
    assert run.made == ["a"]
    assert reason(run) is ParkReason.PLAIN_IN_DOUBT


def test_a_once_method_with_an_open_intent_parks_for_the_next_owner() -> None:
    run = ByHand.ready(shape("o>g")).settle().successor()
    assert run.made == []
    assert reason(run) is ParkReason.PLAIN_IN_DOUBT


def test_a_once_method_whose_intent_was_lost_was_never_called_and_is_called() -> None:
    run = ByHand(shape("o>g")).durable(1).successor(lost=1).settle()
    assert run.flying == ("a",)
    assert run.ok("a").state.steps[0].in_doubt is False


@pytest.mark.parametrize("kind", PLAIN)
def test_a_plain_step_in_flight_is_awaited_before_the_run_decides(kind: str) -> None:
    run = ByHand.ready(shape(f"{kind}|g")).settle().rejected("b")
    assert run.state.decided is None
    assert undo(run.ok("a")) == (0, 1)


@pytest.mark.parametrize("kind", PLAIN)
def test_a_plain_step_in_flight_that_times_out_parks_the_run(kind: str) -> None:
    run = ByHand.ready(shape(f"{kind}|g")).settle().rejected("b").unknown("a", again=None)
    assert reason(run) is ParkReason.PLAIN_IN_DOUBT


def test_a_plain_step_in_doubt_that_a_person_says_happened_is_undone() -> None:
    run = ByHand.ready(shape("o>g")).settle().unknown("a").settle()
    assert run.refusal(ResolutionAction.COMPENSATE) == "EFFECT_REQUIRED"
    run = run.resolve(ResolutionAction.COMPENSATE, effect=Effect.HAPPENED)
    assert undo(run) == (0,)
    assert run.settle().flying == ("undo a",)


@pytest.mark.parametrize("kind", PLAIN)
def test_who_says_that_a_step_happened_and_is_to_be_undone_says_what_its_compensation_needs(kind: str) -> None:
    run = ByHand.ready(shape(f"{kind}>g", uses_self="a")).settle().unknown("a", again=None).settle()
    assert run.refusal(ResolutionAction.COMPENSATE, effect=Effect.HAPPENED) == "RESULT_REQUIRED"
    told = run.objection(ResolutionAction.COMPENSATE, effect=Effect.HAPPENED)
    assert told == "the compensation of a uses its response, so say what it answered"
    assert run.refusal(ResolutionAction.COMPENSATE, effect=Effect.NONE) == ""
    run = run.resolve(ResolutionAction.COMPENSATE, effect=Effect.HAPPENED, result=b"t-1").settle()
    assert run.flying == ("undo a",)
    assert run.state.steps[0].compensation == b"undo t-1"
    assert answer_known(run.state.steps[0])


@pytest.mark.parametrize("kind", ["k", "i"])
def test_a_response_that_the_journal_has_is_not_asked_for(kind: str) -> None:
    plan = shape(f"{kind}>g", uses_self="a", uses={"b": "a"})
    run = ByHand.ready(plan).settle().unknown("a").wait().ok("a", response=b"t-1").settle().rejected("b")
    assert reason(run) is ParkReason.PLAIN_IN_DOUBT
    run = run.resolve(ResolutionAction.COMPENSATE, effect=Effect.HAPPENED).settle().ok("undo b").settle()
    assert run.state.steps[0].compensation == b"undo t-1"


def test_the_answer_of_a_step_that_a_person_says_happened_is_not_known_unless_it_was_said() -> None:
    run = ByHand.ready(shape("o>g")).settle().unknown("a").settle()
    run = run.resolve(ResolutionAction.COMPENSATE, effect=Effect.HAPPENED).settle()
    assert run.flying == ("undo a",)
    assert not answer_known(run.state.steps[0])


@pytest.mark.parametrize("kind", ["k", "o"])
def test_what_a_person_retries_after_a_call_without_an_answer_stays_in_doubt(kind: str) -> None:
    run = ByHand.ready(shape(f"{kind}>g")).settle().unknown("a", again=None).settle()
    run = run.resolve(ResolutionAction.RETRY).settle().rejected("a").settle()
    assert reason(run) is ParkReason.PLAIN_IN_DOUBT
    assert run.state.decided is None


@pytest.mark.parametrize("kind", ["k", "i"])
def test_what_a_person_retries_after_attempts_without_an_answer_stays_in_doubt(kind: str) -> None:
    run = ByHand.ready(shape(f"{kind}>g")).settle().unknown("a").park().settle()
    run = run.resolve(ResolutionAction.RETRY).settle().rejected("a").settle()
    assert reason(run) is ParkReason.PLAIN_IN_DOUBT


def test_a_plain_step_in_doubt_that_a_person_says_never_happened_is_left_alone() -> None:
    run = ByHand.ready(shape("o>g")).settle().unknown("a").settle()
    assert undo(run.resolve(ResolutionAction.COMPENSATE, effect=Effect.NONE)) == ()


def test_a_person_may_let_a_once_method_be_called_again_and_its_intent_is_written_again() -> None:
    run = ByHand.ready(shape("o>g")).settle().unknown("a").settle().resolve(ResolutionAction.RETRY)
    assert run.flying == ()
    assert run.settle().flying == ("a",)
    assert reason(run.successor()) is ParkReason.PLAIN_IN_DOUBT


def test_two_plain_steps_side_by_side_are_both_intended_before_they_are_called() -> None:
    run = ByHand(shape("k|i>g")).durable(1)
    assert run.events(Intent) == [Intent(0), Intent(1)]
    assert run.settle().flying == ("a", "b")


def test_a_guarded_step_beside_a_plain_one_does_not_wait_for_its_outcome() -> None:
    run = ByHand.ready(shape("k|g>g"))
    assert "b" in run.flying
