"""Turns a run's state and records into what callers see: messages of amends.saga.v1, with secrets hidden.

Called by every method that answers with a run or an event.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from uuid import UUID

from amends_saga.compiled import CompiledSaga
from amends_saga.engine import Phase, RunState, StepRun, choices, resolutions, stalled_since
from amends_saga.engine import events as ev
from amends_saga.engine.state import Ending, chosen
from amends_saga.example import example
from amends_saga.journal import KINDS, RULES_VERSION, timestamp
from amends_saga.plan import Plan

from amends.saga.v1 import run_pb2 as pb
from amends_orchestrator.api.payloads import Form, Payloads
from amends_orchestrator.calls.outcome import code_name
from amends_orchestrator.journal.records import RunRow, State
from amends_orchestrator.journal.requests import Asked
from amends_orchestrator.runner.ports import RunInfo
from amends_orchestrator.runner.summary import line, state_of

_DONE = {
    Ending.OK: pb.STEP_STATE_DONE,
    Ending.REJECTED: pb.STEP_STATE_REJECTED,
    Ending.EXHAUSTED: pb.STEP_STATE_IN_DOUBT,
    Ending.VOIDED: pb.STEP_STATE_REJECTED,
    Ending.SKIPPED: pb.STEP_STATE_SKIPPED,
    Ending.BY_PERSON: pb.STEP_STATE_SKIPPED_BY_PERSON,
}
_OPERATIONS = {
    ev.Operation.ACTION: pb.OPERATION_ACTION,
    ev.Operation.COMPENSATION: pb.OPERATION_COMPENSATION,
    ev.Operation.VOID: pb.OPERATION_VOID,
    ev.Operation.VOID_COMPENSATION: pb.OPERATION_VOID,
}


@dataclass(frozen=True, slots=True)
class RunView:
    """What a message says of a run beside its state: from its row, or from memory before the row is read."""

    id: UUID
    namespace: str
    saga: str
    digest: bytes
    key: str
    fence: int
    started_at: datetime
    ended_at: datetime | None
    row: RunRow | None = None
    """The row, for what it alone says of a run that no orchestrator could drive; None for a live run."""

    @classmethod
    def of_row(cls, row: RunRow) -> RunView:
        """Return the view of a run that is read from the database."""
        return cls(row.id, row.namespace, row.saga, row.digest, row.key, row.fence, row.started_at, row.ended_at, row)

    @classmethod
    def of_live(cls, info: RunInfo, state: RunState, digest: bytes, key: str, now: datetime) -> RunView:
        """Return the view of a run that this process has just started."""
        ended = now if state.ended else None
        started = state.started_at or now
        return cls(info.id, info.namespace, info.saga, digest, key, state.fence, started, ended)


def run_message(definition: CompiledSaga, view: RunView, state: RunState, now: datetime, payloads: Payloads) -> pb.Run:
    """Return a run with all its steps. `payloads` adds input and responses, redacted; they cost most of the time."""
    plan = definition.plan
    run = pb.Run(
        run_id=str(view.id),
        namespace=view.namespace,
        saga=view.saga,
        digest=view.digest.hex(),
        idempotency_key=view.key,
        state=int(state_of(state)),  # type: ignore[arg-type]
        skipped_by_person=state.skipped_by_person,
        message=line(plan, state),
        seq=state.seq,
        fence=view.fence,
    )
    run.started_at.CopyFrom(timestamp(view.started_at))
    if view.ended_at is not None:
        run.ended_at.CopyFrom(timestamp(view.ended_at))
    if state.deadline is not None:
        run.deadline.CopyFrom(timestamp(state.deadline))
    amendment = chosen(state)
    if amendment is not None:
        run.amendment = plan.steps[amendment].name
    for index, step in enumerate(state.steps):
        if step.done is Ending.NOT_CHOSEN:
            continue
        status = run.steps.add(
            name=plan.steps[index].name,
            state=step_state(state, index, step),
            attempts=step.calls,
            message=step.message,
        )
        if payloads.form is not Form.NONE and step.response is not None and step.done is Ending.OK:
            payloads.show_response(status, step.response, partial(definition.to_json, index, step.response))
    if payloads.form is not Form.NONE:
        payloads.show_input(run, state.input, partial(definition.input_json, state.input))
    _failure(run, plan, state)
    _waiting(run, plan, view.row, state, now)
    _choices(run, definition, state)
    return run


def add_requests(run: pb.Run, asked: Sequence[Asked]) -> None:
    """Add the requests that the run's owner has not answered yet."""
    for request in asked:
        shown = run.wishes.add(kind=request.kind.value, actor=request.actor, reason=request.reason)
        shown.asked_at.FromDatetime(request.at)


