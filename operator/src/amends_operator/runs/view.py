"""Shows a run as the status of its SagaRun has it. Pure.

Messages come from participants and people, so every text of a run is escaped: `kubectl` prints it on a terminal.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from amends_chassis.text import escape
from google.protobuf.timestamp_pb2 import Timestamp

from amends.saga.v1 import run_pb2 as pb
from amends_operator.kube.conditions import Condition, stamp

LONGEST = 1000
LONGEST_LINE = 300
PHASES = {
    pb.RUN_STATE_RUNNING: "Running",
    pb.RUN_STATE_COMPENSATING: "Compensating",
    pb.RUN_STATE_PARKED: "Parked",
    pb.RUN_STATE_COMPLETED: "Completed",
    pb.RUN_STATE_COMPENSATED: "Compensated",
}
ENDED = ("Completed", "Compensated")
_STEPS = {
    pb.STEP_STATE_PENDING: "Pending",
    pb.STEP_STATE_ACTIVE: "Active",
    pb.STEP_STATE_DONE: "Done",
    pb.STEP_STATE_REJECTED: "Rejected",
    pb.STEP_STATE_SKIPPED: "Skipped",
    pb.STEP_STATE_COMPENSATING: "Compensating",
    pb.STEP_STATE_COMPENSATED: "Compensated",
    pb.STEP_STATE_SKIPPED_BY_PERSON: "SkippedByPerson",
    pb.STEP_STATE_IN_DOUBT: "InDoubt",
    pb.STEP_STATE_VOIDED: "Voided",
}
_PASSED = (pb.STEP_STATE_DONE, pb.STEP_STATE_SKIPPED, pb.STEP_STATE_SKIPPED_BY_PERSON)
_OPERATIONS = {
    pb.OPERATION_ACTION: "Action",
    pb.OPERATION_COMPENSATION: "Compensation",
    pb.OPERATION_VOID: "Void",
}
_MOST_STEPS = 100


def has_ended(run: pb.Run) -> bool:
    """Return whether nothing can happen to the run any more."""
    return run.state in (pb.RUN_STATE_COMPLETED, pb.RUN_STATE_COMPENSATED)


def fields_of(run: pb.Run) -> dict[str, Any]:
    """Return the fields of the status that the run itself gives; the empty ones are left out."""
    passed = sum(step.state in _PASSED for step in run.steps)
    entry: dict[str, Any] = {
        "phase": PHASES.get(run.state, "Unknown"),
        "runId": run.run_id,
        "message": escape(run.message)[:LONGEST],
        "digest": run.digest,
        "seq": run.seq,
        "progress": f"{passed}/{len(run.steps)}" if run.steps else "",
        "startedAt": _time(run, "started_at"),
        "endedAt": _time(run, "ended_at"),
        "deadline": None if has_ended(run) else _time(run, "deadline"),
        "skippedByPerson": run.skipped_by_person,
        "amendment": run.amendment,
        "steps": [_step(step) for step in run.steps[:_MOST_STEPS]],
    }
    if run.HasField("failure"):
        entry["failure"] = _failure(run.failure)
    if run.HasField("parked"):
        entry["parked"] = _parked(run.parked)
    if run.HasField("stalled"):
        entry["stalled"] = _stalled(run.stalled)
    return {name: value for name, value in entry.items() if value}


def _step(step: pb.StepStatus) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": step.name, "state": _STEPS.get(step.state, "Pending")}
    if step.attempts:
        entry["attempts"] = step.attempts
    if step.message:
        entry["message"] = escape(step.message)[:LONGEST]
    return entry


def _parked(parked: pb.Parked) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "reason": parked.reason,
        "message": escape(parked.message)[:LONGEST],
        "step": parked.step,
        "operation": _OPERATIONS.get(parked.operation),
        "seq": parked.seq,
        "resolutions": list(parked.resolutions),
        "amendments": list(dict.fromkeys(choice.amendment for choice in parked.choices if choice.amendment)),
        "since": _time(parked, "since"),
    }
    return {name: value for name, value in entry.items() if value}


def _failure(failure: pb.Failure) -> dict[str, Any]:
    entry = {
        "cause": failure.cause,
        "step": failure.step,
        "code": failure.code,
        "reason": escape(failure.reason)[:LONGEST],
        "message": escape(failure.message)[:LONGEST],
    }
    return {name: value for name, value in entry.items() if value}


def _stalled(stalled: pb.Stalled) -> dict[str, Any]:
    entry = {
        "step": stalled.step,
        "reason": escape(stalled.reason)[:LONGEST],
        "since": _time(stalled, "since"),
        "nextAttempt": _time(stalled, "next_attempt"),
    }
    return {name: value for name, value in entry.items() if value}


def timeline_of(events: Iterable[pb.RunEvent]) -> list[str]:
    """Return the records of a journal, one line each: when, number, what."""
    return [f"{_moment(event.at)}  {event.seq}  {_line(event)}" for event in events]


def _moment(at: Timestamp) -> str:
    return f"{at.ToDatetime().isoformat(timespec='milliseconds')}Z"


def _line(event: pb.RunEvent) -> str:
    operation = _OPERATIONS.get(event.operation, "").lower()
    code = event.code if event.code not in ("", "OK") else ""
    actor = f"by {event.actor}" if event.actor else ""
    words = [event.step, operation, event.kind, event.outcome, code, actor]
    line = " ".join(word for word in words if word)
    return escape(f"{line}: {event.message}" if event.message else line)[:LONGEST_LINE]


def conditions_of(run: pb.Run, accepted: Condition) -> list[Condition]:
    """Return the conditions of the run's state, for those who wait; Stalled and Reconciling only while they hold."""
    phase = PHASES.get(run.state, "Unknown")
    ended, line = phase in ENDED, escape(run.message) or phase
    found = [
        accepted,
        Condition("Ended", ended, phase, line),
        Condition("Ready", phase == "Completed", phase, line),
    ]
    if run.HasField("parked"):
        choices = ", ".join(run.parked.resolutions)
        why = escape(run.parked.message).rstrip(".")
        message = f"{run.parked.reason} at {run.parked.step}: {why}. Decide: {choices}."
        found.append(Condition("Stalled", True, "Parked", message))
    elif run.HasField("stalled"):
        found.append(
            Condition("Stalled", True, "StepWaiting", f"{run.stalled.step} waits: {escape(run.stalled.reason)}")
        )
    if phase in ("Running", "Compensating"):
        found.append(Condition("Reconciling", True, phase, line))
    return found


def _time(message: Any, field: str) -> str | None:
    if not message.HasField(field):
        return None
    value: Timestamp = getattr(message, field)
    return stamp(value.ToDatetime())
