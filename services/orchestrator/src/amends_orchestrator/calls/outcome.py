"""Classifies a participant's answer as ok, rejected or unknown, see the table in docs/explanation/guarantees.md.

Pure. A reason that the barrier gives outranks the status code; the retry policy has no influence here. Called by the
runner for every attempt.
"""

from __future__ import annotations

from typing import NamedTuple

from amends_saga.engine.events import PARKING_REASONS, STEP_FENCED, Operation, Outcome, ParkReason
from amends_saga.plan import CallPlan, MethodKind

from amends_orchestrator.calls.ports import Answer

DOMAIN = "amends.dev"
BARRIER_TRAILER = "amends-barrier"
VOID_TRAILER = "amends-void"
VOIDED = "voided"

CODES = {
    0: "OK",
    1: "CANCELLED",
    2: "UNKNOWN",
    3: "INVALID_ARGUMENT",
    4: "DEADLINE_EXCEEDED",
    5: "NOT_FOUND",
    6: "ALREADY_EXISTS",
    7: "PERMISSION_DENIED",
    8: "RESOURCE_EXHAUSTED",
    9: "FAILED_PRECONDITION",
    10: "ABORTED",
    11: "OUT_OF_RANGE",
    12: "UNIMPLEMENTED",
    13: "INTERNAL",
    14: "UNAVAILABLE",
    15: "DATA_LOSS",
    16: "UNAUTHENTICATED",
}
"""Numbers of gRPC statuses to their names."""

_REJECTED = frozenset(
    {
        "INVALID_ARGUMENT",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "FAILED_PRECONDITION",
        "OUT_OF_RANGE",
        "PERMISSION_DENIED",
        "UNAUTHENTICATED",
        "UNIMPLEMENTED",
    }
)
# Proxies, and servers without the method, send these before any interceptor runs, so the trailer may be missing.
_BEFORE_THE_BARRIER = frozenset({"PERMISSION_DENIED", "UNAUTHENTICATED", "UNIMPLEMENTED"})
_FAILURES = frozenset(
    {"CANCELLED", "UNKNOWN", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)


class Verdict(NamedTuple):
    """The meaning of an answer for its operation."""

    outcome: Outcome
    reason: str = ""
    """The reason that the barrier or the participant gave; empty without one."""
    response: bytes = b""


def code_name(code: int) -> str:
    """Return the name of a gRPC status; UNKNOWN for a number that is no status."""
    return CODES.get(code, "UNKNOWN")


def is_failure(answer: Answer) -> bool:
    """Return whether the breaker counts the answer as a failure: the service did not or could not answer."""
    return answer.sent and not answer.too_large and code_name(answer.code) in _FAILURES


def classify(method: CallPlan, call: Operation, answer: Answer) -> Verdict:
    """Return what `answer` to `call` means. `method` is the action or compensation that was called or voided."""
    if not answer.sent:
        return Verdict(Outcome.REJECTED, answer.reason)
    if answer.too_large:
        # It was answered, so it most likely took effect; another attempt would get the same answer.
        if method.kind is MethodKind.READ:
            return Verdict(Outcome.REJECTED, "TOO_LARGE")
        return Verdict(Outcome.UNKNOWN, ParkReason.ANSWER_TOO_LARGE)
    name = code_name(answer.code)
    ours = answer.reason if answer.domain == DOMAIN else ""
    by_barrier = _by_barrier(call, name, ours, answer) if method.kind is MethodKind.GUARDED else None
    if by_barrier is not None:
        return by_barrier
    # A plain method may hand on what a barrier behind it said, which says nothing about the method itself.
    reason = "" if answer.reason in _RESERVED else answer.reason
    return Verdict(_by_code(method, name), reason, answer.response if name == "OK" else b"")


_RESERVED = frozenset({*PARKING_REASONS, STEP_FENCED})


def _by_barrier(call: Operation, name: str, reason: str, answer: Answer) -> Verdict | None:
    """Return the verdict of a guarded method's barrier, None when the status decides; `reason` is the barrier's."""
    if reason in PARKING_REASONS:
        return Verdict(Outcome.UNKNOWN, reason)
    if _lacks_barrier(name, answer):
        return Verdict(Outcome.UNKNOWN, ParkReason.NOT_GUARDED)
    voiding = call in (Operation.VOID, Operation.VOID_COMPENSATION)
    if reason == STEP_FENCED:
        return Verdict(Outcome.VOIDED if voiding else Outcome.REJECTED, STEP_FENCED)
    if name == "OK" and voiding:
        voided = answer.trailers.get(VOID_TRAILER) == VOIDED
        return Verdict(Outcome.VOIDED) if voided else Verdict(Outcome.OK, response=answer.response)
    return None


def _lacks_barrier(name: str, answer: Answer) -> bool:
    """Return whether a definite answer of a guarded method came from a server without the barrier."""
    if answer.trailers.get(BARRIER_TRAILER) == "1":
        return False
    return name == "OK" or name in _REJECTED - _BEFORE_THE_BARRIER


def _by_code(method: CallPlan, name: str) -> Outcome:
    override = method.outcomes.get(name)
    if override is not None:
        return Outcome(override)
    if name == "OK":
        return Outcome.OK
    if name == "ALREADY_EXISTS" and method.kind.plain:
        return Outcome.UNKNOWN  # it may have found its own earlier effect
    return Outcome.REJECTED if name in _REJECTED else Outcome.UNKNOWN
