"""Decides the next actions of a run that goes forward.

Called by `machine` while the phase is RUNNING. In order of precedence: park for a person, undo, void the pivot, end,
and only then call what the graph allows.
"""

from datetime import datetime

from amends_saga.engine import rules
from amends_saga.engine.events import (
    PARKING_REASONS,
    STEP_FENCED,
    Admit,
    Answered,
    Ended,
    Event,
    Intent,
    Operation,
    Outcome,
    Parked,
    ParkReason,
    Prepare,
    Send,
    Skipped,
    TurnedBack,
    UndoReason,
    Wait,
)
from amends_saga.engine.state import (
    FINISHED,
    NOT_CHOSEN,
    UNTOUCHED,
    Ending,
    RunState,
    StepRun,
    after_pivot_intent,
    finished,
)
from amends_saga.plan import MethodKind, Plan

ForwardAction = Event | Prepare | Admit | Send | Wait


def decide(plan: Plan, state: RunState, now: datetime) -> list[ForwardAction]:
    """Return the next actions. Record events in order; an empty list means to wait for a signal."""
    notable = [index for index in range(len(state.steps)) if not _unremarkable(plan, state, index)]
    if state.amending is not None:
        # Until the step that the run was parked at is void, or turns out to be done, nothing else moves.
        notable = [index for index in notable if index == state.amending.step]
    parked = _park_cause(plan, state, notable, now)
    if parked is not None:
        return [*rules.park(state, parked)]
    undo = _undo_cause(plan, state, notable, now)
    if undo is not None:
        return _undo(plan, state, undo)
    if _all_finished(state):
        return [Ended(completed=True)]
    return _go_on(plan, state, notable, now)


def _all_finished(state: RunState) -> bool:
    for step in state.steps:  # noqa: SIM110 - a generator would cost more than what it asks
        if step.done not in FINISHED:
            return False
    return True


def _unremarkable(plan: Plan, state: RunState, index: int) -> bool:
    """Return whether a step has ended well or cannot begin yet: then it gives no reason to park or undo.

    It says the same as the rules below would, but faster: most steps of most runs are in one of these two situations.
    """
    step = state.steps[index]
    if step is UNTOUCHED:
        for before in plan.steps[index].after:  # noqa: SIM110 - as above
            if state.steps[before].done not in FINISHED:
                return True
        return False
    if step is NOT_CHOSEN:
        return True
    return step.done is Ending.OK and step.refused_void is None and not step.skipping


# ---------------------------------------------------------------- resting for a person


def _park_cause(plan: Plan, state: RunState, notable: list[int], now: datetime) -> Parked | None:
    for index in notable:
        step = state.steps[index]
        if step.refused_void is not None:
            return Parked(rules.park_reason(step), index, step.refused_void, step.message)
        if step.done in (Ending.REJECTED, Ending.EXHAUSTED) and step.reason in PARKING_REASONS:
            return Parked(rules.park_reason(step), index, Operation.ACTION, step.message)
        parked = _park_step(plan, state, index, now)
        if parked is not None:
            return parked
    return rules.requested_park(state)


def _park_step(plan: Plan, state: RunState, index: int, now: datetime) -> Parked | None:
    step, step_plan = state.steps[index], plan.steps[index]
    if step.skipping:
        return None
    if step.done is None:
        return _park_unfinished(plan, state, index, now)
    if _pivot_needs_void(plan, state, index) and rules.forgotten(plan, state, index, Operation.VOID, now):
        return Parked(ParkReason.RETENTION_PASSED, index, Operation.VOID, step.message)
    if step_plan.pivot and step_plan.action.kind.plain:
        doubt = step.done is Ending.EXHAUSTED or (step.done is Ending.REJECTED and step.in_doubt)
        return Parked(ParkReason.PLAIN_IN_DOUBT, index, Operation.ACTION, step.message) if doubt else None
    if step_plan.post and step.done in (Ending.REJECTED, Ending.EXHAUSTED):
        return Parked(ParkReason.REJECTED, index, Operation.ACTION, step.message)
    return None


def _park_unfinished(plan: Plan, state: RunState, index: int, now: datetime) -> Parked | None:
    step, step_plan = state.steps[index], plan.steps[index]
    if step.error is not None and (step_plan.post or (step_plan.pivot and step.intent_seq > 0)):
        return Parked(ParkReason.EXPRESSION_FAILED, index, Operation.ACTION, step.error)
    if step_plan.pivot and rules.once_spent(plan, step, index):
        return Parked(ParkReason.PLAIN_IN_DOUBT, index, Operation.ACTION, step.message)
    if _ready(plan, state, index):
        reason = rules.forgotten(plan, state, index, Operation.ACTION, now)
        return Parked(reason, index, Operation.ACTION, step.message) if reason else None
    return None


