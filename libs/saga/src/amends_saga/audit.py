"""Checks one run against its promises: its journal, its row, and the barrier rows of its participants.

Pure: `amends audit` reads the databases and shows these findings. The numbers are those of the invariants in
docs/explanation/guarantees.md and docs/reference/faults.md.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from amends_saga.engine.events import Answered, Ended, Operation, Outcome, Recorded
from amends_saga.engine.ledger import Ledger, UnreadableJournalError, append
from amends_saga.engine.state import (
    Ending,
    Phase,
    RunState,
    StepRun,
    after_pivot_intent,
    answer_known,
    initial,
    stalled_since,
)
from amends_saga.invariants import Invariant
from amends_saga.journal import decode, idempotency_key
from amends_saga.plan import MethodKind, Plan

ACTION, COMPENSATION = "action", "compensation"


@dataclass(frozen=True, slots=True)
class AuditFinding:
    """One broken invariant of one run. `step` is empty when the whole run is affected."""

    invariant: Invariant
    run_id: str
    step: str
    message: str


@dataclass(frozen=True, slots=True)
class RunFacts:
    """The row of a run. `lease_ends` is that of its owner; None if the owner has no row in table process."""

    run_id: str
    state: str
    fence: int
    owned: bool
    lease_ends: datetime | None
    due_at: datetime | None
    ended: bool
    stalled: bool
    skipped_by_person: int
    secret: bytes | None = None
    """What its idempotency keys are made with, see `journal.secret_for`."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """One row of a participant's barrier. `void` means that the operation never ran; else `response` is its answer."""

    void: bool
    response: bytes | None


BarrierMemory = Mapping[str, Mapping[tuple[str, str], Remembered]]
"""By service: its barrier rows by (idempotency key, operation). A service that is missing was not read."""


@dataclass(frozen=True, slots=True)
class Audited:
    """The result of checking one run."""

    findings: tuple[AuditFinding, ...]
    keys: Mapping[str, str]
    """The run's idempotency keys, to the service that may remember each."""
    by_person: int = 0
    """Steps that a person decided: excepted, and counted."""
    unread: int = 0
    """Guarded steps whose participant was not read."""


def audit_run(
    plan: Plan,
    facts: RunFacts,
    records: Sequence[tuple[int, int, bytes]],
    memory: BarrierMemory,
    now: datetime,
    patience: timedelta,
) -> Audited:
    """Check one run. `records` are (seq, fence, record) in order; `now` is the database's time of the reading.

    `patience` is a little more than a lease: if nobody has claimed an open run after that, it is lost.
    """
    keys = run_keys(plan, facts.run_id, facts.secret)
    found = [*_fences(facts, records)]
    try:
        entries = [decode(plan, *record) for record in records]
        ledger = Ledger(initial(plan, facts.run_id))
        for entry in entries:
            ledger = append(plan, ledger, entry)
    except (UnreadableJournalError, KeyError) as error:
        return Audited((*found, _of(facts, Invariant.JOURNAL, str(error))), keys)
    if not entries:
        return Audited((*found, _of(facts, Invariant.JOURNAL, "the journal is empty")), keys)
    state = ledger.state
    found += [*_journal(plan, facts, state, entries), *_liveness(plan, facts, state, entries, now, patience)]
    found += _order(plan, facts, state, entries)
    unread = 0
    for index, step in enumerate(plan.steps):
        if step.action.kind is not MethodKind.GUARDED:
            continue
        rows = memory.get(step.action.service)
        if rows is None:
            unread += 1
            continue
        key = idempotency_key(facts.run_id, step.name, facts.secret)
        found += _effects(plan, facts, state, index, rows.get((key, ACTION)), rows.get((key, COMPENSATION)))
    return Audited(tuple(found), keys, state.skipped_by_person, unread)


def run_keys(plan: Plan, run_id: str, secret: bytes | None) -> dict[str, str]:
    """Return the idempotency keys of a run's guarded steps, each with the service that it is for."""
    guarded = (step for step in plan.steps if step.action.kind is MethodKind.GUARDED)
    return {idempotency_key(run_id, step.name, secret): step.action.service for step in guarded}