def bare_message(row: RunRow, message: str = "") -> pb.Run:
    """Return what a run's row says, for a run whose journal or definition cannot be read here."""
    run = pb.Run(
        run_id=str(row.id),
        namespace=row.namespace,
        saga=row.saga,
        digest=row.digest.hex(),
        idempotency_key=row.key,
        state=int(row.state),  # type: ignore[arg-type]
        skipped_by_person=row.skipped_by_person,
        message=message or row.message,
        fence=row.fence,
    )
    run.started_at.FromDatetime(row.started_at)
    if row.ended_at is not None:
        run.ended_at.FromDatetime(row.ended_at)
    _row_stalled(run, row)
    return run


def newer_message(row: RunRow) -> pb.Run:
    """Return what the row says of a run whose journal has newer rules than this release knows.

    The journal is not read, because this release could misread it. An open run waits for an orchestrator that knows the
    rules, which counts as stalled.
    """
    run = bare_message(row)
    if not row.state.ended and row.state is not State.PARKED and not run.HasField("stalled"):
        run.stalled.step = row.step
        run.stalled.reason = (
            f"JOURNAL_NEWER: written under rules {row.rules}, and this orchestrator knows {RULES_VERSION}"
        )
        run.stalled.since.FromDatetime(row.due_at or row.started_at)
    return run


def step_state(state: RunState, index: int, step: StepRun) -> pb.StepState.ValueType:
    """Return the state of one step as people see it."""
    if step.undone is Ending.OK:
        return pb.STEP_STATE_COMPENSATED if step.done is not Ending.REJECTED else pb.STEP_STATE_REJECTED
    if step.undone is Ending.BY_PERSON or (step.by_person and step.done is not None):
        return pb.STEP_STATE_SKIPPED_BY_PERSON
    undoing = state.phase is Phase.COMPENSATING and state.decided is not None and index in state.decided.undo
    if undoing and step.done is not Ending.VOIDED:
        return pb.STEP_STATE_COMPENSATING
    if step.done is Ending.VOIDED and not step.refused:
        return pb.STEP_STATE_VOIDED
    if step.done is not None:
        return _DONE[step.done]
    if not _touched(step):
        return pb.STEP_STATE_PENDING
    resting = state.parked is not None or state.phase is not Phase.RUNNING
    return pb.STEP_STATE_IN_DOUBT if resting else pb.STEP_STATE_ACTIVE


def _touched(step: StepRun) -> bool:
    """Return whether the action may have been called."""
    return step.attempt_recorded or step.sent or step.intent_seq > 0 or step.flight is not None


def _failure(run: pb.Run, plan: Plan, state: RunState) -> None:
    """Tell why the run undoes its effects, when it does."""
    decided = state.decided
    if decided is None:
        return
    run.failure.cause = decided.reason.name
    run.failure.message = decided.message
    if decided.step is None:
        return
    run.failure.step = plan.steps[decided.step].name
    if decided.reason in (ev.UndoReason.REJECTED, ev.UndoReason.EXHAUSTED):
        step = state.steps[decided.step]
        run.failure.code = code_name(step.failed_code) if step.failed_code else ""
        run.failure.reason = step.failed_reason


