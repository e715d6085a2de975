"""Writes the engine's events as protobuf records that every later version can read.

Called by the orchestrator's journal and by the tests that replay golden journals. On disk a step is its name, so that a
journal can be read beside its definition.
"""

import hmac
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from amends.saga.v1 import journal_pb2 as pb
from amends_saga.engine import events as ev
from amends_saga.engine.ledger import UnreadableJournalError
from amends_saga.plan import Plan

RULES_VERSION = 2
"""The version of the rules that a journal was written under. An owner that does not know it leaves the run alone.

1: idempotency keys are a hash of the run's id and the step. 2: they are made with the installation's secret too.
"""
SECRET_KEYS = 2
"""From this version of the rules on keys are made with the secret."""

_CALLS = {
    ev.Operation.ACTION: pb.CALL_ACTION,
    ev.Operation.COMPENSATION: pb.CALL_COMPENSATION,
    ev.Operation.VOID: pb.CALL_VOID,
    ev.Operation.VOID_COMPENSATION: pb.CALL_VOID_COMPENSATION,
}
_OUTCOMES = {
    ev.Outcome.OK: pb.OUTCOME_OK,
    ev.Outcome.REJECTED: pb.OUTCOME_REJECTED,
    ev.Outcome.UNKNOWN: pb.OUTCOME_UNKNOWN,
    ev.Outcome.VOIDED: pb.OUTCOME_VOIDED,
}
_REASONS = {
    ev.UndoReason.REJECTED: pb.UNDO_REASON_REJECTED,
    ev.UndoReason.EXHAUSTED: pb.UNDO_REASON_EXHAUSTED,
    ev.UndoReason.DEADLINE: pb.UNDO_REASON_DEADLINE,
    ev.UndoReason.CANCELLED: pb.UNDO_REASON_CANCELLED,
    ev.UndoReason.PERSON: pb.UNDO_REASON_PERSON,
    ev.UndoReason.EXPRESSION: pb.UNDO_REASON_EXPRESSION,
}
_CALL_OF = {value: key for key, value in _CALLS.items()}
_OUTCOME_OF = {value: key for key, value in _OUTCOMES.items()}
_REASON_OF = {value: key for key, value in _REASONS.items()}


def idempotency_key(run_id: str, step: str, secret: bytes | None) -> str:
    """Return the key that action, compensation and void of a step share: 64 hexadecimal digits.

    `run_id` is the identity that the orchestrator made, never one that a caller chose. `secret` is the result of
    `secret_for` for the run: without it nobody can compute the key from the run's id.
    """
    named = f"{run_id}/{step}".encode()
    return (sha256(named).digest() if secret is None else hmac.digest(secret, named, "sha256")).hex()


def secret_for(rules: int, secret: bytes) -> bytes | None:
    """Return the secret of a run's keys: the installation's, None for runs from before there was one."""
    return secret if rules >= SECRET_KEYS else None


def encode(plan: Plan, entry: ev.Recorded) -> bytes:
    """Return the record's bytes; sequence number and fence are stored beside them."""
    record = pb.JournalRecord(at=timestamp(entry.at))
    _WRITE[type(entry.event)](plan, record, entry.event)
    return record.SerializeToString()


def decode(plan: Plan, seq: int, fence: int, data: bytes) -> ev.Recorded:
    """Return the record of the bytes. Raises UnreadableJournalError for one that this version does not know."""
    try:
        record = pb.JournalRecord.FromString(data)
        kind = record.WhichOneof("event")
        if kind is None:
            raise UnreadableJournalError(f"record {seq} was written by a newer version")
        event = _READ[kind](plan, getattr(record, kind))
    except (DecodeError, KeyError, ValueError) as error:
        raise UnreadableJournalError(f"record {seq} cannot be read by this version") from error
    return ev.Recorded(seq, fence, _datetime(record.at), event)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def timestamp(at: datetime) -> Timestamp:
    """Return the Timestamp of an aware datetime: like FromDatetime, at an eighth of its cost."""
    since = at - _EPOCH
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1000)


def _datetime(stamp: Timestamp) -> datetime:
    return stamp.ToDatetime(UTC)


def _name(plan: Plan, index: int | None) -> str:
    return "" if index is None else plan.steps[index].name


def _step(plan: Plan, name: str) -> int:
    return plan.index[name]


def _maybe_step(plan: Plan, name: str) -> int | None:
    return plan.index[name] if name else None


# ---------------------------------------------------------------- writing


def _write_started(plan: Plan, record: pb.JournalRecord, event: ev.Started) -> None:
    record.started.input = event.input
    if event.deadline is not None:
        record.started.deadline.CopyFrom(timestamp(event.deadline))


def _write_intent(plan: Plan, record: pb.JournalRecord, event: ev.Intent) -> None:
    record.intent.step = _name(plan, event.step)


def _write_attempt_failed(plan: Plan, record: pb.JournalRecord, event: ev.AttemptFailed) -> None:
    to = record.attempt_failed
    to.step, to.call, to.code = _name(plan, event.step), _CALLS[event.call], event.code
    to.message, to.attempt = event.message, event.attempt


def _write_answered(plan: Plan, record: pb.JournalRecord, event: ev.Answered) -> None:
    to = record.answered
    to.step, to.call, to.outcome = _name(plan, event.step), _CALLS[event.call], _OUTCOMES[event.outcome]
    to.in_doubt, to.response, to.code = event.in_doubt, event.response, event.code
    to.reason, to.message = event.reason, event.message


