"""Turns what a handler raises into what a caller may read: google.rpc.Status with ErrorInfo.

Domain code raises one of the classes below and knows nothing of gRPC metadata; the server interceptor calls
`refusal`. The text of any other exception stays in the log, the caller gets a correlation id to ask for it.
"""

import re
import secrets
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar

import grpc
from amends_barrier import conflict, database_away
from amends_resilience import BreakerOpenError, BulkheadFullError, DeadlinePassedError
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import ErrorInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

from amends_chassis.domain import RefusedError
from amends_chassis.types import DETAILS_KEY

MESSAGE_BYTES = 2048
"""So long a message may be as it goes over the wire, where what is not printable ASCII is percent-encoded. Clients with
the defaults of gRPC read 8 KiB of metadata, in which the message stands twice."""
FACTS_BYTES = 2048
_CUT = "..."
_REASON = re.compile(r"[A-Z][A-Z0-9_]{0,61}[A-Z0-9]")


class DomainError(Exception):
    """A refusal that a caller is meant to read: a stable reason to program against, a message for people."""

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN

    def __init__(self, reason: str, message: str, **metadata: str) -> None:
        """Take the reason (UPPER_SNAKE, at most 63 characters), a sentence, and facts for programs."""
        if not _REASON.fullmatch(reason):
            raise ValueError(f"a reason is UPPER_SNAKE_CASE and 2 to 63 characters long, not {reason!r}")
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message
        self.metadata = metadata


class InvalidArgument(DomainError):
    """The request is wrong, in any state of the service."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class NotFound(DomainError):
    """The thing named does not exist."""

    code = grpc.StatusCode.NOT_FOUND


class AlreadyExists(DomainError):
    """The thing to create exists, and differs."""

    code = grpc.StatusCode.ALREADY_EXISTS


class FailedPrecondition(DomainError):
    """The state forbids it; the same request will be refused until the state changes."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class PermissionDenied(DomainError):
    """The caller is known and may not."""

    code = grpc.StatusCode.PERMISSION_DENIED


class Unauthenticated(DomainError):
    """The caller is not known: it gave no valid credentials."""

    code = grpc.StatusCode.UNAUTHENTICATED


class Aborted(DomainError):
    """A conflict with something concurrent; begin again at a higher level."""

    code = grpc.StatusCode.ABORTED


class OutOfRange(DomainError):
    """Past the end of what there is."""

    code = grpc.StatusCode.OUT_OF_RANGE


class ResourceExhausted(DomainError):
    """A quota or a bounded queue is full."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class Unavailable(DomainError):
    """Not at the moment; try the same call again after a pause."""

    code = grpc.StatusCode.UNAVAILABLE


class DeadlineExceeded(DomainError):
    """The time for it has passed; it may have had its effect."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


@contextmanager
def answers(errors: Mapping[type[RefusedError], type[DomainError]]) -> Iterator[None]:
    """Raise what a gRPC caller is told for what the domain refuses in the block: the class of error that `errors` has.

    Raises LookupError for a refusal that `errors` has no class for.
    """
    try:
        yield
    except RefusedError as refused:
        raise errors[type(refused)](refused.reason, str(refused)) from refused


class Blame(StrEnum):
    """Whose fault a refusal is; decides how loudly it is logged."""

    CALLER = "caller"
    DEPENDENCY = "dependency"
    SERVICE = "service"


@dataclass(frozen=True, slots=True)
class CallRefusal:
    """A refusal in two parts: the status for the caller, and the cause for the log."""

    code: grpc.StatusCode
    reason: str
    message: str
    metadata: dict[str, str] = field(default_factory=dict)
    blame: Blame = Blame.CALLER

    def trailer(self, domain: str) -> tuple[str, bytes]:
        """Return the metadatum that carries google.rpc.Status with an ErrorInfo of `domain`."""
        info = ErrorInfo(reason=self.reason, domain=domain, metadata=_fitting(self.metadata))
        detail = AnyMessage()
        detail.Pack(info)
        number: int = self.code.value[0]
        return DETAILS_KEY, Status(code=number, message=self.message, details=[detail]).SerializeToString()


def cut(text: str) -> str:
    """Return `text`, or as much of its beginning as is safe to send as a status' message, with `...` at its end."""
    size = 0
    fits = 0
    for index, character in enumerate(text):
        size += 1 if " " <= character <= "~" and character != "%" else 3 * len(character.encode(errors="replace"))
        if size <= MESSAGE_BYTES - len(_CUT):
            fits = index + 1
        elif size > MESSAGE_BYTES:
            return text[:fits] + _CUT
    return text


def _fitting(facts: dict[str, str]) -> dict[str, str]:
    """Return the facts that are safe to send, in order. One that does not fit is left out as a whole."""
    kept, left = {}, FACTS_BYTES
    for name, value in facts.items():
        size = len(name.encode()) + len(value.encode(errors="replace"))
        if size <= left:
            kept[name] = value
            left -= size
    return kept


_DEPENDENCY_AWAY = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.ABORTED,
}


def refusal(error: BaseException) -> CallRefusal:
    """Map any exception of a handler. The text of anything but a DomainError is dropped here, a long one is cut."""
    if isinstance(error, DomainError):
        return CallRefusal(error.code, error.reason, cut(error.message), error.metadata)
    if isinstance(error, DeadlinePassedError | TimeoutError):
        return _dependency(grpc.StatusCode.DEADLINE_EXCEEDED, "TIMED_OUT", "The time for this call has passed.")
    if isinstance(error, BreakerOpenError | BulkheadFullError):
        return _dependency(grpc.StatusCode.UNAVAILABLE, "OVERLOADED", "A dependency takes no more calls now.")
    if isinstance(error, grpc.aio.AioRpcError) and error.code() in _DEPENDENCY_AWAY:
        timed_out = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        code = grpc.StatusCode.DEADLINE_EXCEEDED if timed_out else grpc.StatusCode.UNAVAILABLE
        return _dependency(code, "DEPENDENCY_UNAVAILABLE", "A service that this one needs did not answer.")
    if conflict(error):
        return _dependency(grpc.StatusCode.UNAVAILABLE, "TRANSACTION_CONFLICT", "Lost against a concurrent change.")
    if database_away(error) or isinstance(error, ConnectionError | socket.gaierror):
        return _dependency(grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE", "The database cannot be reached now.")
    correlation = secrets.token_hex(8)
    return CallRefusal(
        grpc.StatusCode.INTERNAL,
        "INTERNAL",
        f"Internal error; its log entry has correlation id {correlation}.",
        {"correlation_id": correlation},
        Blame.SERVICE,
    )


def _dependency(code: grpc.StatusCode, reason: str, message: str) -> CallRefusal:
    return CallRefusal(code, reason, message, blame=Blame.DEPENDENCY)
