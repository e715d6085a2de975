"""shop.shipping.v1.ShippingService: parses requests, opens transactions, answers.

Assembled by `__main__.py`. Book is guarded: the barrier has opened its transaction and commits it.
"""

import asyncio
from collections.abc import Iterable, Mapping
from datetime import timedelta

from amends_barrier import before, connection
from amends_chassis.database import Database
from amends_chassis.domain import IdentifierInvalidError, RefusedError, identifier
from amends_chassis.errors import AlreadyExists, DomainError, FailedPrecondition, InvalidArgument, NotFound, answers
from amends_chassis.timestamps import timestamp
from amends_chassis.types import Context
from amends_events import Outbox

from shop.shipping.v1 import shipping_pb2 as pb
from shop.shipping.v1 import shipping_pb2_grpc
from shop.types.v1 import types_pb2
from shop_shipping import domain, store
from shop_shipping.domain import Address, Line

ERRORS: Mapping[type[RefusedError], type[DomainError]] = {
    IdentifierInvalidError: InvalidArgument,
    domain.LinesInvalid: InvalidArgument,
    domain.AddressInvalid: InvalidArgument,
    domain.SlotsInvalid: InvalidArgument,
    domain.NotServed: FailedPrecondition,
    domain.NoSlot: FailedPrecondition,
    domain.AlreadyBooked: AlreadyExists,
    domain.ParcelReused: AlreadyExists,
    domain.ParcelGone: FailedPrecondition,
    domain.ShipmentUnknown: NotFound,
}


class ShippingService(shipping_pb2_grpc.ShippingServiceServicer):
    """Books parcels with carriers."""

    def __init__(self, database: Database, outbox: Outbox, handling_time: timedelta) -> None:
        self._database = database
        self._outbox = outbox
        self._handling_time = handling_time

    async def _pack(self, request: pb.BookRequest) -> None:
        with answers(ERRORS):
            _wanted(request)
        await asyncio.sleep(self._handling_time.total_seconds())

    @before(_pack)
    async def Book(self, request: pb.BookRequest, context: Context) -> pb.BookResponse:
        """Book a parcel, which is packed; it cannot be called back."""
        with answers(ERRORS):
            order_id, address, lines = _wanted(request)
            tracking_id, carrier = await store.book(connection(), self._outbox, order_id, address, lines)
            return pb.BookResponse(tracking_id=tracking_id, carrier=carrier)

    async def AnnounceParcel(self, request: pb.AnnounceParcelRequest, context: Context) -> pb.AnnounceParcelResponse:
        """Note which parcel an order that is about to be placed will need."""
        with answers(ERRORS):
            order_id = identifier(request.order_id, "order_id")
            address, lines = domain.writable(_address(request.address)), _lines(request.lines)
            keep_for = _keep_for(request)
            async with self._database.transaction() as transaction:
                await store.announce_parcel(transaction, order_id, address, lines, keep_for)
            return pb.AnnounceParcelResponse()

    async def GetShipment(self, request: pb.GetShipmentRequest, context: Context) -> pb.GetShipmentResponse:
        """Read the parcel of an order."""
        with answers(ERRORS):
            order_id = identifier(request.order_id, "order_id")
            async with self._database.transaction() as transaction:
                shipment = await store.shipment_of(transaction, order_id)
        address = shipment.address
        return pb.GetShipmentResponse(
            tracking_id=shipment.tracking_id,
            order_id=shipment.order_id,
            carrier=shipment.carrier,
            address=types_pb2.Address(
                recipient=address.recipient,
                street=address.street,
                city=address.city,
                postal_code=address.postal_code,
                country=address.country,
            ),
            booked_at=timestamp(shipment.booked_at),
        )

    async def SetSlots(self, request: pb.SetSlotsRequest, context: Context) -> pb.SetSlotsResponse:
        """Set how many parcels a carrier takes to a country."""
        with answers(ERRORS):
            capacity = domain.slots(request.carrier, request.country, request.available)
            async with self._database.transaction() as transaction:
                await store.set_slots(transaction, capacity)
            return pb.SetSlotsResponse()

    async def ListSlots(self, request: pb.ListSlotsRequest, context: Context) -> pb.ListSlotsResponse:
        """Read the slots that are left."""
        async with self._database.transaction() as transaction:
            capacity = await store.all_slots(transaction)
        return pb.ListSlotsResponse(
            slots=[
                pb.Slots(carrier=each.carrier, country=each.country, available=each.available, booked=each.booked)
                for each in capacity
            ]
        )


def _wanted(request: pb.BookRequest) -> tuple[str, Address, tuple[Line, ...]]:
    lines = _lines(request.lines)
    return identifier(request.order_id, "order_id"), domain.deliverable(_address(request.address)), lines


def _lines(lines: Iterable[types_pb2.Line]) -> tuple[Line, ...]:
    return domain.contents(Line(line.sku, line.quantity) for line in lines)


def _address(address: types_pb2.Address) -> Address:
    return Address(address.recipient, address.street, address.city, address.postal_code, address.country)


def _keep_for(request: pb.AnnounceParcelRequest) -> timedelta:
    """Return how long to keep it: what is asked for, up to the most that is allowed."""
    if not request.HasField("keep_for"):
        return domain.MAX_KEPT
    asked = request.keep_for.seconds + request.keep_for.nanos / 1e9
    return timedelta(seconds=min(max(asked, 0), domain.MAX_KEPT.total_seconds()))
