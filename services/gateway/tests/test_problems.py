"""The table of statuses, and what a client is told."""

import grpc
import pytest
from amends_chassis.errors import CallRefusal, NotFound
from amends_resilience import DeadlinePassedError
from shop_gateway.problems import STATUSES, problem


def failed(code: grpc.StatusCode, reason: str, message: str = "A sentence.") -> grpc.aio.AioRpcError:
    trailing = grpc.aio.Metadata(CallRefusal(code, reason, message).trailer("orders.shop"))
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, message)


def test_each_grpc_status_has_an_http_status() -> None:
    assert set(STATUSES) == set(grpc.StatusCode)
    assert len(STATUSES) == 17


@pytest.mark.parametrize("code", [one for one in grpc.StatusCode if one is not grpc.StatusCode.OK])
def test_a_refusal_keeps_its_reason_and_its_sentence(code: grpc.StatusCode) -> None:
    told = problem(failed(code, "THE_REASON"))
    assert told.status == STATUSES[code]
    assert told.document()["type"] == "https://amends.dev/problems/orders.shop/THE_REASON"
    assert told.detail == "A sentence."
    assert ("retry-after" in told.response().headers) == (told.status in (429, 503))


@pytest.mark.parametrize(
    ("code", "reason", "status"),
    [
        (grpc.StatusCode.FAILED_PRECONDITION, "VERSION_STALE", 412),
        (grpc.StatusCode.ALREADY_EXISTS, "ORDER_REUSED", 422),
        (grpc.StatusCode.FAILED_PRECONDITION, "ORDER_CLOSED", 409),
    ],
)
def test_a_reason_for_which_http_has_a_status_gets_it(code: grpc.StatusCode, reason: str, status: int) -> None:
    assert problem(failed(code, reason)).status == status


def test_what_nobody_foresaw_is_told_by_a_correlation_id_alone() -> None:
    told = problem(RuntimeError("the password is hunter2"))
    assert told.status == 500
    assert "hunter2" not in str(told.document())
    assert told.document()["correlationId"]


def test_an_error_without_details_says_nothing_of_its_text() -> None:
    empty = grpc.aio.Metadata()
    told = problem(grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, empty, empty, "connect 10.1.2.3 refused"))
    assert told.status == 503
    assert "10.1.2.3" not in str(told.document())


def test_errors_of_the_gateway_itself_are_told_like_those_of_services() -> None:
    assert problem(NotFound("ROUTE_UNKNOWN", "Nothing is there.")).status == 404
    assert problem(DeadlinePassedError()).status == 504
