"""The audit of one run over journals and memories written by hand: what is sound passes, what is not is named."""

from datetime import UTC, datetime, timedelta

import pytest
from amends_saga.audit import ACTION, COMPENSATION, Remembered, RunFacts, audit_run
from amends_saga.engine import events as ev
from amends_saga.engine.events import Operation, Outcome
from amends_saga.invariants import Invariant
from amends_saga.journal import encode, idempotency_key
from amends_saga.plan import Plan
from amends_testkit.builders import SERVICE, a_plan, guarded
from amends_testkit.engine.shapes import shape

RUN = "0190b3c2-0000-7000-8000-000000000000"
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
PATIENCE = timedelta(seconds=20)
PLAN = a_plan(guarded("a"), guarded("b", (0,)), guarded("c", (1,)))
START = ev.Started(b"input", NOW + timedelta(minutes=1))


def answered(step: int, call: Operation = Operation.ACTION, outcome: Outcome = Outcome.OK) -> ev.Answered:
    return ev.Answered(step, call, outcome, response=b"r" if outcome is Outcome.OK else b"")


def undone(step: int) -> ev.Answered:
    return answered(step, Operation.COMPENSATION)


REJECTED = (answered(2, outcome=Outcome.REJECTED), ev.TurnedBack(ev.UndoReason.REJECTED, 2, (0, 1, 2)))
COMPENSATED: tuple[ev.Event, ...] = (
    START,
    answered(0),
    answered(1),
    *REJECTED,
    undone(2),
    undone(1),
    undone(0),
    ev.Ended(False),
)
COMPLETED: tuple[ev.Event, ...] = (START, answered(0), answered(1), answered(2), ev.Ended(True))


SECRET = b"of this installation"


def facts(state: str, **other: object) -> RunFacts:
    ended = state in ("COMPLETED", "COMPENSATED")
    known = {"run_id": RUN, "state": state, "fence": 1, "owned": not ended, "lease_ends": NOW, "due_at": None}
    return RunFacts(**(known | {"ended": ended, "stalled": False, "skipped_by_person": 0, "secret": SECRET} | other))  # type: ignore[arg-type]


def memory(*undone_steps: str, plan: Plan = PLAN) -> dict[str, dict[tuple[str, str], Remembered]]:
    rows = {}
    for step in plan.steps:
        key = idempotency_key(RUN, step.name, SECRET)
        rows[key, ACTION] = Remembered(False, b"r")
        if step.name in undone_steps:
            rows[key, COMPENSATION] = Remembered(False, b"r")
    return {SERVICE: rows}


def found(
    run: RunFacts,
    events: tuple[ev.Event, ...],
    rows: dict[str, dict[tuple[str, str], Remembered]] | None = None,
    at: datetime = NOW,
) -> set[tuple[Invariant, str]]:
    records = [(n, 1, encode(PLAN, ev.Recorded(n, 1, NOW, event))) for n, event in enumerate(events, 1)]
    audited = audit_run(PLAN, run, records, rows or {}, at, PATIENCE)
    return {(finding.invariant, finding.step) for finding in audited.findings}


def test_sound_runs_pass():
    assert found(facts("COMPLETED"), COMPLETED, memory()) == set()
    assert found(facts("COMPENSATED"), COMPENSATED, memory("a", "b", "c")) == set()
    assert found(facts("RUNNING"), COMPLETED[:3], memory()) == set()


def test_steps_undone_in_the_order_in_which_they_were_done_break_the_order():
    wrong = (START, answered(0), answered(1), *REJECTED, undone(0), undone(1), undone(2), ev.Ended(False))
    rows = memory("a", "b", "c")
    assert found(facts("COMPENSATED"), wrong, rows) == {(Invariant.ORDER, "b"), (Invariant.ORDER, "c")}


def test_a_step_done_after_something_was_undone_breaks_the_order():
    wrong = (*COMPENSATED[:-1], answered(1), COMPENSATED[-1])
    assert (Invariant.ORDER, "b") in found(facts("COMPENSATED"), wrong, memory("a", "b", "c"))


def test_a_step_undone_twice_has_two_effects():
    wrong = (*COMPENSATED[:-1], undone(0), COMPENSATED[-1])
    assert found(facts("COMPENSATED"), wrong, memory("a", "b", "c")) == {(Invariant.ONE_EFFECT, "a")}


