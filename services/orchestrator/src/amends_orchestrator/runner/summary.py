"""Describes the state of a run in one line and a few columns: kept in its row for lists, shown by the API.

Called with every record that changes a run's row, and when a run is shown.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from amends_saga.engine import Phase, RunState, stalled_since
from amends_saga.engine import events as ev
from amends_saga.engine.state import decided_by_person
from amends_saga.plan import Plan

from amends_orchestrator.journal.records import RunChange, State

_PHASES = {
    Phase.RUNNING: State.RUNNING,
    Phase.COMPENSATING: State.COMPENSATING,
    Phase.COMPLETED: State.COMPLETED,
    Phase.COMPENSATED: State.COMPENSATED,
}
_LONGEST = 500
_CAUSES = {
    ev.UndoReason.REJECTED: "was rejected",
    ev.UndoReason.EXHAUSTED: "did not answer",
    ev.UndoReason.EXPRESSION: "could not be prepared",
}


def state_of(state: RunState) -> State:
    """Return the state of a run as people see it."""
    return State.PARKED if state.parked is not None else _PHASES[state.phase]


def line(plan: Plan, state: RunState) -> str:
    """Return one line for people, e.g. `COMPENSATED: charge was rejected: the card was declined`."""
    shown = state_of(state)
    text = shown.name
    if state.ended:
        text += decided_by_person(plan, state)
    if state.parked is not None:
        step = f"{plan.steps[state.parked.step].name}: " if state.parked.step is not None else ""
        text += f": {step}{state.parked.reason}"
        text += f": {state.parked.message}" if state.parked.message else ""
    elif state.decided is not None:
        text += f": {_cause(plan, state.decided)}"
    return _clean(text)


def _cause(plan: Plan, decided: ev.TurnedBack) -> str:
    message = decided.message
    if decided.step is None or decided.reason not in _CAUSES:
        return message or decided.reason.value
    cause = f"{plan.steps[decided.step].name} {_CAUSES[decided.reason]}"
    return f"{cause}: {message}" if message else cause


def change_for(plan: Plan, state: RunState, event: ev.Event, now: datetime, until: datetime | None) -> RunChange | None:
    """Return how a record changes the run's row; None when nothing in a list changes.

    `state` is the state after the record. `until` is when a released run has something to do again.
    """
    match event:
        case ev.Ended():
            text = line(plan, state)
            return RunChange(state_of(state), release=True, message=text, skipped_by_person=state.skipped_by_person)
        case ev.Parked(reason, step, _, _):
            name = plan.steps[step].name if step is not None else ""
            return RunChange(
                State.PARKED,
                release=True,
                step=name,
                reason=reason.value,
                message=line(plan, state),
                skipped_by_person=state.skipped_by_person,
            )
        case ev.TurnedBack():
            return RunChange(state_of(state), message=line(plan, state), skipped_by_person=state.skipped_by_person)
        case ev.Released():
            return standing(plan, state, now, until, release=True)
        case _:
            return None


def standing(plan: Plan, state: RunState, now: datetime, until: datetime | None, *, release: bool) -> RunChange:
    """Return the row's values for a run that has not ended, stalled or not."""
    due = max(until - now, timedelta()) if until is not None else timedelta()
    plain = RunChange(
        state_of(state),
        release=release,
        due=due if release else None,
        message=line(plan, state),
        skipped_by_person=state.skipped_by_person,
    )
    stalled = stalled_since(plan, state, now)
    if stalled is None:
        return plain
    step, since = stalled
    return replace(
        plain,
        step=plan.steps[step].name,
        reason=_clean(state.steps[step].message),
        stalled=now - since,
        next_attempt=due,
    )


def _clean(text: str) -> str:
    return text.replace("\0", " ")[:_LONGEST]
