"""The questions of both directions: is this step in doubt, may it be called, must the run wait.

Called by `forward` and `backward`.
"""

from datetime import datetime, timedelta

from amends_saga.engine.events import (
    PARKING_REASONS,
    Answered,
    AttemptFailed,
    Event,
    Operation,
    Parked,
    ParkReason,
    Released,
    Skipped,
)
from amends_saga.engine.state import Ending, Phase, RunState, StepRun
from amends_saga.plan import CallPlan, MethodKind, Plan

RETENTION_MARGIN = timedelta(days=1)
"""A run is parked this long before a guarded participant may forget it."""


def attempted(step: StepRun) -> bool:
    """Return whether the action was ever sent, as far as this owner knows."""
    return step.sent or step.attempt_recorded


def undoable(plan: Plan, index: int) -> bool:
    """Return whether the step belongs to the part that is undone: before the pivot, with a compensation."""
    step_plan = plan.steps[index]
    return (
        not step_plan.pivot
        and not step_plan.post
        and step_plan.compensation is not None
        and step_plan.action.kind is not MethodKind.READ
    )


def plain_in_doubt(plan: Plan, state: RunState, index: int) -> bool:
    """Return whether a plain step before the pivot may have an effect that nobody has confirmed."""
    step, step_plan = state.steps[index], plan.steps[index]
    if not step_plan.action.kind.plain or step_plan.pivot or step_plan.post or step.by_person:
        return False
    if step.done is None:
        return step.in_doubt or step.attempts > 0
    return step.done is Ending.EXHAUSTED or (step.done in (Ending.OK, Ending.REJECTED) and step.in_doubt)


def once_spent(plan: Plan, step: StepRun, index: int) -> bool:
    """Return whether a method that promises nothing was attempted by an owner before this one."""
    return plan.steps[index].action.kind is MethodKind.ONCE and step.inherited and not step.sent


def forgotten(plan: Plan, state: RunState, index: int, call: Operation, now: datetime) -> ParkReason | None:
    """Return why the participant may no longer remember the key of this call; None while it does."""
    step, step_plan = state.steps[index], plan.steps[index]
    target: CallPlan | None = step_plan.compensation if call is Operation.COMPENSATION else step_plan.action
    if target is None or step.forced_seq or state.started_at is None:
        return None
    if target.kind is MethodKind.GUARDED and target.retention is not None:
        late = now >= state.started_at + target.retention - RETENTION_MARGIN
        return ParkReason.RETENTION_PASSED if late else None
    if target.kind is MethodKind.KEYED and target.window is not None:
        first = step.intent_at if call is Operation.ACTION else step.waiting_since
        again = (step.attempts > 0 or step.in_doubt) if call is Operation.ACTION else step.retries > 0
        late = again and first is not None and now >= first + target.window
        return ParkReason.WINDOW_PASSED if late else None
    return None


def awaited(plan: Plan, event: Event) -> bool:
    """Return whether the run waits, or may wait, until this record is on disk. Other records need no hurry."""
    match event:
        case AttemptFailed():
            return False
        case Answered(step, Operation.ACTION | Operation.VOID) | Skipped(step):
            return step in plan.awaited
        case Answered():
            return False
        case _:
            return True


def park_reason(step: StepRun) -> ParkReason:
    """Return the reason to park with, for an answer that no retry can improve."""
    return ParkReason(step.reason) if step.reason in PARKING_REASONS else ParkReason.REJECTED


def waits(step: StepRun, now: datetime) -> datetime | None:
    """Return until when the step may not be called; None when it may."""
    return step.retry_at if step.retry_at is not None and step.retry_at > now else None


def busy(state: RunState) -> bool:
    """Return whether anything is under way that must end before the run may rest."""
    return any(step.flight is not None or step.admitting or step.preparing is not None for step in state.steps)


def park(state: RunState, parked: Parked) -> list[Event]:
    """Return the record that parks the run, or nothing while calls are under way: they are recorded first."""
    return [] if busy(state) else [parked]


def requested_park(state: RunState) -> Parked | None:
    """Return the record for a person's request to park; None without one."""
    if state.park_request is None:
        return None
    waiting = [(step.waiting_since, i) for i, step in enumerate(state.steps) if step.waiting_since is not None]
    index = min(waiting)[1] if waiting else None
    call = Operation.COMPENSATION if state.phase is Phase.COMPENSATING else Operation.ACTION
    text = f"{state.park_request.actor}: {state.park_request.reason}"
    return Parked(ParkReason.BY_PERSON, index, call, text)


def release(state: RunState) -> list[Event]:
    """Return the record of an orderly hand-over, or nothing while calls are under way."""
    if busy(state) or state.released == state.seq:
        return []
    return [Released(state.fence)]