def test_an_effect_that_stands_after_the_run_was_undone_is_named():
    assert found(facts("COMPENSATED"), COMPENSATED, memory("a", "c")) == {(Invariant.COMPLETENESS, "b")}


@pytest.mark.parametrize(
    ("run", "after", "broken"),
    [
        (facts("RUNNING"), timedelta(seconds=10), False),
        (facts("RUNNING"), timedelta(seconds=30), True),  # its owner is gone and nobody took it
        (facts("RUNNING", lease_ends=NOW + timedelta(days=1)), timedelta(seconds=70), False),  # deadline and lease
        (facts("RUNNING", lease_ends=NOW + timedelta(days=1)), timedelta(seconds=90), True),  # silently past both
        (facts("RUNNING", lease_ends=NOW + timedelta(days=1), stalled=True), timedelta(seconds=90), False),
        (facts("RUNNING", lease_ends=None), timedelta(0), True),
        (facts("RUNNING", owned=False), timedelta(0), True),
        (facts("RUNNING", owned=False, due_at=NOW), timedelta(seconds=10), False),
        (facts("RUNNING", owned=False, due_at=NOW), timedelta(seconds=30), True),
    ],
)
def test_an_open_run_is_driven_due_or_visibly_stalled(run: RunFacts, after: timedelta, broken: bool):
    expected = {(Invariant.TERMINATION, "")} if broken else set()
    assert found(run, COMPLETED[:3], memory(), NOW + after) == expected


def test_a_parked_run_waits_for_a_person_as_long_as_it_takes():
    parked = (START, answered(0), ev.Parked(ev.ParkReason.REJECTED, 1, Operation.ACTION))
    assert found(facts("PARKED", owned=False), parked, memory(), NOW + timedelta(days=9)) == set()


def test_steps_that_a_person_decided_are_excepted_and_counted():
    skip = ev.Resolved(ev.ResolutionAction.SKIP, 2, Operation.ACTION, "ada", "done by hand", result=b"")
    parked = ev.Parked(ev.ParkReason.REJECTED, 2, Operation.ACTION)
    voided = ev.Answered(2, Operation.VOID, Outcome.VOIDED)
    events: tuple[ev.Event, ...] = (*COMPLETED[:3], parked, skip, voided, ev.Ended(True))
    records = [(n, 1, encode(PLAN, ev.Recorded(n, 1, NOW, event))) for n, event in enumerate(events, 1)]
    rows = memory()
    rows[SERVICE][idempotency_key(RUN, "c", SECRET), ACTION] = Remembered(True, None)
    audited = audit_run(PLAN, facts("COMPLETED", skipped_by_person=1), records, rows, NOW, PATIENCE)
    assert (audited.findings, audited.by_person) == ((), 1)


def test_a_participant_that_was_not_read_is_counted_and_not_guessed():
    records = [(n, 1, encode(PLAN, ev.Recorded(n, 1, NOW, event))) for n, event in enumerate(COMPLETED, 1)]
    audited = audit_run(PLAN, facts("COMPLETED"), records, {}, NOW, PATIENCE)
    assert (audited.findings, audited.unread) == ((), 3)


@pytest.mark.parametrize("kind", "kio")
def test_a_plain_step_that_was_undone_with_a_response_that_nobody_knew_is_named(kind: str) -> None:
    plan = shape(f"{kind}>g", uses_self="a")

    def audited(result: bytes | None) -> set[tuple[Invariant, str]]:
        events = (
            START,
            ev.Intent(0),
            ev.Answered(0, Operation.ACTION, Outcome.UNKNOWN, in_doubt=True),
            ev.Parked(ev.ParkReason.PLAIN_IN_DOUBT, 0, Operation.ACTION),
            ev.Resolved(
                ev.ResolutionAction.COMPENSATE, 0, Operation.ACTION, "ann", "it is there", ev.Effect.HAPPENED, result
            ),
            ev.TurnedBack(ev.UndoReason.PERSON, None, (0,)),
            undone(0),
            ev.Ended(False),
        )
        records = [(n, 1, encode(plan, ev.Recorded(n, 1, NOW, event))) for n, event in enumerate(events, 1)]
        run = facts("COMPENSATED", skipped_by_person=1)
        return {(one.invariant, one.step) for one in audit_run(plan, run, records, {}, NOW, PATIENCE).findings}

    assert audited(None) == {(Invariant.COMPLETENESS, "a")}
    assert audited(b"t-1") == set()
