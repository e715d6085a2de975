"""The protocol of the barrier and its callers: names of metadata and trailers, reasons, and how a call is read.

README.md explains it for those who call. Used by the interceptor and the guard; the orchestrator and `amends probe`
speak it from the other side.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Any

import grpc
from google.rpc.error_details_pb2 import ErrorInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from grpc_status import rpc_status

KEY = "amends-idempotency-key"
OPERATION = "amends-operation"
VOID_OF = "amends-void-of"
ACTION_OUTCOME = "amends-action-outcome"

DOMAIN = "amends.dev"
BARRIER_TRAILER = ("amends-barrier", "1")
VOID_TRAILER = "amends-void"

# A key becomes part of an SQL script: nothing that could end a literal may be in it.
KEY_FORM = re.compile(r"[A-Za-z0-9_.:/+=~-]{1,255}", re.ASCII)


class Operation(StrEnum):
    """The operation that a call asks for, as `amends-operation` says it."""

    ACTION = "action"
    COMPENSATION = "compensation"
    VOID = "void"


class Voided(StrEnum):
    """The answer to a void, as the trailer `amends-void` says it."""

    VOIDED = "voided"
    ALREADY_DONE = "already-done"


class Reason(StrEnum):
    """The reasons for which the barrier refuses: `reason` of the ErrorInfo in domain `amends.dev`."""

    KEY_REUSED = "KEY_REUSED"
    STEP_FENCED = "STEP_FENCED"
    ACTION_UNKNOWN = "ACTION_UNKNOWN"
    CALL_INVALID = "CALL_INVALID"
    REQUEST_UNREADABLE = "REQUEST_UNREADABLE"
    TRANSACTION_CONFLICT = "TRANSACTION_CONFLICT"
    DATABASE_UNAVAILABLE = "DATABASE_UNAVAILABLE"


_STATUS: dict[Reason, tuple[grpc.StatusCode, str]] = {
    Reason.KEY_REUSED: (grpc.StatusCode.FAILED_PRECONDITION, "The idempotency key was used for another request."),
    Reason.STEP_FENCED: (
        grpc.StatusCode.ABORTED,
        "The operation was compensated or made void and cannot run any more.",
    ),
    Reason.ACTION_UNKNOWN: (
        grpc.StatusCode.FAILED_PRECONDITION,
        "The caller knows that the action succeeded, but nothing is recorded of it.",
    ),
    Reason.CALL_INVALID: (grpc.StatusCode.INVALID_ARGUMENT, "The amends-* metadata of the call is not valid."),
    Reason.REQUEST_UNREADABLE: (grpc.StatusCode.INVALID_ARGUMENT, "The request is not the message of this method."),
    Reason.TRANSACTION_CONFLICT: (
        grpc.StatusCode.UNAVAILABLE,
        "The transaction lost a conflict and was rolled back; try again with the same key.",
    ),
    Reason.DATABASE_UNAVAILABLE: (
        grpc.StatusCode.UNAVAILABLE,
        "The database could not be reached or gave up; try again with the same key.",
    ),
}


class BarrierError(Exception):
    """The barrier's own answer instead of the handler's."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        code, message = _STATUS[reason]
        self.code = code
        self.message = f"{message} {detail}".rstrip()

    def trailer(self) -> tuple[str, str | bytes]:
        """Return the metadatum that carries the google.rpc.Status with its ErrorInfo."""
        status = Status(code=self.code.value[0], message=self.message)
        status.details.add().Pack(ErrorInfo(reason=self.reason, domain=DOMAIN))
        ((name, value),) = rpc_status.to_status(status).trailing_metadata
        return name, value


@dataclass(frozen=True, slots=True)
class GuardedCall:
    """The request of one call to the barrier, read from its metadata."""

    key: str
    operation: Operation
    void_of: Operation = Operation.ACTION
    action_known_ok: bool = False


def read(metadata: Iterable[tuple[str, Any]]) -> GuardedCall | None:
    """Return what a call asks for; None if it says nothing of a key, nor of an operation.

    Raises BarrierError(CALL_INVALID) for metadata that make no sense: a guess could cost an effect.
    """
    said = dict(metadata)
    key = said.get(KEY)
    if key is None:
        if OPERATION in said:
            raise BarrierError(Reason.CALL_INVALID, f"{OPERATION} needs {KEY}.")
        return None
    if not isinstance(key, str) or not KEY_FORM.fullmatch(key):
        raise BarrierError(Reason.CALL_INVALID, f"{KEY} takes 1 to 255 of the characters A-Z a-z 0-9 _ . : / + = ~ -")
    operation = _one_of(said, OPERATION, tuple(Operation))
    if operation == Operation.VOID:
        void_of = _one_of(said, VOID_OF, (Operation.ACTION, Operation.COMPENSATION))
        return GuardedCall(key, Operation.VOID, void_of=Operation(void_of))
    if operation == Operation.COMPENSATION:
        outcome = _one_of(said, ACTION_OUTCOME, ("unknown", "ok"))
        return GuardedCall(key, Operation.COMPENSATION, action_known_ok=outcome == "ok")
    return GuardedCall(key, Operation.ACTION)


def digest(method: str, request: bytes) -> bytes:
    """Return what a key is bound to: the method's full path and the request as it was sent, 32 bytes."""
    return sha256(method.encode() + b"\0" + request).digest()


def _one_of(said: dict[str, Any], name: str, values: tuple[str, ...]) -> str:
    """Return a metadatum that has one of `values`; the first of them when it is missing."""
    value: str = said.get(name, values[0])
    if value not in values:
        raise BarrierError(Reason.CALL_INVALID, f"{name} is one of {', '.join(values)}.")
    return value
