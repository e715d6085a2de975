"""Decides the next actions of a run that undoes its effects.

Called by `machine` while the phase is COMPENSATING. No action is called any more. Compensations run in the reverse of
the graph's partial order, each until it is answered.
"""

from datetime import datetime

from amends_saga.engine import rules
from amends_saga.engine.events import (
    Ended,
    Event,
    Operation,
    Parked,
    ParkReason,
    Prepare,
    Send,
    Wait,
)
from amends_saga.engine.state import Ending, RunState, StepRun
from amends_saga.plan import MethodKind, Plan

BackwardAction = Event | Prepare | Send | Wait


def decide(plan: Plan, state: RunState, now: datetime) -> list[BackwardAction]:
    """Return the next actions. Record events in order; an empty list means to wait for a signal."""
    if state.decided is None or state.durable < state.decided_seq:
        return []
    undo = state.decided.undo
    parked = _park_cause(plan, state, undo, now)
    if parked is not None:
        return [*rules.park(state, parked)]
    if all(_undone(state.steps[i]) for i in undo):
        return [Ended(completed=False)]
    actions: list[BackwardAction] = []
    for index in undo:
        actions += _next(plan, state, undo, index, now)
    if state.releasing and not actions:
        return [*rules.release(state)]
    return actions


def _undone(step: StepRun) -> bool:
    return step.undone in (Ending.OK, Ending.BY_PERSON) or step.done is Ending.VOIDED


def _park_cause(plan: Plan, state: RunState, undo: tuple[int, ...], now: datetime) -> Parked | None:
    for index in undo:
        step = state.steps[index]
        if step.refused_void is not None:
            return Parked(rules.park_reason(step), index, step.refused_void, step.message)
        if step.undone in (Ending.REJECTED, Ending.EXHAUSTED):
            return Parked(rules.park_reason(step), index, Operation.COMPENSATION, step.message)
        if step.error is not None and not _undone(step) and not step.skipping:
            return Parked(ParkReason.EXPRESSION_FAILED, index, Operation.COMPENSATION, step.error)
        late = None if _undone(step) else rules.forgotten(plan, state, index, Operation.COMPENSATION, now)
        if late is not None:
            return Parked(late, index, Operation.COMPENSATION, step.message)
    return rules.requested_park(state)


def _next(plan: Plan, state: RunState, undo: tuple[int, ...], index: int, now: datetime) -> list[BackwardAction]:
    step = state.steps[index]
    if _undone(step) or step.flight is not None or step.preparing is not None or state.releasing:
        return []
    if any(later in plan.descendants[index] and not _undone(state.steps[later]) for later in undo):
        return []
    until = rules.waits(step, now)
    if until is not None:
        return [Wait(until)]
    if step.skipping:
        return [Send(index, Operation.VOID_COMPENSATION)]
    compensation = plan.steps[index].compensation
    guarded = plan.steps[index].action.kind is MethodKind.GUARDED
    if guarded and compensation is not None and compensation.uses_self and step.done is not Ending.OK:
        # Its request needs the action's response: the void tells it, or that there is none.
        return [Send(index, Operation.VOID)]
    if step.compensation is None:
        return [Prepare(index, Operation.COMPENSATION)]
    return [Send(index, Operation.COMPENSATION)]