def _waiting(run: pb.Run, plan: Plan, row: RunRow | None, state: RunState, now: datetime) -> None:
    parked = state.parked
    if parked is not None:
        run.parked.reason = parked.reason.value
        run.parked.message = parked.message
        run.parked.operation = _OPERATIONS[parked.call]
        run.parked.seq = state.parked_seq
        run.parked.resolutions.extend(action.value for action in resolutions(plan, state))
        if parked.step is not None:
            run.parked.step = plan.steps[parked.step].name
        if state.parked_at is not None:
            run.parked.since.FromDatetime(state.parked_at)
        return
    stalled = stalled_since(plan, state, now)
    if stalled is None:
        if row is not None:
            _row_stalled(run, row)
        return
    step, since = stalled
    run.stalled.step = plan.steps[step].name
    run.stalled.reason = state.steps[step].message
    run.stalled.since.FromDatetime(since)
    due = state.steps[step].retry_at
    if due is None and row is not None:
        due = row.due_at or row.next_attempt_at
    if due is not None:
        run.stalled.next_attempt.FromDatetime(due)


def _choices(run: pb.Run, definition: CompiledSaga, state: RunState) -> None:
    parked = state.parked
    if parked is None:
        return
    for choice in choices(definition.plan, state):
        shown = run.parked.choices.add(resolution=choice.action.value, effect=choice.effect or "")
        if choice.amendment is not None:
            shown.amendment = definition.plan.steps[choice.amendment].name
        if choice.result and parked.step is not None:
            shown.result_example = json.dumps(example(definition.response_descriptor(parked.step)))


def _row_stalled(run: pb.Run, row: RunRow) -> None:
    """Mark a run as stalled if its row says so: no orchestrator could drive it."""
    if row.stalled_since is None or row.state.ended or row.state is State.PARKED:
        return
    run.stalled.step = row.step
    told = row.message and not row.message.startswith(row.state.name)
    run.stalled.reason = f"{row.reason}: {row.message}" if told else row.reason
    run.stalled.since.FromDatetime(row.stalled_since)
    if row.next_attempt_at is not None:
        run.stalled.next_attempt.FromDatetime(row.next_attempt_at)


def event_message(plan: Plan, run_id: str, entry: ev.Recorded, state: RunState) -> pb.RunEvent:
    """Return one line of the timeline. `state` is the run's after the record."""
    event = entry.event
    shown = pb.RunEvent(
        run_id=run_id,
        seq=entry.seq,
        fence=entry.fence,
        kind=KINDS[type(event)].upper(),
        state=int(state_of(state)),  # type: ignore[arg-type]
    )
    shown.at.FromDatetime(entry.at)
    step = getattr(event, "step", None)
    if step is not None:
        shown.step = plan.steps[step].name
    call = getattr(event, "call", None)
    if call is not None:
        shown.operation = _OPERATIONS[call]
    if isinstance(event, ev.Answered):
        shown.outcome = event.outcome.value
    if isinstance(event, ev.Answered | ev.AttemptFailed):
        shown.code = code_name(event.code)
    shown.actor = getattr(event, "actor", "")
    shown.message = _text(plan, event, state)
    return shown


def _text(plan: Plan, event: ev.Event, state: RunState) -> str:
    match event:
        case ev.AttemptFailed(attempt=attempt, message=message):
            return f"attempt {attempt}: {message}"
        case ev.Answered(reason=reason, message=message):
            return f"{reason}: {message}" if reason and message else reason or message
        case ev.TurnedBack(undo=undo, message=message):
            names = ", ".join(plan.steps[step].name for step in undo) or "nothing"
            return f"undo {names}: {message}" if message else f"undo {names}"
        case ev.Parked(reason=parked, message=message):
            return f"{parked.value}: {message}" if message else parked.value
        case ev.Resolved(action=action, reason=reason, effect=effect, amendment=amendment):
            what = f" {plan.steps[amendment].name}" if amendment is not None else ""
            return f"{action.value}{what}{f' (effect: {effect.value})' if effect else ''}: {reason}"
        case ev.CancelRequested(reason=reason):
            return reason
        case ev.Ended():
            return line(plan, state)
        case _:
            return ""
