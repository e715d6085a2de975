"""What a client over HTTP is told when something cannot be done: one table, and documents as RFC 9457 has them.

The reason and the sentence are those of the service that refused (google.rpc.Status with ErrorInfo); nothing else of an
error leaves the gateway. Used by `edge`, and by whoever makes an answer of its own.
"""

import json
import secrets
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from typing import Any, cast

import grpc
import structlog
from amends_chassis.errors import DomainError, refusal
from amends_chassis.pushback import NEVER, asked_pause
from amends_resilience import BreakerOpenError
from google.rpc.error_details_pb2 import ErrorInfo  # type: ignore[import-untyped]
from grpc_status import rpc_status
from starlette.responses import Response

_log = structlog.get_logger(__name__)

FAILED = "request.failed"
BASE = "https://amends.dev/problems"
MEDIA_TYPE = "application/problem+json"
OURS = "gateway.shop"
"""The domain of the reasons that are the gateway's own."""

STATUSES: dict[grpc.StatusCode, int] = {
    grpc.StatusCode.OK: 200,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNKNOWN: 500,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 409,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DATA_LOSS: 500,
    grpc.StatusCode.UNAUTHENTICATED: 401,
}
"""The HTTP status of each gRPC status."""
OF_REASONS = {"VERSION_STALE": 412, "ORDER_REUSED": 422, "KEY_REUSED": 422, "PRICE_UNKNOWN": 422, "PAGE_INVALID": 404}
"""The HTTP status of reasons for which HTTP has a status of its own: they outrank the table of codes."""
RETRY_AFTER = {429: timedelta(seconds=1), 503: timedelta(seconds=1)}
"""When to come back if the service does not say."""
TITLES = {499: "Client Closed Request"}


class HttpError(DomainError):
    """A refusal of the gateway itself, for which HTTP has a status and gRPC has none."""

    def __init__(self, status: int, reason: str, message: str, headers: dict[str, str] | None = None) -> None:
        """Take the HTTP status, the reason (UPPER_SNAKE) and a sentence."""
        super().__init__(reason, message)
        self.status = status
        self.headers = headers or {}


@dataclass(frozen=True, slots=True)
class HttpProblem:
    """A problem details document, before it is one."""

    status: int
    reason: str
    detail: str
    domain: str = OURS
    retry_after: timedelta | None = None
    correlation_id: str | None = None
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def title(self) -> str:
        """Return the name of the status."""
        return TITLES.get(self.status) or HTTPStatus(self.status).phrase

    def document(self) -> dict[str, Any]:
        """Return the members of the document."""
        members: dict[str, Any] = {
            "type": f"{BASE}/{self.domain}/{self.reason}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "reason": self.reason,
        }
        if self.correlation_id is not None:
            members["correlationId"] = self.correlation_id
        return members

    @property
    def needed_headers(self) -> dict[str, str]:
        """Return the headers that its status needs; what the problem says itself outranks them."""
        needed = {}
        if self.retry_after is not None:
            needed["retry-after"] = str(max(1, round(self.retry_after.total_seconds())))
        if self.status == HTTPStatus.UNAUTHORIZED:
            needed["www-authenticate"] = 'Bearer realm="shop"'
        return needed | dict(self.headers)

    def response(self) -> Response:
        """Return the answer."""
        return Response(json.dumps(self.document()), self.status, self.needed_headers, MEDIA_TYPE)


def problem(error: BaseException) -> HttpProblem:
    """Return what a client is told of an error. What nobody foresaw is logged, and told by a correlation id alone."""
    if isinstance(error, HttpError):
        retry = RETRY_AFTER.get(error.status)
        headers = tuple(error.headers.items())
        return HttpProblem(error.status, error.reason, error.message, retry_after=retry, headers=headers)
    if isinstance(error, grpc.aio.AioRpcError):
        return _of_call(error)
    said = refusal(error)
    status = status_of(said.code, said.reason)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR and said.reason == "INTERNAL":
        return _internal(error)
    retry = error.retry_in if isinstance(error, BreakerOpenError) else RETRY_AFTER.get(status)
    return HttpProblem(status, said.reason, said.message, retry_after=retry)


def status_of(code: grpc.StatusCode, reason: str) -> int:
    """Return the HTTP status of a gRPC status and its reason."""
    return OF_REASONS.get(reason) or STATUSES[code]


def _of_call(error: grpc.aio.AioRpcError) -> HttpProblem:
    """Return what a client is told of a call to a service behind."""
    info = error_info(error)
    code = error.code()
    if info is None:
        if STATUSES[code] == HTTPStatus.INTERNAL_SERVER_ERROR:
            return _internal(error)
        reason, detail, domain = code.name, "A service behind this one did not answer as it should.", OURS
    else:
        reason, detail, domain = info.reason, error.details() or "", info.domain or OURS
    status = status_of(code, reason)
    correlation = None if info is None else info.metadata.get("correlation_id")
    asked = asked_pause(cast("Any", error.trailing_metadata()))
    retry = RETRY_AFTER.get(status) if asked is None or asked == NEVER else asked
    return HttpProblem(status, reason, detail, domain, retry if status in RETRY_AFTER else None, correlation)


def error_info(error: grpc.aio.AioRpcError) -> ErrorInfo | None:
    """Return why a call was refused, as the service says it for programs; None when it does not."""
    try:
        status = rpc_status.from_call(cast("Any", error))
    except ValueError:  # the status of the details is another than that of the call
        return None
    for detail in () if status is None else status.details:
        info = ErrorInfo()
        if detail.Unpack(info):
            return info
    return None


def _internal(error: BaseException) -> HttpProblem:
    correlation = secrets.token_hex(8)
    _log.error(FAILED, correlation_id=correlation, exc_info=error)
    detail = "Internal error; its log entry has this correlation id."
    return HttpProblem(500, "INTERNAL", detail, correlation_id=correlation)
