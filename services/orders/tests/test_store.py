"""The rules that only a real Postgres can keep."""

import asyncio
from datetime import timedelta
from functools import partial
from importlib.resources import files

import asyncpg
import pytest
from amends_events import Outbox
from amends_testkit.service import one_behind_the_other
from shop_orders import articles, domain, store
from shop_orders.domain import Address, Line, Money, OrderClosed, OrderState, OrderUnknown
from shop_orders.events import PUBLISHES

from shop.orders.events.v1.orders_pb2 import OrderPlaced

OUTBOX = Outbox("/shop/orders", PUBLISHES)
HOME = Address("Ada Lovelace", "Gartenstr. 1", "Berlin", "10115", "DE")
WISH = domain.content("c-1", [Line("tea", 2)], "tok_visa", HOME)
PRICES = {"tea": Money("EUR", 450)}
LONG, LONGER = timedelta(minutes=1), timedelta(minutes=5)


async def add(database, order_id):
    async with database.transaction() as transaction:
        return await store.add(transaction, OUTBOX, order_id, WISH, Money("EUR", 900), PRICES)


async def do(database, change, *arguments):
    async with database.transaction() as transaction:
        return await change(transaction, *arguments)


async def make_due(database):
    await database.pool.execute("UPDATE orders SET follow_up_at = now() - interval '1 second'")


async def claim(database, limit=10):
    return [order.order_id for order in await do(database, store.claim_due, limit, LONG, LONGER)]


async def test_an_order_is_added_once_even_by_two_at_once(database):
    assert sorted(await asyncio.gather(*(add(database, "o-1") for _ in range(3)))) == [False, False, True]
    order = await do(database, store.order_of, "o-1")
    assert (order.state, order.lines, order.total) == (OrderState.PENDING, WISH.lines, Money("EUR", 900))
    assert order.placed_at.tzinfo is not None


async def test_the_price_of_an_article_is_the_last_one_set(database):
    for minor in (400, 450):
        await do(database, articles.set_price, "tea", Money("EUR", minor), None)
    assert await do(database, articles.prices, ["tea", "cup"]) == PRICES


async def test_a_started_order_has_no_card_token_any_more(database):
    await add(database, "o-1")
    assert (await do(database, store.order_of, "o-1")).card_token == "tok_visa"
    await do(database, store.started, "o-1", "run-1")
    order = await do(database, store.order_of, "o-1")
    assert (order.card_token, order.run_id) == (None, "run-1")
    assert "tok_" not in await database.pool.fetchval("SELECT orders::text FROM orders")


async def test_the_database_itself_refuses_to_keep_a_token_too_long(database):
    await add(database, "o-1")
    with pytest.raises(asyncpg.CheckViolationError, match="token_is_erased"):
        await database.pool.execute("UPDATE orders SET run_id = 'run-1'")


async def test_a_confirmed_order_stays_as_it_was_confirmed(database):
    await add(database, "o-1")
    for _ in range(2):
        await do(database, store.confirm, OUTBOX, "o-1", "trk-1", "pay-1")
    with pytest.raises(OrderClosed):
        await do(database, store.confirm, OUTBOX, "o-1", "trk-2", "pay-1")
    await do(database, store.reject, OUTBOX, "o-1", "too late")
    order = await do(database, store.order_of, "o-1")
    assert (order.state, order.tracking_id, order.payment_id) == (OrderState.CONFIRMED, "trk-1", "pay-1")


async def test_of_a_confirmation_and_a_rejection_at_once_the_first_stands(database):
    for order_id in ("o-1", "o-2"):
        await add(database, order_id)
    confirm = partial(store.confirm, outbox=OUTBOX, tracking_id="trk-1", payment_id="pay-1")
    reject = partial(store.reject, outbox=OUTBOX, reason="too late")
    await one_behind_the_other(database, partial(confirm, order_id="o-1"), partial(reject, order_id="o-1"))
    assert (await do(database, store.order_of, "o-1")).state is OrderState.CONFIRMED
    with pytest.raises(OrderClosed):
        await one_behind_the_other(database, partial(reject, order_id="o-2"), partial(confirm, order_id="o-2"))
    assert (await do(database, store.order_of, "o-2")).state is OrderState.REJECTED


async def test_a_rejected_order_cannot_be_confirmed(database):
    await add(database, "o-1")
    await do(database, store.reject, OUTBOX, "o-1", "the card was declined")
    with pytest.raises(OrderClosed, match="rejected"):
        await do(database, store.confirm, OUTBOX, "o-1", "trk-1", "pay-1")
    order = await do(database, store.order_of, "o-1")
    assert (order.reason, order.card_token) == ("the card was declined", None)


async def test_an_order_that_was_never_placed_is_unknown(database):
    with pytest.raises(OrderUnknown):
        await do(database, store.order_of, "o-1")
    with pytest.raises(OrderUnknown):
        await do(database, store.confirm, OUTBOX, "o-1", "trk-1", "pay-1")


async def test_a_new_order_is_not_followed_up_while_its_saga_is_being_started(database):
    await add(database, "o-1")
    assert await claim(database) == []


async def test_a_due_order_is_claimed_by_one_of_many(database):
    for number in range(6):
        await add(database, f"o-{number}")
    await make_due(database)
    claims = await asyncio.gather(*(claim(database, 3) for _ in range(4)))
    assert sorted(order_id for each in claims for order_id in each) == [f"o-{number}" for number in range(6)]