def _of(facts: RunFacts, invariant: Invariant, message: str, step: str = "") -> AuditFinding:
    return AuditFinding(invariant, facts.run_id, step, message)


def _fences(facts: RunFacts, records: Iterable[tuple[int, int, bytes]]) -> Iterable[AuditFinding]:
    highest = 0
    for seq, fence, _ in records:
        if fence < highest:
            message = f"record {seq} was written under fence {fence}, after one under fence {highest}"
            yield _of(facts, Invariant.FENCING, message)
        highest = max(highest, fence)
    if highest > facts.fence:
        yield _of(facts, Invariant.FENCING, f"a record has fence {highest}, the run only {facts.fence}")


def _journal(plan: Plan, facts: RunFacts, state: RunState, entries: Sequence[Recorded]) -> Iterable[AuditFinding]:
    """Report where row and journal disagree, and an end that is missing, repeated or not last."""
    said = "PARKED" if state.parked is not None else state.phase.value
    if said != facts.state:
        yield _of(facts, Invariant.JOURNAL, f"the run's row says {facts.state}, its journal {said}")
    if state.skipped_by_person != facts.skipped_by_person and state.ended:
        message = f"{facts.skipped_by_person} steps skipped by a person in the row, {state.skipped_by_person} in fact"
        yield _of(facts, Invariant.JOURNAL, message)
    ends = [entry.seq for entry in entries if isinstance(entry.event, Ended)]
    if len(ends) > 1 or (ends and ends[0] != entries[-1].seq):
        yield _of(facts, Invariant.JOURNAL, f"the run ended at record {ends[0]} and went on to {entries[-1].seq}")
    if state.ended is not facts.ended:
        message = "the run has ended, its row has not" if state.ended else "the run is open, its row has ended"
        yield _of(facts, Invariant.JOURNAL, message)
    if (state.ended or state.parked is not None) and (facts.owned or facts.due_at is not None):
        yield _of(facts, Invariant.JOURNAL, f"the run is {said} and still has an owner or is due")


def _liveness(
    plan: Plan, facts: RunFacts, state: RunState, entries: Sequence[Recorded], now: datetime, patience: timedelta
) -> Iterable[AuditFinding]:
    """Report an open run that nobody will drive, although it does not show as stalled."""
    if state.ended or state.parked is not None:
        return
    if facts.owned and facts.lease_ends is None:
        yield _of(facts, Invariant.TERMINATION, "its owner is no process that anybody knows: nobody will take it over")
    elif not facts.owned and facts.due_at is None:
        yield _of(facts, Invariant.TERMINATION, "nobody owns it and it is not due: nobody will ever drive it")
    elif facts.owned and facts.lease_ends is not None and facts.lease_ends + patience < now:
        yield _of(facts, Invariant.TERMINATION, f"its owner is gone since {facts.lease_ends:%F %T}, and nobody took it")
    elif facts.due_at is not None and facts.due_at + patience < now:
        yield _of(facts, Invariant.TERMINATION, f"it is due since {facts.due_at:%F %T}, and nobody took it")
    elif not facts.stalled and now > _horizon(plan, state, entries) + patience:
        yield _of(facts, Invariant.TERMINATION, f"silently {state.phase.value} past its deadline and the lease time")


def _horizon(plan: Plan, state: RunState, entries: Sequence[Recorded]) -> datetime:
    """Return the time until which an open run may be silent."""
    last = entries[-1].at
    if stalled_since(plan, state, last) is not None:
        return last
    if state.phase is Phase.RUNNING and state.deadline is not None and not after_pivot_intent(plan, state):
        return max(state.deadline, last)
    allowed = plan.stalled_after or plan.deadline
    return last + allowed if allowed is not None else datetime.max.replace(tzinfo=last.tzinfo) - timedelta(days=1)


