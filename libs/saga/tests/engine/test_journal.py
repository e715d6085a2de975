"""Properties: records survive being written, any durable prefix leads to an end, a journal decides for itself."""

import contextlib
import hmac
import random
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest
from amends_saga.engine import UnreadableJournalError, replay, resolutions
from amends_saga.engine import events as ev
from amends_saga.engine.events import Effect, Operation, Outcome, ParkReason, ResolutionAction, UndoReason
from amends_saga.journal import KINDS, decode, encode, idempotency_key, secret_for
from amends_saga.plan import MethodKind, Plan
from amends_testkit.engine.by_hand import ByHand
from amends_testkit.engine.shapes import shape
from hypothesis import given, settings
from hypothesis import strategies as st

from amends.saga.v1 import journal_pb2 as pb

PLAN = shape("g>g>P>g")
SHAPES = ("g>g>P>g", "g|g>P", "k>g>O", "o>i>P>k", "g>g|k>g", "r>g>g", "g>P>r>g")
STEP = st.integers(0, 3)
CALL = st.sampled_from(Operation)
TEXT = st.text(max_size=20)
AT = st.datetimes(datetime(2000, 1, 1), datetime(2200, 1, 1)).map(lambda at: at.replace(tzinfo=UTC))
MAYBE = st.none()
EVENT = st.one_of(
    st.builds(ev.Started, st.binary(), MAYBE | AT),
    st.builds(ev.Intent, STEP),
    st.builds(ev.AttemptFailed, STEP, CALL, st.integers(0, 16), TEXT, st.integers(1, 1000)),
    st.builds(
        ev.Answered,
        STEP,
        CALL,
        st.sampled_from(Outcome),
        st.booleans(),
        st.binary(),
        st.integers(0, 16),
        TEXT,
        TEXT,
    ),
    st.builds(ev.Skipped, STEP),
    st.builds(ev.TurnedBack, st.sampled_from(UndoReason), MAYBE | STEP, st.lists(STEP, unique=True).map(tuple), TEXT),
    st.builds(ev.Parked, st.sampled_from(ParkReason), MAYBE | STEP, CALL, TEXT),
    st.builds(
        ev.Resolved,
        st.sampled_from(ResolutionAction),
        MAYBE | STEP,
        CALL,
        TEXT,
        TEXT,
        MAYBE | st.sampled_from(Effect),
        MAYBE | st.binary(),
        MAYBE | AT,
        MAYBE | STEP,
    ),
    st.builds(ev.CancelRequested, TEXT, TEXT),
    st.builds(ev.Ended, st.booleans()),
    st.builds(ev.Released, st.integers(1, 2**40)),
)


@given(EVENT, AT, st.integers(1, 2**40), st.integers(1, 2**40))
def test_a_record_is_read_as_it_was_written(event: ev.Event, at: datetime, seq: int, fence: int) -> None:
    entry = ev.Recorded(seq, fence, at, event)
    data = encode(PLAN, entry)
    assert decode(PLAN, seq, fence, data) == entry
    assert pb.JournalRecord.FromString(data).WhichOneof("event") == KINDS[type(event)]


@given(st.binary(min_size=1))
def test_a_record_of_noise_is_refused_and_nothing_else_is_raised(noise: bytes) -> None:
    with contextlib.suppress(UnreadableJournalError):
        assert isinstance(decode(PLAN, 1, 1, noise), ev.Recorded)


def test_a_record_of_a_kind_that_this_version_does_not_know_is_refused() -> None:
    newer = pb.JournalRecord().SerializeToString() + b"\xf2\x07\x02hi"
    with pytest.raises(UnreadableJournalError, match="record 4 was written by a newer version"):
        decode(PLAN, 4, 1, newer)


def test_a_record_with_a_value_that_this_version_does_not_know_is_refused() -> None:
    record = pb.JournalRecord()
    record.parked.reason, record.parked.step, record.parked.call = "A_NEWER_REASON", "a", pb.CALL_ACTION
    with pytest.raises(UnreadableJournalError, match="record 2 cannot be read by this version"):
        decode(PLAN, 2, 1, record.SerializeToString())


def test_a_record_of_a_step_that_the_plan_does_not_have_is_refused() -> None:
    record = pb.JournalRecord()
    record.intent.step = "z"
    with pytest.raises(UnreadableJournalError):
        decode(PLAN, 2, 1, record.SerializeToString())


def test_keys_differ_between_runs_steps_and_secrets_and_never_change() -> None:
    secrets = (b"mine", b"theirs", None)
    keys = {idempotency_key(run, step, one) for run in ("run-1", "run-2") for step in ("a", "b") for one in secrets}
    assert len(keys) == 12
    assert {len(key) for key in keys} == {64}
    assert idempotency_key("run-1", "a", None) == sha256(b"run-1/a").hexdigest()
    assert idempotency_key("run-1", "a", b"mine") == hmac.digest(b"mine", b"run-1/a", "sha256").hex()
    assert (secret_for(1, b"mine"), secret_for(2, b"mine")) == (None, b"mine")


