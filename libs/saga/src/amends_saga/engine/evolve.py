"""Folds events and signals into the state of a run. Total and pure: it never refuses what the journal says.

Called by `ledger` (events alone) and `machine` (both).
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from amends_saga.engine import events as ev
from amends_saga.engine.events import Effect, Operation, Outcome, ResolutionAction
from amends_saga.engine.state import OUTCOME_TO_DONE, UNTOUCHED, Ending, Phase, RunState, StepRun, finished
from amends_saga.plan import MethodKind, Plan

_FIELD = {name: index for index, name in enumerate(StepRun._fields)}
_STEPS, _SEQ, _DURABLE, _MOVED = map(RunState._fields.index, ("steps", "seq", "durable", "moved_at"))
_new = tuple.__new__
"""Makes a NamedTuple of values that are known to be whole, without the call of `_make`."""


def change(state: RunState, index: int, **fields: Any) -> RunState:
    """Return the state with fields of one step replaced.

    Every signal of every run goes through here: it does what `_replace` does, at a fraction of its cost.
    """
    steps = [*state.steps]
    values: list[Any] = [*steps[index]]
    for name, value in fields.items():
        values[_FIELD[name]] = value
    steps[index] = _new(StepRun, values)
    return _with(state, _STEPS, tuple(steps))


def _with(state: RunState, field: int, value: Any) -> RunState:
    """Return the state with one field, named by its position, replaced."""
    values: list[Any] = [*state]
    values[field] = value
    return _new(RunState, values)


def fold(plan: Plan, state: RunState, entry: ev.Recorded) -> RunState:
    """Return the state after a record, which must be the next of the journal."""
    kind = type(entry.event)
    values: list[Any] = [*state]
    values[_SEQ] = entry.seq
    if kind is not ev.Released and kind is not ev.AttemptFailed:
        values[_MOVED] = entry.at
    return _FOLD[kind](plan, _new(RunState, values), entry, entry.event)


def _started(plan: Plan, state: RunState, entry: ev.Recorded, event: ev.Started) -> RunState:
    return state._replace(input=event.input, deadline=event.deadline, started_at=entry.at)


def _intent(plan: Plan, state: RunState, entry: ev.Recorded, event: ev.Intent) -> RunState:
    first = state.steps[event.step].intent_at or entry.at
    return change(state, event.step, intent_seq=entry.seq, intent_at=first)


def _attempt_failed(plan: Plan, state: RunState, entry: ev.Recorded, event: ev.AttemptFailed) -> RunState:
    step = state.steps[event.step]
    since = step.waiting_since or state.moved_at or entry.at
    if event.call is Operation.ACTION:
        attempts, calls = step.attempts + 1, step.calls + 1
        known = {"attempts": attempts, "calls": calls, "attempt_recorded": True}
        return change(state, event.step, waiting_since=since, message=event.message, **known)
    return change(state, event.step, retries=step.retries + 1, waiting_since=since, message=event.message)


def _answered(plan: Plan, state: RunState, entry: ev.Recorded, event: ev.Answered) -> RunState:
    if event.outcome is Outcome.OK and event.call in (Operation.ACTION, Operation.VOID):
        # What most answers are, in one go.
        # If a void finds that the action ran, there was an attempt, perhaps by an earlier owner.
        called = event.call is Operation.ACTION
        state = change(
            state,
            event.step,
            waiting_since=None,
            retry_at=None,
            give_up_at=None,
            retries=0,
            reason=event.reason,
            message=event.message,
            attempt_recorded=True,
            calls=max(state.steps[event.step].calls + called, 1),
            done=Ending.OK,
            answered_seq=entry.seq,
            in_doubt=event.in_doubt,
            response=event.response,
            skipping=False,
        )
        return state if state.amending is None else _amending_told(plan, state, entry.seq, event)
    common: dict[str, Any] = {"waiting_since": None, "retry_at": None, "give_up_at": None, "retries": 0}
    common |= {"reason": event.reason, "message": event.message}
    step = state.steps[event.step]
    if event.call is Operation.ACTION:
        common |= {"attempt_recorded": True, "calls": step.calls + 1, "refused": event.outcome is Outcome.REJECTED}
        common |= {"done": OUTCOME_TO_DONE[event.outcome], "answered_seq": entry.seq, "in_doubt": event.in_doubt}
        common |= {"failed_code": event.code, "failed_reason": event.reason}
    elif event.call is not Operation.COMPENSATION and event.outcome not in (Outcome.OK, Outcome.VOIDED):
        # Refused, or answered by a server without the barrier: nothing was made void.
        common |= {"refused_void": event.call}
    elif event.call is Operation.VOID and step.skipping:
        common |= {"done": Ending.BY_PERSON, "response": step.assumed, "answered_seq": entry.seq}
        common |= {"by_person": True, "skipping": False, "in_doubt": False}
    elif event.call is Operation.VOID:
        # Why the step was voided is what people want to read.
        common |= {"done": Ending.VOIDED, "answered_seq": entry.seq, "in_doubt": False, "message": step.message}
    elif event.outcome is Outcome.VOIDED:
        common |= {"undone": Ending.BY_PERSON, "by_person": True, "skipping": False}
    else:
        common |= {"undone": OUTCOME_TO_DONE[event.outcome], "skipping": False}
    state = change(state, event.step, **common)
    return state if state.amending is None else _amending_told(plan, state, entry.seq, event)


def _skipped(plan: Plan, state: RunState, entry: ev.Recorded, event: ev.Skipped) -> RunState:
    return change(state, event.step, done=Ending.SKIPPED, answered_seq=entry.seq)


def _decided(plan: Plan, state: RunState, entry: ev.Recorded, event: ev.TurnedBack) -> RunState:
    # Calls of guarded actions that are still under way are left alone: their compensation fences them off.
    # A skip whose void is not answered yet is dropped: the step is undone like all others.
    quiet: dict[str, Any] = {"flight": None, "admitting": False, "admitted": False}
    quiet |= {"retry_at": None, "waiting_since": None, "skipping": False}
    steps = tuple(step._replace(**quiet) for step in state.steps)
    return state._replace(phase=Phase.COMPENSATING, decided=event, decided_seq=entry.seq, steps=steps)


def _parked(plan: Plan, state: RunState, entry: ev.Recorded, event: ev.Parked) -> RunState:
    steps = tuple(step._replace(admitted=False, retry_at=None) for step in state.steps)
    return state._replace(parked=event, parked_seq=entry.seq, parked_at=entry.at, park_request=None, steps=steps)


def _resolved(plan: Plan, state: RunState, entry: ev.Recorded, event: ev.Resolved) -> RunState:
    deadline = event.deadline or state.deadline
    state = state._replace(parked=None, parked_seq=0, parked_at=None, deadline=deadline)
    if event.action is ResolutionAction.COMPENSATE:
        state = state._replace(person_undo=True)
    if event.step is None:
        return state
    step = state.steps[event.step]._replace(waiting_since=None, retry_at=None, reason="", refused_void=None)
    kind = plan.steps[event.step].action.kind
    given_up = event.action in (ResolutionAction.SKIP, ResolutionAction.AMEND)
    if event.action is ResolutionAction.RETRY:
        step = _retried(step, event, entry.seq)
    elif event.call in (Operation.COMPENSATION, Operation.VOID_COMPENSATION) or state.phase is Phase.COMPENSATING:
        step = _compensation_skipped(plan, step, event)
    elif kind is MethodKind.GUARDED and given_up:
        step = step._replace(skipping=True, assumed=event.result)
    elif kind is not MethodKind.GUARDED:
        step = _said_by_person(step, event, entry.seq, skip=given_up, read=kind is MethodKind.READ)
    state = state._replace(steps=(*state.steps[: event.step], step, *state.steps[event.step + 1 :]))
    return _wish_to_amend(plan, state, event, entry.seq)


def _wish_to_amend(plan: Plan, state: RunState, event: ev.Resolved, seq: int) -> RunState:
    if event.action is ResolutionAction.AMEND:
        if plan.steps[event.step or 0].action.kind is not MethodKind.GUARDED:
            return _amended(plan, state, seq, event)
        return state._replace(amending=event)
    before = state.amending
    if event.action is ResolutionAction.SKIP and before is not None and before.step == event.step:
        return state._replace(amending=None)
    return state


def _amending_told(plan: Plan, state: RunState, seq: int, event: ev.Answered) -> RunState:
    """Return the state when a person waits for the void of the step that the run was parked at.

    What was chosen begins when that step is void. When the step turns out to have succeeded the decision falls: it
    rested on something that is not so, and the run goes on as if the answer had come in time.
    """
    decision = state.amending
    if decision is None or event.step != decision.step or event.call is not Operation.VOID:
        return state
    if event.outcome is Outcome.OK:
        return state._replace(amending=None)
    return _amended(plan, state, seq, decision) if event.outcome is Outcome.VOIDED else state


def _amended(plan: Plan, state: RunState, seq: int, decision: ev.Resolved) -> RunState:
    """Return the state in which the unfinished steps after the pivot are left, and the chosen amendment begins.

    Each guarded step is made void first, whether the journal knows of a call or not: an owner that was replaced may
    have called it. A plain one was never called, or had its answer: otherwise nothing could be chosen.
    """
    steps = [*state.steps]
    for index, step in enumerate(steps):
        if index == decision.amendment:
            steps[index] = UNTOUCHED
        elif not plan.steps[index].post or finished(step):
            continue
        elif plan.steps[index].action.kind is MethodKind.GUARDED:
            quiet: dict[str, Any] = {"waiting_since": None, "retry_at": None, "reason": "", "refused_void": None}
            steps[index] = step._replace(skipping=True, assumed=None, **quiet)
        else:
            steps[index] = _left(step, seq)
    return state._replace(steps=tuple(steps), amending=None, amended=decision)


def _left(step: StepRun, seq: int) -> StepRun:
    quiet: dict[str, Any] = {"waiting_since": None, "retry_at": None, "error": None, "in_doubt": False}
    return step._replace(done=Ending.BY_PERSON, by_person=True, answered_seq=seq, **quiet)


def _retried(step: StepRun, event: ev.Resolved, seq: int) -> StepRun:
    if event.call is Operation.ACTION and step.done is not Ending.OK:
        doubt = step.in_doubt or step.attempts > 0
        return step._replace(done=None, attempts=0, error=None, prepared=False, forced_seq=seq, in_doubt=doubt)
    if event.call is Operation.COMPENSATION:
        return step._replace(undone=None, retries=0, error=None, forced_seq=seq)
    return step._replace(forced_seq=seq)


def _compensation_skipped(plan: Plan, step: StepRun, event: ev.Resolved) -> StepRun:
    compensation = plan.steps[event.step or 0].compensation
    if compensation is None or compensation.kind is MethodKind.GUARDED:
        return step._replace(undone=None, skipping=True, error=None)
    undone = Ending.OK if event.effect is Effect.HAPPENED else Ending.BY_PERSON
    return step._replace(undone=undone, by_person=True, error=None)


def _said_by_person(step: StepRun, event: ev.Resolved, seq: int, *, skip: bool, read: bool) -> StepRun:
    """Return the state after a person says that a plain step or read happened, or never will."""
    if event.effect is None and not (skip and read):
        return step
    done = Ending.OK if event.effect is Effect.HAPPENED else Ending.BY_PERSON
    response = event.result if event.result is not None else step.response
    return step._replace(done=done, response=response, by_person=True, in_doubt=False, answered_seq=seq, error=None)


def _cancelled(plan: Plan, state: RunState, entry: ev.Recorded, event: ev.CancelRequested) -> RunState:
    return state._replace(cancel=event)


def _ended(plan: Plan, state: RunState, entry: ev.Recorded, event: ev.Ended) -> RunState:
    return state._replace(phase=Phase.COMPLETED if event.completed else Phase.COMPENSATED)


def _released(plan: Plan, state: RunState, entry: ev.Recorded, event: ev.Released) -> RunState:
    return state._replace(released=entry.seq)


_FOLD: dict[type, Callable[[Plan, RunState, ev.Recorded, Any], RunState]] = {
    ev.Started: _started,
    ev.Intent: _intent,
    ev.AttemptFailed: _attempt_failed,
    ev.Answered: _answered,
    ev.Skipped: _skipped,
    ev.TurnedBack: _decided,
    ev.Parked: _parked,
    ev.Resolved: _resolved,
    ev.CancelRequested: _cancelled,
    ev.Ended: _ended,
    ev.Released: _released,
}


def hear(plan: Plan, state: RunState, signal: ev.Signal, now: datetime) -> RunState:
    """Return the state after a signal. A reply only ends its flight here, see `answers` for its record."""
    match signal:
        case ev.Durable(seq):
            return _with(state, _DURABLE, seq) if seq > state.durable else state
        case ev.Prepared(step, call):
            return _prepared(state, signal, step, call)
        case ev.Admitted(step):
            wanted = state.steps[step].admitting
            return change(state, step, admitting=False, admitted=True) if wanted else state
        case ev.Refused(step, call, retry_at, message):
            return _refused(state, step, call, retry_at, message, now)
        case ev.Replied(step, call, reply):
            if state.steps[step].flight is not call:
                return state
            return change(state, step, flight=None, retry_at=reply.retry_at, give_up_at=reply.give_up_at)
        case ev.ParkRequested():
            return state._replace(park_request=signal)
        case ev.TryNow():
            return state._replace(steps=tuple(step._replace(retry_at=None) for step in state.steps))
        case ev.ReleaseRequested():
            return state._replace(releasing=True)
        case ev.CancelAsked():
            return state


def _refused(state: RunState, index: int, call: Operation, retry_at: datetime, message: str, now: datetime) -> RunState:
    step = state.steps[index]
    if not step.admitting and step.flight is not call:
        return state
    # Not an attempt: a call refused before it was sent leaves no doubt.
    # Earlier attempts of this owner are in the journal already.
    # The step has waited since its last record. An earlier owner that released the run recorded no refusals.
    since = step.waiting_since or state.moved_at or now
    fields = {"admitting": False, "retry_at": retry_at, "message": message, "waiting_since": since}
    if step.flight is call:
        fields |= {"flight": None, "sent": False}
    return change(state, index, **fields)


def _prepared(state: RunState, signal: ev.Prepared, index: int, call: Operation) -> RunState:
    if signal.call is Operation.COMPENSATION:
        return change(state, index, preparing=None, compensation=signal.compensation, error=signal.error)
    return change(
        state,
        index,
        preparing=None,
        prepared=True,
        runs=signal.runs,
        request=signal.request,
        compensation=signal.compensation,
        error=signal.error,
    )