def _order(plan: Plan, facts: RunFacts, state: RunState, entries: Sequence[Recorded]) -> Iterable[AuditFinding]:
    """Report steps that were undone out of order or twice, and actions done after an undo.

    Also reports compensations that were built without a response that they need. This includes plain steps, which no
    barrier remembers.
    """
    undone: set[int] = set()
    for entry in entries:
        event = entry.event
        if not isinstance(event, Answered) or event.outcome is not Outcome.OK:
            continue
        step_plan = plan.steps[event.step]
        if event.call is Operation.COMPENSATION:
            compensation, known = step_plan.compensation, answer_known(state.steps[event.step])
            if compensation is not None and compensation.uses_self and not known:
                yield _of(facts, Invariant.COMPLETENESS, "undone with a response that nobody knew", step_plan.name)
            if event.step in undone:
                yield _of(facts, Invariant.ONE_EFFECT, "undone twice, says the journal", step_plan.name)
            undone.add(event.step)
            early = [plan.steps[before].name for before in plan.ancestors[event.step] if before in undone]
            if early:
                yield _of(facts, Invariant.ORDER, f"undone after {', '.join(early)}, which it follows", step_plan.name)
        elif event.call is Operation.ACTION and undone:
            yield _of(facts, Invariant.ORDER, "done after something was undone", step_plan.name)


def _effects(
    plan: Plan,
    facts: RunFacts,
    state: RunState,
    index: int,
    action: Remembered | None,
    compensation: Remembered | None,
) -> Iterable[AuditFinding]:
    """Report where a guarded step's barrier rows contradict the journal.

    Participants are read after the journal, so only facts that stay true later are checked for an open run.
    """
    step_plan, step = plan.steps[index], state.steps[index]
    for what, row in ((ACTION, action), (COMPENSATION, compensation)):
        if row is not None and not row.void and row.response is None:
            yield _of(facts, Invariant.ONE_EFFECT, f"the {what} was committed without its response", step_plan.name)
    if compensation is not None and action is None:
        yield _of(facts, Invariant.ORDER, "undone without a record of its action", step_plan.name)
    if step.by_person:
        return
    void = action is not None and action.void
    message = _contradiction(step, ran=_ran(action), voided=void, undone=_ran(compensation), ended=state.ended)
    if not message and step.done is Ending.OK and action is not None and action.response != step.response:
        message = "the participant remembers another response than the journal"
    if message:
        yield _of(facts, Invariant.COMPLETENESS, message, step_plan.name)
        return
    left = _left_at_the_end(state, index, action, compensation)
    if left:
        yield _of(facts, Invariant.COMPLETENESS, left, step_plan.name)


def _left_at_the_end(state: RunState, index: int, action: Remembered | None, compensation: Remembered | None) -> str:
    """Return what the end of the run does not allow of a step's effect; empty when it fits, or the run is open."""
    if state.phase is Phase.COMPENSATED and state.decided is not None:
        if _ran(action) and not _ran(compensation):
            return "the run is COMPENSATED and the effect stands"
        if index in state.decided.undo and action is None:
            return "it was to be undone, and nothing stops a late copy"
    elif _ran(compensation) and state.phase is Phase.COMPLETED:
        return "undone, though the run is COMPLETED"
    return ""


def _contradiction(step: StepRun, *, ran: bool, voided: bool, undone: bool, ended: bool) -> str:
    """Return what the journal says of a step and its participant does not; empty when they agree."""
    if step.done is Ending.OK and not ran:
        return "the journal has its answer, the participant no effect"
    if step.done is Ending.VOIDED and not voided:
        return "the journal says void, the participant does not remember it"
    if step.done is Ending.SKIPPED and ran:
        return "left out by its condition, and has an effect"
    if step.done is Ending.NOT_CHOSEN and ended and ran:
        return "no person chose it, and it has an effect"
    if step.undone is Ending.OK and not undone:
        return "the journal says undone, the participant does not remember it"
    return ""


def _ran(row: Remembered | None) -> bool:
    return row is not None and not row.void