class Chance:
    """Answers everything that a run asks for, by chance."""

    def __init__(self, plan: Plan, seed: int) -> None:
        self.plan = plan
        self.random = random.Random(seed)
        self.fair = False

    def live(self, run: ByHand, moves: int) -> ByHand:
        """Let so many things happen to the run."""
        for _ in range(moves):
            if run.state.settled:
                return run
            self._move(run)
        return run

    def end(self, run: ByHand) -> ByHand:
        """Answer fairly until the run has ended, people included."""
        self.fair = True
        for _ in range(200):
            run.settle()
            if run.state.ended:
                return run
            if run.state.parked is not None:
                run = self._person(run)
            elif run.flying:
                self._answer(run, run.flying[0])
            else:
                run.wait(timedelta(minutes=2))
        raise AssertionError(f"no end: {run.state}")

    def _move(self, run: ByHand) -> None:
        dice = self.random.random()
        if run.flying and dice < 0.7:
            self._answer(run, self.random.choice(run.flying))
        elif dice < 0.9 and run.state.durable < run.state.seq:
            run.durable(self.random.randint(run.state.durable + 1, run.state.seq))
        elif dice < 0.93:
            run.cancel()
        else:
            run.wait(timedelta(seconds=self.random.choice((1, 70))))

    def _answer(self, run: ByHand, call: str) -> None:
        dice = self.random.random()
        kind = call.rpartition(" ")[0]
        if kind.startswith("void"):
            if dice < 0.5:
                run.ok(call)
            else:
                run.voided(call)
        elif self.fair or dice < 0.6 or (kind == "undo" and dice < 0.9):
            run.ok(call)
        elif dice < 0.8:
            run.rejected(call)
        else:
            bounded = not kind and not self.plan.steps[run.step(call)].post
            run.unknown(call, again=None if bounded and dice > 0.9 else timedelta(seconds=1))

    def _person(self, run: ByHand) -> ByHand:
        for action in (ResolutionAction.COMPENSATE, ResolutionAction.SKIP, ResolutionAction.RETRY):
            if action not in resolutions(run.plan, run.state):
                continue
            for effect in (None, Effect.NONE, Effect.HAPPENED):
                if run.refusal(action, effect=effect, result=b"r") == "":
                    return run.resolve(action, effect=effect, result=b"r")
        raise AssertionError(f"nobody can resolve {run.state.parked}")


@settings(deadline=None)
@given(st.sampled_from(SHAPES), st.integers(0, 2**32), st.integers(0, 30), st.integers(0, 30))
def test_from_every_durable_prefix_a_run_comes_to_an_end(text: str, seed: int, moves: int, more: int) -> None:
    chance = Chance(shape(text), seed)
    first = chance.live(ByHand(shape(text)), moves)
    lost = first.state.seq - max(first.state.durable, 1)
    second = chance.live(first.successor(lost=chance.random.randint(0, lost)), more)
    lost = second.state.seq - second.state.durable
    last = chance.end(second.successor(lost=chance.random.randint(0, lost)))
    assert last.state.ended


@settings(deadline=None)
@given(st.sampled_from(SHAPES), st.integers(0, 2**32), st.integers(0, 40))
def test_the_same_journal_gives_the_same_state_and_the_same_commands(text: str, seed: int, moves: int) -> None:
    run = Chance(shape(text), seed).live(ByHand(shape(text)), moves)
    one, other = run.successor(), run.successor()
    assert one.state == other.state
    assert one.commands == other.commands
    written = [decode(run.plan, e.seq, e.fence, encode(run.plan, e)) for e in run.journal]
    assert replay(run.plan, "run-1", 2, written) == replay(run.plan, "run-1", 2, run.journal)


@settings(deadline=None)
@given(st.sampled_from(SHAPES), st.integers(0, 2**32), st.integers(0, 40))
def test_a_journal_has_no_gaps_and_begins_with_the_start(text: str, seed: int, moves: int) -> None:
    run = Chance(shape(text), seed).live(ByHand(shape(text)), moves)
    assert [entry.seq for entry in run.journal] == list(range(1, len(run.journal) + 1))
    assert isinstance(run.journal[0].event, ev.Started)
    assert sum(isinstance(entry.event, ev.Started) for entry in run.journal) == 1


@settings(deadline=None)
@given(st.sampled_from(SHAPES), st.integers(0, 2**32), st.integers(0, 40))
def test_a_guarded_step_that_was_ever_called_is_undone_or_never_acts(text: str, seed: int, moves: int) -> None:
    run = Chance(shape(text), seed).live(ByHand(shape(text)), moves)
    if run.state.decided is None:
        return
    called = {call for call in run.made if " " not in call}
    for index, step in enumerate(run.plan.steps):
        undone = index in run.state.decided.undo
        if step.action.kind is MethodKind.GUARDED and not step.pivot and not step.post:
            assert undone == (step.name in called)
