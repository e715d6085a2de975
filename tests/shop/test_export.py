"""What a service exports is what its outbox was given: the same events, versions, times and bytes."""

from typing import Any

import pytest
import shop_catalog.events
import shop_inventory.events
import shop_orders.events
import shop_payments.events
import shop_shipping.events
from amends_chassis.errors import InvalidArgument
from amends_chassis.export import ExportService
from amends_events import Outbox
from amends_testkit.service import migrated
from shop_catalog import export as catalog_export
from shop_catalog import store as catalog
from shop_catalog.domain import Description
from shop_catalog.domain import Money as Price
from shop_inventory import export as inventory_export
from shop_inventory import store as inventory
from shop_inventory.domain import Line as Piece
from shop_orders import domain as orders_domain
from shop_orders import export as orders_export
from shop_orders import store as orders
from shop_orders.domain import Address, Line, Money
from shop_payments import export as payments_export
from shop_payments import store as payments
from shop_payments.cards import card
from shop_payments.domain import Money as Amount
from shop_shipping import export as shipping_export
from shop_shipping import store as shipping
from shop_shipping.domain import Address as Destination
from shop_shipping.domain import Line as Packed
from shop_shipping.domain import Slots

from amends.events.v1 import export_pb2 as pb

HOME = ("Ada Lovelace", "Gartenstr. 1", "Berlin", "10115", "DE")
WISH = orders_domain.content("c-1", [Line("tea", 2), Line("cup", 1)], "tok_visa", Address(*HOME))
PRICES = {"tea": Money("EUR", 450), "cup": Money("EUR", 900)}


async def order(do, outbox):
    async def placed(order_id):
        await do(orders.add, outbox, order_id, WISH, Money("EUR", 1800), PRICES)

    for order_id in ("a-pending", "b-confirmed", "c-dispatched", "d-rejected", "e-refunded"):
        await placed(order_id)
    for order_id in ("b-confirmed", "c-dispatched"):
        await do(orders.confirm, outbox, order_id, f"trk_{order_id}", f"pay_{order_id}")
    await do(orders.dispatched, outbox, "c-dispatched")
    await do(orders.reject, outbox, "d-rejected", "no carrier has a slot left", "NO_SLOT")
    await do(orders.refund, outbox, "e-refunded", "look after the parcel")


async def keep(do, outbox):
    pieces = (Piece("cup", 1), Piece("tea", 2))
    await do(inventory.receive, outbox, "d-1", (Piece("cup", 10), Piece("tea", 20)))
    for order_id in ("a-held", "b-released", "c-dispatched"):
        await do(inventory.reserve, outbox, order_id, pieces)
    await do(inventory.release, outbox, "b-released")
    await do(inventory.dispatch, outbox, "c-dispatched")
    for _ in range(2):
        await do(inventory.refuse, outbox, "d-short", "OUT_OF_STOCK", "there are 3 of tea")


async def charge(do, outbox):
    for order_id in ("a-charged", "b-refunded"):
        await do(payments.charge, outbox, order_id, Amount("EUR", 1800), card("tok_visa"))
    await do(payments.refund, outbox, "b-refunded")
    for _ in range(2):
        await do(payments.refuse, outbox, "c-declined", "CARD_DECLINED", "the card was declined")


async def ship(do, outbox):
    await do(shipping.set_slots, Slots("postal", "DE", 10, 0))
    for order_id in ("a-booked", "b-cancelled", "c-handed-over"):
        await do(shipping.book, outbox, order_id, Destination(*HOME), (Packed("tea", 2),))
    await do(shipping.cancel, outbox, "b-cancelled")
    await do(shipping.hand_over, outbox, "c-handed-over")
    for _ in range(2):
        await do(shipping.refuse, outbox, "d-refused", "NO_SLOT", "no carrier has a slot left")


async def describe(do, outbox):
    assam = Description("Assam", "Malty.", "tea")
    for sku in ("a-described", "b-priced", "c-priced-and-described", "d-withdrawn", "e-sold-again"):
        await do(catalog.put, outbox, sku, assam)
    for sku in ("b-priced", "c-priced-and-described", "d-withdrawn", "e-sold-again"):
        for minor in (450, 475):
            await do(catalog.set_price, outbox, sku, Price("EUR", minor))
    await do(catalog.put, outbox, "c-priced-and-described", Description("Assam Bari", "Malty.", "tea"))
    for sku in ("d-withdrawn", "e-sold-again"):
        await do(catalog.withdraw, outbox, sku)
    await do(catalog.put, outbox, "e-sold-again", assam)


SERVICES = {
    "catalog": (describe, shop_catalog.events.PUBLISHES, catalog_export.EXPORTED),
    "orders": (order, shop_orders.events.PUBLISHES, orders_export.EXPORTED),
    "inventory": (keep, shop_inventory.events.PUBLISHES, inventory_export.EXPORTED),
    "payments": (charge, shop_payments.events.PUBLISHES, payments_export.EXPORTED),
    "shipping": (ship, shop_shipping.events.PUBLISHES, shipping_export.EXPORTED),
}
WRITTEN = """
SELECT type, key, version, occurred_at, payload FROM outbox AS o WHERE NOT EXISTS (
    SELECT FROM outbox AS later WHERE (later.topic, later.key) = (o.topic, o.key) AND later.version > o.version
    AND (later.type = ANY ($1) AND o.type = ANY ($1) OR later.type = ANY ($2) AND o.type = ANY ($2)))
ORDER BY key, version
"""
LATEST = (
    ["shop.catalog.events.v1.ArticlePriced", "shop.inventory.events.v1.StockChanged"],
    ["shop.catalog.events.v1.ArticleChanged", "shop.catalog.events.v1.ArticleWithdrawn"],
)
"""Events that have the whole state: the last one of each key, and of these two the last one of both, is exported."""


@pytest.mark.parametrize("service", SERVICES)
async def test_an_export_tells_what_the_outbox_was_told(database_url, service):
    history, publishes, exported = SERVICES[service]
    outbox = Outbox(f"/shop/{service}", publishes)
    async with migrated(database_url, f"shop_{service}.migrations") as database:

        async def do(change, *arguments):
            async with database.transaction() as transaction:
                await change(transaction, *arguments)

        await history(do, outbox)
        exports: Any = ExportService(database, exported)
        told: list[pb.ExportedEvent] = []
        token = ""
        while True:
            page = await exports.Export(pb.ExportRequest(page_size=2, page_token=token), None)
            told += page.events
            token = page.next_page_token
            if not token:
                break
        written = await database.pool.fetch(WRITTEN, *LATEST)
        types = {f"{one.DESCRIPTOR.full_name}" for one in publishes}
        for key in {one["key"] for one in written}:
            one = await exports.Export(pb.ExportRequest(key=key), None)
            assert list(one.events) == [event for event in told if event.key == key]
        assert not (await exports.Export(pb.ExportRequest(key="nobody"), None)).events
        for token in ("?", "WzldCg==", "WzksICIiXQ=="):
            with pytest.raises(InvalidArgument):
                await exports.Export(pb.ExportRequest(page_token=token), None)
    found = [(one.type, one.key, one.version, one.occurred_at.ToJsonString(), one.payload) for one in told]
    wanted = [
        (row["type"], row["key"], row["version"], pb_time(row["occurred_at"]), bytes(row["payload"])) for row in written
    ]
    assert sorted(found) == sorted(wanted)
    assert {one.type for one in told} == types


def pb_time(moment):
    from google.protobuf.timestamp_pb2 import Timestamp

    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp.ToJsonString()