@pytest.mark.parametrize(
    ("waits_for", "longest"),
    [
        ("its start", [60, 60, 60, 60, 60]),
        ("the end of its saga", [64, 128, 256, 300, 300]),
        ("a person", [64, 128, 256, 300, 300]),
    ],
)
async def test_an_unfinished_order_is_due_less_often_and_least_while_its_saga_or_a_person_is_awaited(
    database, waits_for, longest
):
    await add(database, "o-1")
    if waits_for == "the end of its saga":
        await do(database, store.started, "o-1", "run-1")
    elif waits_for == "a person":
        await do(database, store.needs_attention, "o-1", "somebody has to look")
    pauses = []
    for _ in range(11):
        await make_due(database)
        assert await claim(database) == ["o-1"]
        pauses.append(await database.pool.fetchval("SELECT follow_up_at - now() FROM orders"))
    rounded = [round(pause.total_seconds() + 0.4) for pause in pauses]
    assert rounded == [1, 2, 4, 8, 16, 32, *longest]


async def test_an_order_that_somebody_asks_for_is_due_at_once_and_not_with_every_question(database):
    await add(database, "o-1")
    await do(database, store.started, "o-1", "run-1")
    await database.pool.execute("UPDATE orders SET follow_up_at = now() + interval '5 minutes', follow_up_tries = 9")
    await do(database, store.wake, "o-1")
    assert await claim(database) == ["o-1"]
    await do(database, store.wake, "o-1")
    assert await claim(database) == []


@pytest.mark.parametrize(("tracking_id", "payment_id"), [("", "pay-1"), ("trk-1", ""), ("", ""), (None, "pay-1")])
async def test_the_database_itself_refuses_an_order_that_is_confirmed_without_papers(database, tracking_id, payment_id):
    await add(database, "o-1")
    with pytest.raises(asyncpg.CheckViolationError, match="confirmed_has_papers"):
        await do(database, store.confirm, OUTBOX, "o-1", tracking_id, payment_id)


async def test_an_order_that_was_confirmed_without_papers_is_pending_again_after_the_migration(database):
    for order_id in ("o-1", "o-2"):
        await add(database, order_id)
        await do(database, store.started, order_id, f"run-{order_id}")
        await do(database, store.confirm, OUTBOX, order_id, "trk-1", "pay-1")
        await do(database, store.dispatched, OUTBOX, order_id)
    migration = files("shop_orders.migrations").joinpath("0003_papers.sql").read_text()
    await database.pool.execute(
        "ALTER TABLE orders DROP COLUMN attention, DROP COLUMN refused_since, DROP CONSTRAINT confirmed_has_papers;"
        " ALTER TABLE orders ADD CONSTRAINT confirmed_has_papers CHECK (true);"
        " UPDATE orders SET tracking_id = '' WHERE order_id = 'o-1'"
    )
    await database.pool.execute(migration)
    assert await claim(database) == ["o-1"]
    orders = [await do(database, store.order_of, order_id) for order_id in ("o-1", "o-2")]
    assert [(order.state, order.tracking_id) for order in orders] == [
        (OrderState.PENDING, None),
        (OrderState.CONFIRMED, "trk-1"),
    ]


async def test_a_finished_order_is_never_due_again(database):
    for order_id in ("o-1", "o-2"):
        await add(database, order_id)
    await do(database, store.reject, OUTBOX, "o-1", "the card was declined")
    await do(database, store.confirm, OUTBOX, "o-2", "trk-2", "pay-2")
    assert await claim(database) == ["o-2"]
    await do(database, store.dispatched, OUTBOX, "o-2")
    assert await database.pool.fetchval("SELECT count(follow_up_at) FROM orders") == 0


async def test_a_confirmation_before_the_start_is_noted_is_not_lost(database):
    await add(database, "o-1")
    await do(database, store.confirm, OUTBOX, "o-1", "trk-1", "pay-1")
    await do(database, store.started, "o-1", "run-1")
    order = await do(database, store.order_of, "o-1")
    assert (order.state, order.run_id, order.card_token) == (OrderState.CONFIRMED, "run-1", None)
    assert await claim(database) == ["o-1"]


async def test_pages_come_newest_first_without_gaps_or_repeats(database):
    for number in range(5):
        await add(database, f"o-{number}")
    first = await do(database, store.page, None, None, 3)
    last = first[-1]
    second = await do(database, store.page, "c-1", (last.placed_at, last.order_id), 3)
    assert [order.order_id for order in [*first, *second]] == ["o-4", "o-3", "o-2", "o-1", "o-0"]
    assert await do(database, store.page, "c-2", None, 3) == []


async def test_each_step_of_an_order_has_one_event_however_often_it_is_taken(database):
    for order_id in ("o-1", "o-2", "o-3"):
        await add(database, order_id)
        await add(database, order_id)
    for _ in range(2):
        await do(database, store.confirm, OUTBOX, "o-1", "trk-1", "pay-1")
    for _ in range(2):
        await do(database, store.dispatched, OUTBOX, "o-1")
        await do(database, store.reject, OUTBOX, "o-2", "the card was declined")
        await do(database, store.refund, OUTBOX, "o-3", "call the parcel off")
    rows = await database.pool.fetch("SELECT type, key, version FROM outbox ORDER BY key, seq")
    assert [(row["key"], row["version"], row["type"].rpartition(".")[2]) for row in rows] == [
        ("o-1", 1, "OrderPlaced"),
        ("o-1", 2, "OrderConfirmed"),
        ("o-1", 3, "OrderDispatched"),
        ("o-2", 1, "OrderPlaced"),
        ("o-2", 2, "OrderRejected"),
        ("o-3", 1, "OrderPlaced"),
        ("o-3", 2, "OrderRefunded"),
    ]


async def test_an_event_has_neither_the_card_nor_the_address(database):
    await add(database, "o-1")
    payload = await database.pool.fetchval("SELECT payload FROM outbox")
    assert OrderPlaced.FromString(payload).total.minor == 900
    assert b"tok_" not in payload
    assert WISH.address.street.encode() not in payload
