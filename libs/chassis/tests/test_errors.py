from base64 import b64encode
from urllib.parse import quote

import asyncpg
import grpc
import pytest
from amends_chassis import errors
from amends_chassis.errors import Blame, DomainError, refusal
from amends_resilience import BulkheadFullError, DeadlinePassedError
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

CODES = {
    errors.InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    errors.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.Aborted: grpc.StatusCode.ABORTED,
    errors.OutOfRange: grpc.StatusCode.OUT_OF_RANGE,
    errors.ResourceExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
}


def test_each_domain_error_has_its_status():
    assert set(CODES) == {kind for kind in DomainError.__subclasses__() if kind.__module__ == errors.__name__}
    for kind, code in CODES.items():
        assert refusal(kind("SOME_REASON", "Some message.")).code is code


def test_a_refusal_carries_reason_domain_and_facts_as_error_info():
    found = refusal(errors.FailedPrecondition("CARD_DECLINED", "The card was declined.", card="visa"))
    key, value = found.trailer("shop.payments.v1")
    status = Status.FromString(value)
    info = ErrorInfo()
    assert status.details[0].Unpack(info)
    assert key == "grpc-status-details-bin"
    assert (status.code, status.message) == (9, "The card was declined.")
    assert (info.reason, info.domain, dict(info.metadata)) == ("CARD_DECLINED", "shop.payments.v1", {"card": "visa"})


@pytest.mark.parametrize("reason", ["", "lower", "A", "WITH SPACE", "1ST", "ENDS_", "A" * 64])
def test_a_reason_out_of_form_is_refused_where_it_is_raised(reason):
    with pytest.raises(ValueError, match="UPPER_SNAKE_CASE"):
        errors.NotFound(reason, "x")


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (TimeoutError("secret"), grpc.StatusCode.DEADLINE_EXCEEDED, "TIMED_OUT"),
        (DeadlinePassedError("secret"), grpc.StatusCode.DEADLINE_EXCEEDED, "TIMED_OUT"),
        (BulkheadFullError("secret"), grpc.StatusCode.UNAVAILABLE, "OVERLOADED"),
        (asyncpg.SerializationError("secret"), grpc.StatusCode.UNAVAILABLE, "TRANSACTION_CONFLICT"),
        (asyncpg.DeadlockDetectedError("secret"), grpc.StatusCode.UNAVAILABLE, "TRANSACTION_CONFLICT"),
        (asyncpg.LockNotAvailableError("secret"), grpc.StatusCode.UNAVAILABLE, "TRANSACTION_CONFLICT"),
        (asyncpg.InternalClientError("secret"), grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE"),
        (asyncpg.ReadOnlySQLTransactionError("secret"), grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE"),
        (asyncpg.InvalidPasswordError("secret"), grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE"),
        (asyncpg.IdleInTransactionSessionTimeoutError("secret"), grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE"),
        (asyncpg.ConnectionDoesNotExistError("secret"), grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE"),
        (asyncpg.AdminShutdownError("secret"), grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE"),
        (asyncpg.InterfaceError("connection is closed"), grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE"),
        (ConnectionRefusedError("secret"), grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE"),
    ],
)
def test_what_is_wrong_with_a_dependency_asks_for_another_try(error, code, reason):
    found = refusal(error)
    assert (found.code, found.reason, found.blame) == (code, reason, Blame.DEPENDENCY)
    assert "secret" not in found.message


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAVAILABLE),
        (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.DEADLINE_EXCEEDED),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE),
        (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INTERNAL),
        (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INTERNAL),
    ],
)
def test_the_status_of_a_service_called_is_not_passed_off_as_our_own(theirs, ours):
    found = refusal(grpc.aio.AioRpcError(theirs, None, None, details="secret"))
    assert found.code is ours
    assert "secret" not in found.message


@pytest.mark.parametrize(
    "error",
    [
        ValueError("secret"),
        KeyError("secret"),
        asyncpg.UniqueViolationError("secret"),
        asyncpg.InterfaceError("secret"),
    ],
)
def test_any_other_exception_gives_a_correlation_id_and_not_its_text(error):
    first, second = refusal(error), refusal(error)
    assert (first.code, first.reason, first.blame) == (grpc.StatusCode.INTERNAL, "INTERNAL", Blame.SERVICE)
    assert "secret" not in first.message + str(first.metadata)
    assert first.metadata["correlation_id"] in first.message
    assert first.metadata != second.metadata


@pytest.mark.parametrize("character", ["a", "%", "ä", "東", "👩", "\n", "\x00"])
def test_a_long_message_and_long_facts_fit_into_the_metadata_that_any_client_reads(character):
    found = refusal(errors.FailedPrecondition("NO_SLOT", character * 60_000, short="1", long=character * 60_000))
    _, status = found.trailer("shop.payments.v1")
    encoded = quote(found.message, safe="".join(map(chr, range(0x20, 0x7F))).replace("%", ""))
    assert len(encoded) <= 2048
    assert found.message.startswith(character * 100)
    assert found.message.endswith("...")
    assert len(encoded) + len(b64encode(status)) < 8 * 1024
    info = ErrorInfo()
    assert Status.FromString(status).details[0].Unpack(info)
    assert dict(info.metadata) == {"short": "1"}


def test_a_message_that_fits_exactly_is_not_cut():
    assert errors.cut("a" * 2048) == "a" * 2048
    assert errors.cut("a" * 2049) == "a" * 2045 + "..."
