"""Describes a path in words: its calls and records. Called by `moves`."""

from amends_saga.engine import events as ev
from amends_saga.engine.events import Operation
from amends_saga.plan import Plan


def call_of(plan: Plan, index: int, call: Operation) -> str:
    """Return a call in words; an action is called by its step's name."""
    name = plan.steps[index].name
    return name if call is Operation.ACTION else f"{call.value} of {name}"


def describe(plan: Plan, event: ev.Event) -> str:
    """Return a record in words, for people."""
    match event:
        case ev.Started():
            return "the start"
        case ev.Intent(step):
            return f"the intent to call {plan.steps[step].name}"
        case ev.AttemptFailed(step, call):
            return f"{call_of(plan, step, call)} unanswered"
        case ev.Answered(step, call, outcome, in_doubt):
            return f"{call_of(plan, step, call)} {outcome.value}{' in doubt' if in_doubt else ''}"
        case ev.Skipped(step):
            return f"{plan.steps[step].name} left out"
        case ev.TurnedBack(_, _, undo):
            return f"the decision to undo {' and '.join(plan.steps[i].name for i in undo) or 'nothing'}"
        case ev.Parked(reason, step, call):
            return f"PARKED {reason.value}" + (f" at {call_of(plan, step, call)}" if step is not None else "")
        case ev.Ended(completed):
            return "COMPLETED" if completed else "COMPENSATED"
        case ev.Released():
            return "the owner lets go"
        case ev.CancelRequested():
            return "the request to cancel"
        case ev.Resolved(action, amendment=amendment):
            what = f" {plan.steps[amendment].name}" if amendment is not None else ""
            return f"a person's {action.value}{what}"
