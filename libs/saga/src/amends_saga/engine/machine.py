"""Moves a run on: hears one signal, records what must be kept, and returns commands.

Called by the owner of a run, which carries out the commands in order: it appends records, evaluates expressions, makes
calls. The owner must free an admitted place as soon as the step is neither `admitted` nor in flight.
"""

from datetime import datetime

from amends_saga.engine import answers, backward, forward
from amends_saga.engine.events import (
    Admit,
    CancelAsked,
    CancelRequested,
    Command,
    Event,
    Intent,
    Operation,
    Prepare,
    Record,
    Recorded,
    Replied,
    Send,
    Signal,
    Wait,
)
from amends_saga.engine.evolve import change, fold, hear
from amends_saga.engine.state import Phase, RunState, after_pivot_intent
from amends_saga.plan import Plan


def advance(plan: Plan, state: RunState, signal: Signal | None, now: datetime) -> tuple[RunState, list[Command]]:
    """Return the state after `signal` (None: only time has passed) and the commands that follow, in order."""
    commands: list[Command] = []
    event = _to_event(plan, state, signal)
    if signal is not None:
        state = hear(plan, state, signal, now)
    if event is not None:
        state = _record(plan, state, event, now, commands)
    while True:
        state, again = _pass(plan, state, now, commands)
        if not again:
            return state, commands


def cancellable(plan: Plan, state: RunState) -> bool:
    """Return whether a cancel request is granted: the run goes forward and has not recorded the pivot's intent.

    A parked run waits for a person, who can end it with the decision `compensate`.
    """
    return state.phase is Phase.RUNNING and state.parked is None and not after_pivot_intent(plan, state)


def start(plan: Plan, state: RunState, event: Event, now: datetime) -> tuple[RunState, list[Command]]:
    """Return the state after the first record, and the commands that follow."""
    commands: list[Command] = []
    state = _record(plan, state, event, now, commands)
    state, more = advance(plan, state, None, now)
    return state, commands + more


def _to_event(plan: Plan, state: RunState, signal: Signal | None) -> Event | None:
    if isinstance(signal, Replied):
        return answers.to_record(plan, state, signal)
    if isinstance(signal, CancelAsked) and state.cancel is None and cancellable(plan, state):
        return CancelRequested(signal.actor, signal.reason)
    return None


def _record(plan: Plan, state: RunState, event: Event, now: datetime, commands: list[Command]) -> RunState:
    entry = Recorded(state.seq + 1, state.fence, now, event)
    commands.append(Record(entry))
    return fold(plan, state, entry)


def _pass(plan: Plan, state: RunState, now: datetime, commands: list[Command]) -> tuple[RunState, bool]:
    """Decide once. Return the next state, and whether its records may allow more."""
    if state.ended or state.parked is not None or (state.releasing and state.released == state.seq):
        return state, False
    decide = forward.decide if state.phase is Phase.RUNNING else backward.decide
    again = False
    waits: list[Wait] = []
    for action in decide(plan, state, now):
        match action:
            case Wait():
                waits.append(action)
            case Prepare(step, call):
                state = change(state, step, preparing=call)
                commands.append(action)
            case Admit(step):
                state = change(state, step, admitting=True)
                commands.append(action)
            case Send(step, call):
                state = _sent(state, step, call)
                commands.append(action)
            case _:
                state = _record(plan, state, action, now, commands)
                again = again or not isinstance(action, Intent)
    if waits and not again:
        commands.append(min(waits, key=lambda wait: wait.until))
    return state, again


def _sent(state: RunState, index: int, call: Operation) -> RunState:
    sent = state.steps[index].sent or call is Operation.ACTION
    return change(state, index, flight=call, sent=sent, admitted=False, retry_at=None)
