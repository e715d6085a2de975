"""Turns a participant's answer into the record that the journal keeps.

Called by `machine` for every reply. This module decides which attempts may be repeated: without end after the pivot,
for compensations and for voids; under the retry policy before the pivot; never for a method that promises nothing.
"""

from amends_saga.engine.events import (
    PARKING_REASONS,
    STEP_FENCED,
    Answered,
    AttemptFailed,
    Operation,
    Outcome,
    Replied,
    Reply,
)
from amends_saga.engine.state import Phase, RunState
from amends_saga.plan import MethodKind, Plan


def bounded(plan: Plan, index: int, call: Operation) -> bool:
    """Return whether the retry policy limits the attempts of a call; otherwise it is repeated without end."""
    return call is Operation.ACTION and not plan.steps[index].post


def to_record(plan: Plan, state: RunState, replied: Replied) -> Answered | AttemptFailed | None:
    """Return the record of a reply; None when the reply comes too late to matter."""
    step = state.steps[replied.step]
    if step.flight is not replied.call:
        return None
    if replied.call is Operation.ACTION and (state.phase is not Phase.RUNNING or step.done is not None):
        return None
    reply = replied.reply
    if replied.call is Operation.ACTION:
        return _action(plan, state, replied.step, reply)
    if reply.outcome is Outcome.UNKNOWN and reply.reason not in PARKING_REASONS:
        return AttemptFailed(replied.step, replied.call, reply.code, reply.message, step.retries + 1)
    return _answered(replied, reply, in_doubt=False)


def _action(plan: Plan, state: RunState, index: int, reply: Reply) -> Answered | AttemptFailed:
    step = state.steps[index]
    replied = Replied(index, Operation.ACTION, reply)
    if reply.reason in PARKING_REASONS:
        return _answered(replied, reply._replace(outcome=Outcome.UNKNOWN), in_doubt=True)
    if reply.outcome is not Outcome.UNKNOWN:
        fenced = reply.reason == STEP_FENCED
        return _answered(replied, reply, in_doubt=fenced or step.in_doubt or step.attempts > 0)
    once = plan.steps[index].action.kind is MethodKind.ONCE
    if not once and (reply.retry_at is not None or not bounded(plan, index, Operation.ACTION)):
        return AttemptFailed(index, Operation.ACTION, reply.code, reply.message, step.attempts + 1)
    return _answered(replied, reply, in_doubt=True)


def _answered(replied: Replied, reply: Reply, *, in_doubt: bool) -> Answered:
    response = reply.response if reply.outcome is Outcome.OK else b""
    return Answered(
        replied.step, replied.call, reply.outcome, in_doubt, response, reply.code, reply.reason, reply.message
    )