# ---------------------------------------------------------------- undoing


def _undo_cause(plan: Plan, state: RunState, notable: list[int], now: datetime) -> TurnedBack | None:
    """Return why the run turns back, without the list of steps to undo; None when it goes on."""
    if after_pivot_intent(plan, state):
        return _undo_at_pivot(plan, state)
    for index in notable:
        step = state.steps[index]
        if step.skipping:
            continue
        if step.done is Ending.REJECTED:
            return TurnedBack(UndoReason.REJECTED, index, (), step.message)
        if step.done is Ending.EXHAUSTED or (step.done is None and rules.once_spent(plan, step, index)):
            return TurnedBack(UndoReason.EXHAUSTED, index, (), step.message)
        if step.error is not None and _ready(plan, state, index):
            return TurnedBack(UndoReason.EXPRESSION, index, (), step.error)
    if state.person_undo:
        return TurnedBack(UndoReason.PERSON, None, (), "a person asked for it")
    if state.cancel is not None:
        return TurnedBack(UndoReason.CANCELLED, None, (), f"{state.cancel.actor}: {state.cancel.reason}")
    if _past_deadline(plan, state, now):
        return TurnedBack(UndoReason.DEADLINE, None, (), "the deadline has passed")
    return None


def _past_deadline(plan: Plan, state: RunState, now: datetime) -> bool:
    if state.deadline is None or now < state.deadline:
        return False
    return not _all_finished(state)


def _undo_at_pivot(plan: Plan, state: RunState) -> TurnedBack | None:
    """Return the decision to undo if it is certain that the pivot never took effect."""
    index = plan.pivot or 0
    pivot, kind = state.steps[index], plan.steps[index].action.kind
    if state.person_undo and pivot.done is Ending.BY_PERSON:
        return TurnedBack(UndoReason.PERSON, index, (), "a person asked for it")
    fenced = pivot.done is Ending.REJECTED and pivot.reason == STEP_FENCED
    if pivot.done is Ending.VOIDED or fenced:
        reason = UndoReason.REJECTED if pivot.refused else UndoReason.EXHAUSTED
        return TurnedBack(UndoReason.PERSON if state.person_undo else reason, index, (), pivot.message)
    clean = pivot.done is Ending.REJECTED and not pivot.in_doubt and kind.plain
    if clean or (kind is MethodKind.READ and pivot.done in (Ending.REJECTED, Ending.EXHAUSTED)):
        return TurnedBack(UndoReason.REJECTED if pivot.refused else UndoReason.EXHAUSTED, index, (), pivot.message)
    return None


def _undo(plan: Plan, state: RunState, cause: TurnedBack) -> list[ForwardAction]:
    plain = [i for i in range(len(plan.steps)) if plan.steps[i].action.kind.plain]
    if any(state.steps[i].flight is Operation.ACTION or state.steps[i].admitting for i in plain):
        return []
    doubtful = next((i for i in plain if rules.plain_in_doubt(plan, state, i)), None)
    if doubtful is not None:
        text = state.steps[doubtful].message
        return [*rules.park(state, Parked(ParkReason.PLAIN_IN_DOUBT, doubtful, Operation.ACTION, text))]
    unprepared = [i for i in _could_have_been_attempted(plan, state) if not state.steps[i].prepared]
    if unprepared:
        return [Prepare(i, Operation.ACTION) for i in unprepared if state.steps[i].preparing is None]
    if any(step.preparing is not None for step in state.steps):
        return []
    return [cause._replace(undo=_undo_list(plan, state))]


def _could_have_been_attempted(plan: Plan, state: RunState) -> list[int]:
    """Return the guarded steps that an earlier owner may have called without a record."""
    if not state.successor:
        return []
    steps = state.steps
    return [
        i
        for i, step_plan in enumerate(plan.steps)
        if rules.undoable(plan, i)
        and step_plan.action.kind is MethodKind.GUARDED
        and steps[i].done is None
        and not rules.attempted(steps[i])
        and all(finished(steps[u]) for u in step_plan.uses)
    ]


def _undo_list(plan: Plan, state: RunState) -> tuple[int, ...]:
    maybe = {i for i in _could_have_been_attempted(plan, state) if state.steps[i].runs and not state.steps[i].error}
    return tuple(i for i in range(len(plan.steps)) if i in maybe or _must_undo(plan, state.steps[i], i))


