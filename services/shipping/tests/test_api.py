"""The service as its callers see it: over gRPC, with the real barrier and a real database."""

import asyncio

import grpc
import pytest
from amends_testkit.service import refusal_of, refusals_of
from shop_shipping import api, domain, store

from shop.shipping.v1 import shipping_pb2 as pb
from shop.types.v1.types_pb2 import Address, Line


def book(order_id="o-1", postal_code="10115", country="DE", quantity=1):
    address = Address(
        recipient="Ada Lovelace", street="Gartenstr. 1", city="Berlin", postal_code=postal_code, country=country
    )
    return pb.BookRequest(order_id=order_id, address=address, lines=[Line(sku="tea", quantity=quantity)])


async def slots(service):
    return [
        (each.carrier, each.available, each.booked) for each in (await service.ListSlots(pb.ListSlotsRequest())).slots
    ]


@pytest.fixture
async def served(service):
    await service.SetSlots(pb.SetSlotsRequest(carrier="postal", country="DE", available=5))
    return service


def test_every_refusal_of_the_domain_has_an_answer():
    assert set(api.ERRORS) == refusals_of(domain)


async def test_a_repeated_booking_is_answered_from_memory(served, call):
    first = await served.Book(book(), metadata=call("k-1"))
    assert await served.Book(book(), metadata=call("k-1")) == first
    shipment = await served.GetShipment(pb.GetShipmentRequest(order_id="o-1"))
    assert (
        (shipment.tracking_id, shipment.carrier)
        == (first.tracking_id, first.carrier)
        == (shipment.tracking_id, "postal")
    )
    assert shipment.address == book().address
    assert shipment.booked_at.seconds > 0
    assert await slots(served) == [("postal", 4, 1)]


async def test_a_booking_in_doubt_is_made_or_voided_for_ever(served, call):
    made = await served.Book(book("o-1"), metadata=call("k-1"))
    assert await served.Book(book("o-1"), metadata=call("k-1", "void")) == made
    await served.Book(book("o-2"), metadata=call("k-2", "void"))
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await served.Book(book("o-2"), metadata=call("k-2"))
    assert refusal_of(error.value) == ("ABORTED", "STEP_FENCED")
    assert await slots(served) == [("postal", 4, 1)]


async def test_the_same_booking_from_many_callers_at_once_takes_one_slot(served, call):
    answers = await asyncio.gather(*(served.Book(book(), metadata=call("k-1")) for _ in range(12)))
    assert len({answer.tracking_id for answer in answers}) == 1
    assert await slots(served) == [("postal", 4, 1)]


async def test_the_last_slot_goes_to_one_order(served, call):
    await served.SetSlots(pb.SetSlotsRequest(carrier="postal", country="DE", available=1))
    calls = [served.Book(book(f"o-{number}"), metadata=call(f"k-{number}")) for number in range(4)]
    codes = [await each.code() for each in calls]
    assert sorted(code.name for code in codes) == ["FAILED_PRECONDITION"] * 3 + ["OK"]


async def test_a_refused_booking_can_be_repeated_when_there_is_room(served, call):
    await served.SetSlots(pb.SetSlotsRequest(carrier="postal", country="DE", available=0))
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await served.Book(book(), metadata=call("k-1"))
    assert refusal_of(error.value) == ("FAILED_PRECONDITION", "NO_SLOT")
    await served.SetSlots(pb.SetSlotsRequest(carrier="postal", country="DE", available=1))
    assert (await served.Book(book(), metadata=call("k-1"))).tracking_id


async def test_an_order_that_was_shipped_is_not_shipped_under_another_key(served, call):
    await served.Book(book(), metadata=call("k-1"))
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await served.Book(book(), metadata=call("k-2"))
    assert refusal_of(error.value) == ("ALREADY_EXISTS", "ALREADY_BOOKED")
    assert await slots(served) == [("postal", 4, 1)]


@pytest.mark.parametrize(
    ("method", "request_", "expected"),
    [
        ("Book", book(postal_code="1"), ("INVALID_ARGUMENT", "ADDRESS_INVALID")),
        ("Book", book(country=""), ("INVALID_ARGUMENT", "ADDRESS_INVALID")),
        ("Book", book(country="AQ"), ("FAILED_PRECONDITION", "NOT_SERVED")),
        ("Book", book(quantity=0), ("INVALID_ARGUMENT", "LINES_INVALID")),
        ("Book", book(order_id=""), ("INVALID_ARGUMENT", "IDENTIFIER_INVALID")),
        ("GetShipment", pb.GetShipmentRequest(order_id="o-1"), ("NOT_FOUND", "SHIPMENT_UNKNOWN")),
        ("SetSlots", pb.SetSlotsRequest(country="DE"), ("INVALID_ARGUMENT", "IDENTIFIER_INVALID")),
        (
            "SetSlots",
            pb.SetSlotsRequest(carrier="postal", country="DE", available=-1),
            ("INVALID_ARGUMENT", "SLOTS_INVALID"),
        ),
    ],
)
async def test_a_wrong_request_is_refused_with_a_reason_and_takes_no_slot(served, method, request_, expected):
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await getattr(served, method)(request_)
    assert refusal_of(error.value) == expected
    assert await slots(served) == [("postal", 5, 0)]


def announce(order_id="o-1", *, street="S", quantity=1, seconds=None):
    address = Address(recipient="R", street=street, city="C", postal_code="nonsense", country="DE")
    lines = [Line(sku="tea", quantity=quantity)]
    request = pb.AnnounceParcelRequest(order_id=order_id, address=address, lines=lines)
    if seconds is not None:
        request.keep_for.seconds = seconds
    return request


@pytest.mark.parametrize(("seconds", "kept"), [(None, 3600), (30, 30), (2**62, 3600), (-5, 0)])
async def test_an_announced_parcel_is_remembered_for_an_hour_at_most(service, database, seconds, kept):
    await service.AnnounceParcel(announce(seconds=seconds))
    left = await database.pool.fetchval("SELECT expires_at - now() FROM announced_parcel")
    assert kept - 10 < left.total_seconds() <= kept


async def test_another_parcel_for_the_order_is_refused_and_the_same_again_is_not(service):
    await service.AnnounceParcel(announce())
    await service.AnnounceParcel(announce())
    for other in (announce(street="T"), announce(quantity=2)):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await service.AnnounceParcel(other)
        assert refusal_of(error.value) == ("ALREADY_EXISTS", "PARCEL_REUSED")


async def test_what_cannot_be_written_on_a_parcel_is_not_announced(service):
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await service.AnnounceParcel(announce(street=" "))
    assert refusal_of(error.value) == ("INVALID_ARGUMENT", "ADDRESS_INVALID")


async def test_announced_parcels_are_forgotten_when_their_time_is_over(service, database):
    await service.AnnounceParcel(announce("o-old", seconds=0))
    await service.AnnounceParcel(announce("o-new"))
    async with database.transaction() as transaction:
        await store.forget_expired_parcels(transaction)
    assert [row["order_id"] for row in await database.pool.fetch("SELECT order_id FROM announced_parcel")] == ["o-new"]
