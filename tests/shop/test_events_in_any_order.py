"""A choreographed order ends well, or as if it had never been, in whatever order its events are heard."""

import itertools
from typing import Any

import pytest
from amends_testkit.service import one_behind_the_other
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shop_orders import store as orders

from .letters import STOCK, Letter, Letters
from .market import Effects

NOTHING = [Effects(stock, money) for stock in ("", "released") for money in ("", "refunded")]
DONE = Effects("held", "charged", True)
WISHES: dict[str, dict[str, Any]] = {
    "nothing refuses": {},
    "out of stock": {"quantity": STOCK + 1},
    "card declined": {"card": "tok_chargeDeclined"},
    "no slot": {"country": "AT"},
}
MOVES = 60
AGAIN = 5
_numbers = itertools.count(1)


async def check(letters: Letters, order_id: str) -> str:
    """Hold an order that has ended against the rules; return its state."""
    state, effects, published = await letters.state(order_id), await letters.effects(order_id), letters.published
    assert published["OrderConfirmed"] + published["OrderRejected"] == 1
    if state == "confirmed":
        assert effects == DONE
    else:
        assert state == "rejected"
        assert effects in NOTHING
        assert published["StockReserved"] == published["StockReleased"]
        assert published["PaymentTaken"] == published["PaymentRefunded"]
        assert published["ParcelBooked"] == published["ParcelCancelled"]
    assert await letters.broken_laws() == []
    return state


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(wish=st.sampled_from(sorted(WISHES)), is_late=st.booleans(), moves=st.lists(st.integers(0, 99), max_size=MOVES))
async def test_whatever_the_order_of_its_events_an_order_ends_the_same(letters: Letters, wish, is_late, moves):
    """Each move is a delivery, a delivery of what was delivered before, a charge that is due, or time that passes."""
    order_id = f"order-{next(_numbers)}"
    await letters.place(order_id, **WISHES[wish])
    delivered: list[Letter] = []
    again, passes = AGAIN, is_late
    for move in moves:
        if move % 10 == 0 and again and delivered:
            again -= 1
            await letters.deliver(delivered[move // 10 % len(delivered)])
        elif move % 10 == 1:
            await letters.charge()
        elif move % 10 == 2 and passes:
            passes = False
            await letters.let_the_time_pass(order_id)
        elif move % 10 == 3 and not passes:
            await letters.sweep(order_id)
        elif letters.undelivered:
            letter = letters.undelivered[move // 4 % len(letters.undelivered)]
            delivered.append(letter)
            await letters.deliver(letter)
    await letters.deliver_all()
    if await letters.state(order_id) == "pending":
        assert is_late, "an order stays pending, although nothing was lost and no time has passed"
        await letters.let_the_time_pass(order_id)
        await letters.sweep(order_id)
        await letters.deliver_all()
    state = await check(letters, order_id)
    if not is_late:
        assert state == ("rejected" if WISHES[wish] else "confirmed")


async def test_what_was_rejected_before_the_inventory_heard_of_it_keeps_no_stock(letters: Letters):
    await letters.place("o-early")
    await letters.let_the_time_pass("o-early")
    await letters.sweep("o-early")
    for consumer in ("inventory", "payments", "shipping"):
        await letters.deliver(letters.waiting(consumer, "OrderRejected"))
    await letters.deliver(letters.waiting("inventory", "OrderPlaced"))
    assert letters.undelivered == []
    assert await letters.effects("o-early") == Effects()
    assert letters.published == {"OrderPlaced": 1, "OrderRejected": 1}


@pytest.mark.parametrize(
    ("consumer", "late", "stands"), [("payments", "StockReserved", ""), ("shipping", "PaymentTaken", "charged")]
)
async def test_what_was_rejected_before_the_step_was_asked_for_is_not_charged_and_not_shipped(
    letters: Letters, consumer, late, stands
):
    order_id = f"o-{late}"
    await letters.place(order_id)
    while (consumer, late) not in {(one.to, one.type) for one in letters.undelivered}:
        if letters.undelivered:
            await letters.deliver(letters.undelivered[0])
        await letters.charge()
    async with letters.databases["orders"].transaction() as transaction:  # a person could do it, or a new rule
        await orders.reject(transaction, letters.outboxes["orders"], order_id, "the customer has changed their mind")
    await letters.collect()
    await letters.deliver(letters.waiting(consumer, "OrderRejected"))
    await letters.deliver(letters.waiting(consumer, late))
    await letters.deliver_all()
    assert await check(letters, order_id) == "rejected"
    assert letters.published["ParcelBooked"] == 0
    assert letters.published["PaymentTaken"] == (1 if stands else 0)


@pytest.mark.parametrize("first", ["the last good event", "the sweep"])
async def test_of_the_last_good_event_and_the_sweep_at_once_the_first_decides(letters: Letters, first):
    order_id = f"o-{first.replace(' ', '-')}"
    await letters.place(order_id)
    while "ParcelBooked" not in {one.type for one in letters.undelivered}:
        if letters.undelivered:
            await letters.deliver(letters.undelivered[0])
        await letters.charge()
    booked = letters.waiting("orders", "ParcelBooked")
    for one in [one for one in letters.undelivered if one is not booked]:
        await letters.deliver(one)
    await letters.let_the_time_pass(order_id)
    box = letters.outboxes["orders"]

    async def hear(connection):
        await orders.note_papers(connection, box, order_id, tracking_id=booked.message.tracking_id)

    async def sweep(connection):
        await orders.reject_late(connection, box, order_id)

    both = [hear, sweep] if first == "the last good event" else [sweep, hear]
    await one_behind_the_other(letters.databases["orders"], *both)
    await letters.collect()
    await letters.deliver_all()
    assert await check(letters, order_id) == ("confirmed" if both[0] is hear else "rejected")


async def test_an_event_of_an_order_says_what_all_of_them_belong_to(letters: Letters):
    await letters.place("o-traced")
    seen = []
    while letters.undelivered or await letters.charge():
        if letters.undelivered:
            seen.append(letters.undelivered[0])
            await letters.deliver(letters.undelivered[0])
    [placed] = [one.event for one in seen if one.type == "OrderPlaced"]
    others = [one.event for one in seen if one.event is not placed]
    assert len(others) >= 4
    assert {one.headers["correlationid"] for one in others} == {str(placed.event_id)}


async def test_nothing_that_is_published_or_kept_for_an_order_has_its_card_token(letters: Letters):
    await letters.place("o-secret", card="tok_mastercard")
    letter_bytes = [letter.event.payload for letter in letters.undelivered]
    while letters.undelivered or await letters.charge():
        if letters.undelivered:
            letter_bytes.append(letters.undelivered[0].event.payload)
            await letters.deliver(letters.undelivered[0])
    assert not [one for one in letter_bytes if b"tok_mastercard" in one]
    for name, table in (("payments", "kept_card"), ("payments", "payment"), ("orders", "orders")):
        rows = await letters.databases[name].pool.fetch(f"SELECT t::text AS row FROM {table} AS t")
        assert rows
        assert not [row for row in rows if "tok_mastercard" in row["row"]]
