"""The rules that only a real Postgres can keep."""

import asyncio
from functools import partial

import asyncpg
import pytest
from amends_events import Outbox
from amends_testkit.service import one_behind_the_other
from shop_shipping import store
from shop_shipping.domain import Address, AlreadyBooked, Line, NoSlot, NotServed, ParcelGone, ShipmentUnknown, Slots
from shop_shipping.events import PUBLISHES

from shop.shipping.events.v1.shipping_pb2 import ParcelBooked

OUTBOX = Outbox("/shop/shipping", PUBLISHES)
HOME = Address("Ada Lovelace", "Gartenstr. 1", "Berlin", "10115", "DE")
LINES = (Line("tea", 2), Line("cup", 1))


async def set_slots(database, carrier, available):
    async with database.transaction() as transaction:
        await store.set_slots(transaction, Slots(carrier, "DE", available, 0))


async def slots(database):
    async with database.transaction() as transaction:
        return await store.all_slots(transaction)


async def book(database, order_id):
    async with database.transaction() as transaction:
        return await store.book(transaction, OUTBOX, order_id, HOME, LINES)


async def test_a_parcel_takes_a_slot_and_is_on_its_way(database):
    await set_slots(database, "postal", 2)
    tracking_id, carrier = await book(database, "o-1")
    async with database.transaction() as transaction:
        shipment = await store.shipment_of(transaction, "o-1")
    assert (shipment.tracking_id, shipment.carrier, shipment.address) == (tracking_id, carrier, HOME)
    assert await slots(database) == [Slots("postal", "DE", available=1, booked=1)]
    rows = await database.pool.fetch("SELECT sku, quantity FROM shipment_line ORDER BY position")
    assert [Line(**row) for row in rows] == list(LINES)


async def test_a_country_without_carriers_is_not_served(database):
    with pytest.raises(NotServed):
        await book(database, "o-1")


async def test_setting_slots_again_keeps_what_is_booked(database):
    await set_slots(database, "postal", 2)
    await book(database, "o-1")
    await set_slots(database, "postal", 7)
    assert await slots(database) == [Slots("postal", "DE", available=7, booked=1)]


async def test_an_order_is_shipped_once_even_by_two_at_once(database):
    await set_slots(database, "postal", 5)
    results = await asyncio.gather(*(book(database, "o-1") for _ in range(3)), return_exceptions=True)
    assert sum(isinstance(result, AlreadyBooked) for result in results) == 2
    assert await slots(database) == [Slots("postal", "DE", available=4, booked=1)]


async def test_a_booking_behind_the_last_one_finds_the_carrier_full(database):
    await set_slots(database, "postal", 1)
    booking = partial(store.book, outbox=OUTBOX, address=HOME, lines=LINES)
    first, second = (partial(booking, order_id=name) for name in ("o-1", "o-2"))
    with pytest.raises(NoSlot):
        await one_behind_the_other(database, first, second)
    assert await slots(database) == [Slots("postal", "DE", available=0, booked=1)]


async def test_many_bookings_at_once_fill_every_carrier_and_not_one_parcel_more(database):
    for carrier, available in (("courier", 5), ("postal", 9), ("rail", 0)):
        await set_slots(database, carrier, available)
    results = await asyncio.gather(*(book(database, f"o-{number}") for number in range(20)), return_exceptions=True)
    assert sum(isinstance(result, tuple) for result in results) == 14
    assert sum(isinstance(result, NoSlot) for result in results) == 6
    assert [each.available for each in await slots(database)] == [0, 0, 0]


async def test_the_database_itself_refuses_a_slot_that_is_not_there(database):
    await set_slots(database, "postal", 0)
    with pytest.raises(asyncpg.CheckViolationError):
        await database.pool.execute("UPDATE slots SET available = available - 1")


async def test_an_order_that_was_never_shipped_has_no_parcel(database):
    with pytest.raises(ShipmentUnknown):
        async with database.transaction() as transaction:
            await store.shipment_of(transaction, "o-1")


async def test_a_booked_parcel_has_its_event(database):
    await set_slots(database, "postal", 1)
    tracking_id, carrier = await book(database, "o-1")
    row = await database.pool.fetchrow("SELECT key, version, payload FROM outbox")
    booked = ParcelBooked.FromString(row["payload"])
    assert (row["key"], row["version"]) == ("o-1", 1)
    assert (booked.tracking_id, booked.carrier, booked.country) == (tracking_id, carrier, HOME.country)


async def booked(database, order_id):
    async with database.transaction() as transaction:
        await store.set_slots(transaction, Slots("postal", "DE", 5, 0))
        return await store.book(transaction, OUTBOX, order_id, HOME, LINES)


async def test_a_parcel_that_is_called_off_gives_its_slot_back_once(database):
    await booked(database, "o-1")
    for _ in range(2):
        async with database.transaction() as transaction:
            await store.cancel(transaction, OUTBOX, "o-1")
    assert await database.pool.fetchrow("SELECT available, booked FROM slots") == (5, 0)
    assert await database.pool.fetchval("SELECT count(*) FROM outbox WHERE type LIKE '%ParcelCancelled'") == 1
    with pytest.raises(ShipmentUnknown):
        async with database.transaction() as transaction:
            await store.shipment_of(transaction, "o-1")


async def test_a_parcel_is_handed_over_once_and_cannot_be_called_off_then(database):
    await booked(database, "o-1")
    for _ in range(2):
        async with database.transaction() as transaction:
            await store.hand_over(transaction, OUTBOX, "o-1")
    assert await database.pool.fetchval("SELECT count(*) FROM outbox WHERE type LIKE '%ParcelHandedOver'") == 1
    with pytest.raises(ParcelGone):
        async with database.transaction() as transaction:
            await store.cancel(transaction, OUTBOX, "o-1")


async def test_an_order_without_a_parcel_has_none_to_hand_over_or_call_off(database):
    async with database.transaction() as transaction:
        await store.hand_over(transaction, OUTBOX, "o-1")
    with pytest.raises(ShipmentUnknown):
        async with database.transaction() as transaction:
            await store.cancel(transaction, OUTBOX, "o-1")
