"""The service as its callers see it: over gRPC, with the real barrier and a real database."""

import grpc
import pytest
from amends_testkit.service import refusal_of, refusals_of
from shop_inventory import api, domain

from shop.inventory.v1 import inventory_pb2 as pb
from shop.types.v1.types_pb2 import Line


def lines(**quantities):
    return [Line(sku=sku, quantity=quantity) for sku, quantity in quantities.items()]


async def stock(service, sku="tea"):
    found = await service.GetStock(pb.GetStockRequest(sku=sku))
    return found.available, found.reserved, found.sold


@pytest.fixture
async def stocked(service):
    await service.Receive(pb.ReceiveRequest(delivery_id="d-1", lines=lines(tea=5, cup=1)))
    return service


def test_every_refusal_of_the_domain_has_an_answer():
    assert set(api.ERRORS) == refusals_of(domain)


async def test_a_repeated_reservation_is_answered_from_memory(stocked, call):
    request = pb.ReserveRequest(order_id="o-1", lines=lines(tea=2))
    first = stocked.Reserve(request, metadata=call("k-1"))
    assert await first == await stocked.Reserve(request, metadata=call("k-1"))
    assert ("amends-barrier", "1") in [tuple(entry) for entry in await first.trailing_metadata()]
    assert await stock(stocked) == (3, 2, 0)


async def test_a_key_is_not_for_two_orders(stocked, call):
    await stocked.Reserve(pb.ReserveRequest(order_id="o-1", lines=lines(tea=2)), metadata=call("k-1"))
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await stocked.Reserve(pb.ReserveRequest(order_id="o-2", lines=lines(tea=2)), metadata=call("k-1"))
    assert refusal_of(error.value) == ("FAILED_PRECONDITION", "KEY_REUSED")


async def test_a_compensated_reservation_is_given_back_and_stays_fenced(stocked, call):
    request = pb.ReserveRequest(order_id="o-1", lines=lines(tea=2))
    await stocked.Reserve(request, metadata=call("k-1"))
    for _ in range(2):
        await stocked.Release(pb.ReleaseRequest(order_id="o-1"), metadata=call("k-1", "compensation", "ok"))
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await stocked.Reserve(request, metadata=call("k-1"))
    assert refusal_of(error.value) == ("ABORTED", "STEP_FENCED")
    assert await stock(stocked) == (5, 0, 0)


async def test_a_compensation_without_its_action_does_nothing_and_stops_a_late_action(stocked, call):
    await stocked.Release(pb.ReleaseRequest(order_id="o-1"), metadata=call("k-1", "compensation", "unknown"))
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await stocked.Reserve(pb.ReserveRequest(order_id="o-1", lines=lines(tea=2)), metadata=call("k-1"))
    assert refusal_of(error.value) == ("ABORTED", "STEP_FENCED")
    assert await stock(stocked) == (5, 0, 0)


async def test_a_voided_reservation_never_happens(stocked, call):
    request = pb.ReserveRequest(order_id="o-1", lines=lines(tea=2))
    await stocked.Reserve(request, metadata=call("k-1", "void"))
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await stocked.Reserve(request, metadata=call("k-1"))
    assert refusal_of(error.value) == ("ABORTED", "STEP_FENCED")
    assert await stock(stocked) == (5, 0, 0)


async def test_a_refused_reservation_leaves_nothing_and_can_be_repeated(stocked, call):
    request = pb.ReserveRequest(order_id="o-1", lines=lines(cup=2, tea=1))
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await stocked.Reserve(request, metadata=call("k-1"))
    assert refusal_of(error.value) == ("FAILED_PRECONDITION", "OUT_OF_STOCK")
    assert await stock(stocked) == (5, 0, 0)
    await stocked.Receive(pb.ReceiveRequest(delivery_id="d-2", lines=lines(cup=1)))
    await stocked.Reserve(request, metadata=call("k-1"))
    assert await stock(stocked, "cup") == (0, 2, 0)


async def test_an_order_goes_without_a_saga_too(stocked):
    await stocked.Reserve(pb.ReserveRequest(order_id="o-1", lines=lines(tea=2)))
    for _ in range(2):
        await stocked.Dispatch(pb.DispatchRequest(order_id="o-1"))
    assert await stock(stocked) == (3, 0, 2)


@pytest.mark.parametrize(
    ("method", "request_", "expected"),
    [
        ("Reserve", pb.ReserveRequest(lines=lines(tea=1)), ("INVALID_ARGUMENT", "IDENTIFIER_INVALID")),
        ("Reserve", pb.ReserveRequest(order_id="o-1"), ("INVALID_ARGUMENT", "LINES_INVALID")),
        ("Reserve", pb.ReserveRequest(order_id="o-1", lines=lines(gold=1)), ("NOT_FOUND", "SKU_UNKNOWN")),
        ("Release", pb.ReleaseRequest(order_id="o-1"), ("FAILED_PRECONDITION", "NOT_RESERVED")),
        ("Dispatch", pb.DispatchRequest(order_id="o-1"), ("FAILED_PRECONDITION", "NOT_RESERVED")),
        ("Receive", pb.ReceiveRequest(delivery_id="d-1", lines=lines(tea=1)), ("ALREADY_EXISTS", "DELIVERY_REUSED")),
        ("Receive", pb.ReceiveRequest(delivery_id="d-9", lines=lines(tea=0)), ("INVALID_ARGUMENT", "LINES_INVALID")),
        ("GetStock", pb.GetStockRequest(sku="gold"), ("NOT_FOUND", "SKU_UNKNOWN")),
        ("GetStock", pb.GetStockRequest(), ("INVALID_ARGUMENT", "IDENTIFIER_INVALID")),
    ],
)
async def test_a_wrong_request_is_refused_with_a_reason(stocked, method, request_, expected):
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await getattr(stocked, method)(request_)
    assert refusal_of(error.value) == expected
