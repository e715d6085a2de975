"""The rules that only a real Postgres can keep."""

import asyncio
import random
from functools import partial

import asyncpg
import pytest
from amends_events import Outbox
from amends_testkit.service import one_behind_the_other
from shop_inventory import store
from shop_inventory.domain import (
    AlreadyReserved,
    DeliveryReused,
    Line,
    NotReserved,
    OutOfStock,
    SkuUnknown,
    Stock,
)
from shop_inventory.events import PUBLISHES

from shop.inventory.events.v1.inventory_pb2 import StockChanged, StockReleased, StockReserved

OUTBOX = Outbox("/shop/inventory", PUBLISHES)


async def receive(database, delivery_id, *lines):
    async with database.transaction() as transaction:
        await store.receive(transaction, OUTBOX, delivery_id, lines)


async def reserve(database, order_id, *lines):
    async with database.transaction() as transaction:
        return await store.reserve(transaction, OUTBOX, order_id, lines)


async def release(database, order_id):
    async with database.transaction() as transaction:
        await store.release(transaction, OUTBOX, order_id)


async def dispatch(database, order_id):
    async with database.transaction() as transaction:
        await store.dispatch(transaction, OUTBOX, order_id)


async def stock(database, sku):
    async with database.transaction() as transaction:
        return await store.stock_of(transaction, sku)


async def test_a_delivery_is_added_once(database):
    await receive(database, "d-1", Line("tea", 5))
    await receive(database, "d-1", Line("tea", 5))
    assert await stock(database, "tea") == Stock("tea", received=5, available=5)


async def test_a_delivery_with_other_lines_is_refused(database):
    await receive(database, "d-1", Line("tea", 5))
    with pytest.raises(DeliveryReused):
        await receive(database, "d-1", Line("tea", 6))


async def test_a_reservation_keeps_all_lines_or_none(database):
    await receive(database, "d-1", Line("cup", 1), Line("tea", 5))
    with pytest.raises(OutOfStock):
        await reserve(database, "o-1", Line("cup", 2), Line("tea", 1))
    assert await stock(database, "tea") == Stock("tea", received=5, available=5)
    assert await reserve(database, "o-1", Line("cup", 1), Line("tea", 1))
    assert await stock(database, "cup") == Stock("cup", received=1, reserved=1)


async def test_an_article_that_was_never_received_is_unknown(database):
    with pytest.raises(SkuUnknown):
        await reserve(database, "o-1", Line("gold", 1))
    with pytest.raises(SkuUnknown):
        await stock(database, "gold")


async def test_an_order_is_reserved_once(database):
    await receive(database, "d-1", Line("tea", 5))
    await reserve(database, "o-1", Line("tea", 1))
    with pytest.raises(AlreadyReserved):
        await reserve(database, "o-1", Line("tea", 1))
    assert (await stock(database, "tea")).reserved == 1


async def test_a_reservation_is_released_once(database):
    await receive(database, "d-1", Line("tea", 5))
    await reserve(database, "o-1", Line("tea", 2))
    await release(database, "o-1")
    await release(database, "o-1")
    assert await stock(database, "tea") == Stock("tea", received=5, available=5)
    with pytest.raises(NotReserved):
        await dispatch(database, "o-1")


async def test_a_reservation_is_dispatched_once(database):
    await receive(database, "d-1", Line("tea", 5))
    await reserve(database, "o-1", Line("tea", 2))
    await dispatch(database, "o-1")
    await dispatch(database, "o-1")
    assert await stock(database, "tea") == Stock("tea", received=5, available=3, sold=2)
    with pytest.raises(NotReserved):
        await release(database, "o-1")


@pytest.mark.parametrize("end", [release, dispatch])
async def test_an_order_without_a_reservation_has_nothing_to_give(database, end):
    with pytest.raises(NotReserved):
        await end(database, "o-1")


async def test_the_database_itself_refuses_to_lose_stock(database):
    await receive(database, "d-1", Line("tea", 5))
    with pytest.raises(asyncpg.CheckViolationError, match="nothing_is_lost"):
        await database.pool.execute("UPDATE stock SET sold = sold + 1")


async def test_every_movement_is_logged(database):
    await receive(database, "d-1", Line("tea", 5))
    await reserve(database, "o-1", Line("tea", 2))
    await dispatch(database, "o-1")
    rows = await database.pool.fetch("SELECT kind, reference, quantity FROM movement ORDER BY at")
    assert [tuple(row) for row in rows] == [("receive", "d-1", 5), ("reserve", "o-1", 2), ("dispatch", "o-1", 2)]


async def test_many_orders_for_the_same_articles_at_once_neither_deadlock_nor_oversell(database):
    skus = [f"sku-{number}" for number in range(6)]
    await receive(database, "d-1", *(Line(sku, 30) for sku in skus))
    chance = random.Random(7)

    async def order(number):
        wanted = sorted(chance.sample(skus, 3))
        try:
            await reserve(database, f"o-{number}", *(Line(sku, 1) for sku in wanted))
        except OutOfStock:
            return
        await (release if number % 3 == 0 else dispatch)(database, f"o-{number}")

    await asyncio.gather(*(order(number) for number in range(120)))
    total = await database.pool.fetchrow("SELECT sum(received), sum(reserved), sum(available + sold) FROM stock")
    assert tuple(total) == (180, 0, 180)


@pytest.mark.parametrize(
    ("first", "second", "left"),
    [
        (store.release, store.dispatch, Stock("tea", received=5, available=2, reserved=3)),
        (store.dispatch, store.release, Stock("tea", received=5, reserved=3, sold=2)),
        (store.release, store.release, Stock("tea", received=5, available=2, reserved=3)),
        (store.dispatch, store.dispatch, Stock("tea", received=5, reserved=3, sold=2)),
    ],
)
async def test_of_two_ends_of_a_reservation_at_once_the_first_wins_and_pieces_move_once(database, first, second, left):
    """Beside another order's reservation, which would hide a piece that moves twice from the database's own checks."""
    await receive(database, "d-1", Line("tea", 5))
    await reserve(database, "o-1", Line("tea", 2))
    await reserve(database, "o-2", Line("tea", 3))

    both = one_behind_the_other(database, *(partial(end, outbox=OUTBOX, order_id="o-1") for end in (first, second)))
    if second is first:
        await both
    else:
        with pytest.raises(NotReserved):
            await both
    assert await stock(database, "tea") == left


async def test_each_change_has_its_events_with_the_version_of_what_it_changed(database):
    await receive(database, "d-1", Line("tea", 5), Line("cup", 3))
    reservation_id = await reserve(database, "o-1", Line("cup", 1), Line("tea", 2))
    await release(database, "o-1")
    rows = await database.pool.fetch("SELECT type, key, version, payload FROM outbox ORDER BY seq")
    reserved, released = (row for row in rows if row["key"] == "o-1")
    assert StockReserved.FromString(reserved["payload"]).reservation_id == reservation_id
    assert [line.quantity for line in StockReleased.FromString(released["payload"]).lines] == [1, 2]
    assert (reserved["version"], released["version"]) == (1, 2)
    tea = [(row["version"], StockChanged.FromString(row["payload"])) for row in rows if row["key"] == "tea"]
    assert [(version, one.available, one.reserved) for version, one in tea] == [(1, 5, 0), (2, 3, 2), (3, 5, 0)]