def _must_undo(plan: Plan, step: StepRun, index: int) -> bool:
    if not rules.undoable(plan, index) or step.done in (Ending.VOIDED, Ending.SKIPPED, Ending.BY_PERSON):
        return False
    if plan.steps[index].action.kind is MethodKind.GUARDED:
        # The rejected one included: its compensation leaves the record that stops a late copy.
        return rules.attempted(step)
    return step.done is Ending.OK


# ---------------------------------------------------------------- going on


def _go_on(plan: Plan, state: RunState, notable: list[int], now: datetime) -> list[ForwardAction]:
    actions: list[ForwardAction] = []
    for index in notable if plan.in_order else sorted(notable, key=plan.order.index):
        actions += _next(plan, state, index, now)
    if state.releasing and not actions:
        return [*rules.release(state)]
    if state.deadline is not None and not after_pivot_intent(plan, state):
        actions.append(Wait(state.deadline))
    return actions


def _ready(plan: Plan, state: RunState, index: int) -> bool:
    step = state.steps[index]
    if step.done is not None or step.flight is not None or step.admitting or step.preparing is not None:
        return False
    for before in plan.steps[index].after:  # noqa: SIM110 - a generator would cost more than what it asks
        if state.steps[before].done not in FINISHED:
            return False
    return True


def _next(plan: Plan, state: RunState, index: int, now: datetime) -> list[ForwardAction]:
    step = state.steps[index]
    if _gave_up(plan, step, index, now):
        text = step.message or "its retry policy allows no more time"
        return [Answered(index, Operation.ACTION, Outcome.UNKNOWN, in_doubt=True, message=text)]
    if step.skipping or _pivot_needs_void(plan, state, index):
        return _void(state, index, now)
    if not _ready(plan, state, index):
        return []
    if not step.prepared:
        return [] if state.releasing else [Prepare(index, Operation.ACTION)]
    if not step.runs:
        return [Skipped(index)]
    until = rules.waits(step, now)
    if until is not None:
        cap = step.give_up_at if plan.steps[index].pivot and step.attempts else None
        return [] if state.releasing else [Wait(until if cap is None else min(until, cap))]
    if not _durable(plan, state, index):
        return []
    return _call(plan, state, index)


def _gave_up(plan: Plan, step: StepRun, index: int, now: datetime) -> bool:
    """Return whether the unanswered pivot has waited for another attempt as long as it may.

    Other steps have no limit in time: before the pivot the deadline ends the wait, after it they are repeated for ever.
    """
    if not plan.steps[index].pivot or step.done is not None or step.flight is not None or step.skipping:
        return False
    return step.attempts > 0 and step.give_up_at is not None and now >= step.give_up_at


def _pivot_needs_void(plan: Plan, state: RunState, index: int) -> bool:
    step, step_plan = state.steps[index], plan.steps[index]
    if not step_plan.pivot or step_plan.action.kind is not MethodKind.GUARDED or step.intent_seq == 0:
        return False
    if step.done is None:
        return step.flight is None and state.person_undo
    return step.done in (Ending.REJECTED, Ending.EXHAUSTED) and step.reason != STEP_FENCED


def _void(state: RunState, index: int, now: datetime) -> list[ForwardAction]:
    step = state.steps[index]
    if step.flight is not None or state.releasing:
        return []
    until = rules.waits(step, now)
    return [Wait(until)] if until is not None else [Send(index, Operation.VOID)]


def _durable(plan: Plan, state: RunState, index: int) -> bool:
    """Return whether everything that a later owner could not repeat in the same way is on disk."""
    durable, steps = state.durable, state.steps
    if durable < 1:
        return False
    for used in plan.steps[index].uses:
        if steps[used].answered_seq > durable:
            return False
    for before in plan.plain_before[index]:  # noqa: SIM110 - a generator would cost more than what it asks
        if steps[before].answered_seq > durable:
            return False
    return True


def _call(plan: Plan, state: RunState, index: int) -> list[ForwardAction]:
    step, step_plan = state.steps[index], plan.steps[index]
    if not step_plan.pivot and not step_plan.action.kind.plain:
        return [] if state.releasing else [Send(index, Operation.ACTION)]
    if step.intent_seq <= step.forced_seq:
        if state.releasing:
            return []
        return [Intent(index)] if step.admitted else [Admit(index)]
    if step.intent_seq > state.durable:
        return []
    # A run that is let go still makes the call whose intent it wrote: otherwise the next owner must doubt it.
    return [] if state.releasing and not step.admitted else [Send(index, Operation.ACTION)]