def _write_skipped(plan: Plan, record: pb.JournalRecord, event: ev.Skipped) -> None:
    record.skipped.step = _name(plan, event.step)


def _write_decided(plan: Plan, record: pb.JournalRecord, event: ev.TurnedBack) -> None:
    to = record.decided
    to.reason, to.step, to.message = _REASONS[event.reason], _name(plan, event.step), event.message
    to.undo.extend(_name(plan, step) for step in event.undo)


def _write_parked(plan: Plan, record: pb.JournalRecord, event: ev.Parked) -> None:
    to = record.parked
    to.reason, to.step, to.call, to.message = event.reason, _name(plan, event.step), _CALLS[event.call], event.message


def _write_resolved(plan: Plan, record: pb.JournalRecord, event: ev.Resolved) -> None:
    to = record.resolved
    to.resolution, to.step, to.call = event.action, _name(plan, event.step), _CALLS[event.call]
    to.actor, to.reason, to.effect = event.actor, event.reason, event.effect or ""
    if event.result is not None:
        to.result, to.has_result = event.result, True
    if event.deadline is not None:
        to.deadline.FromDatetime(event.deadline)
    to.amendment = _name(plan, event.amendment)


def _write_cancel(plan: Plan, record: pb.JournalRecord, event: ev.CancelRequested) -> None:
    record.cancel_requested.actor, record.cancel_requested.reason = event.actor, event.reason


def _write_ended(plan: Plan, record: pb.JournalRecord, event: ev.Ended) -> None:
    record.ended.SetInParent()
    record.ended.completed = event.completed


def _write_released(plan: Plan, record: pb.JournalRecord, event: ev.Released) -> None:
    record.released.fence = event.fence


_WRITE: dict[type, Callable[[Plan, pb.JournalRecord, Any], None]] = {
    ev.Started: _write_started,
    ev.Intent: _write_intent,
    ev.AttemptFailed: _write_attempt_failed,
    ev.Answered: _write_answered,
    ev.Skipped: _write_skipped,
    ev.TurnedBack: _write_decided,
    ev.Parked: _write_parked,
    ev.Resolved: _write_resolved,
    ev.CancelRequested: _write_cancel,
    ev.Ended: _write_ended,
    ev.Released: _write_released,
}
KINDS: Mapping[type, str] = {
    ev.Started: "started",
    ev.Intent: "intent",
    ev.AttemptFailed: "attempt_failed",
    ev.Answered: "answered",
    ev.Skipped: "skipped",
    ev.TurnedBack: "decided",
    ev.Parked: "parked",
    ev.Resolved: "resolved",
    ev.CancelRequested: "cancel_requested",
    ev.Ended: "ended",
    ev.Released: "released",
}
"""The field of JournalRecord that holds each kind of event."""


# ---------------------------------------------------------------- reading


def _read_started(plan: Plan, of: pb.Started) -> ev.Event:
    return ev.Started(of.input, _datetime(of.deadline) if of.HasField("deadline") else None)


def _read_attempt_failed(plan: Plan, of: pb.AttemptFailed) -> ev.Event:
    return ev.AttemptFailed(_step(plan, of.step), _CALL_OF[of.call], of.code, of.message, of.attempt)


def _read_answered(plan: Plan, of: pb.Answered) -> ev.Event:
    call, outcome = _CALL_OF[of.call], _OUTCOME_OF[of.outcome]
    return ev.Answered(_step(plan, of.step), call, outcome, of.in_doubt, of.response, of.code, of.reason, of.message)


def _read_decided(plan: Plan, of: pb.Decided) -> ev.Event:
    undo = tuple(_step(plan, name) for name in of.undo)
    return ev.TurnedBack(_REASON_OF[of.reason], _maybe_step(plan, of.step), undo, of.message)


def _read_parked(plan: Plan, of: pb.ParkedRecord) -> ev.Event:
    return ev.Parked(ev.ParkReason(of.reason), _maybe_step(plan, of.step), _CALL_OF[of.call], of.message)


def _read_resolved(plan: Plan, of: pb.Resolved) -> ev.Event:
    return ev.Resolved(
        ev.ResolutionAction(of.resolution),
        _maybe_step(plan, of.step),
        _CALL_OF[of.call],
        of.actor,
        of.reason,
        ev.Effect(of.effect) if of.effect else None,
        of.result if of.has_result else None,
        _datetime(of.deadline) if of.HasField("deadline") else None,
        _maybe_step(plan, of.amendment),
    )


_READ: dict[str, Callable[[Plan, Any], ev.Event]] = {
    "started": _read_started,
    "intent": lambda plan, of: ev.Intent(_step(plan, of.step)),
    "attempt_failed": _read_attempt_failed,
    "answered": _read_answered,
    "skipped": lambda plan, of: ev.Skipped(_step(plan, of.step)),
    "decided": _read_decided,
    "parked": _read_parked,
    "resolved": _read_resolved,
    "cancel_requested": lambda plan, of: ev.CancelRequested(of.actor, of.reason),
    "ended": lambda plan, of: ev.Ended(of.completed),
    "released": lambda plan, of: ev.Released(of.fence),
}
