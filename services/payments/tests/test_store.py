"""The rules that only a real Postgres can keep."""

import asyncio
from functools import partial

import asyncpg
import pytest
from amends_events import Outbox
from amends_testkit.service import one_behind_the_other
from shop_payments import store
from shop_payments.cards import card
from shop_payments.domain import (
    Account,
    AlreadyCharged,
    ChargeDisputed,
    Money,
    PaymentState,
    PaymentUnknown,
)
from shop_payments.events import PUBLISHES
from shop_payments.network import DurableMemory

from shop.payments.events.v1.payments_pb2 import PaymentRefunded, PaymentTaken

OUTBOX = Outbox("/shop/payments", PUBLISHES)
SOME = Money("EUR", 1250)


async def charge(database, order_id, token="tok_visa"):
    async with database.transaction() as transaction:
        return await store.charge(transaction, OUTBOX, order_id, SOME, card(token))


async def refund(database, order_id):
    async with database.transaction() as transaction:
        return await store.refund(transaction, OUTBOX, order_id)


async def payment(database, order_id):
    async with database.transaction() as transaction:
        return await store.payment_of(transaction, order_id)


async def balances(database):
    async with database.transaction() as transaction:
        return dict(await store.balances(transaction))


async def test_a_charge_moves_money_from_the_card_to_the_merchant(database):
    payment_id = await charge(database, "o-1")
    paid = await payment(database, "o-1")
    assert (paid.payment_id, paid.amount, paid.state) == (payment_id, SOME, PaymentState.CHARGED)
    assert await balances(database) == {Account.CUSTOMER_CARDS: Money("EUR", -1250), Account.MERCHANT: SOME}


async def test_an_order_is_charged_once_even_by_two_at_once(database):
    results = await asyncio.gather(*(charge(database, "o-1") for _ in range(4)), return_exceptions=True)
    assert sum(isinstance(result, AlreadyCharged) for result in results) == 3
    assert (await balances(database))[Account.MERCHANT] == SOME


async def test_a_refund_moves_the_money_back_once(database):
    await charge(database, "o-1")
    assert await refund(database, "o-1") == await refund(database, "o-1")
    assert (await payment(database, "o-1")).state is PaymentState.REFUNDED
    assert {balance.minor for balance in (await balances(database)).values()} == {0}


async def test_of_two_refunds_at_once_the_second_finds_the_first(database):
    await charge(database, "o-1")
    refund_id = await one_behind_the_other(database, *(2 * [partial(store.refund, outbox=OUTBOX, order_id="o-1")]))
    assert refund_id == (await payment(database, "o-1")).refund_id
    assert {balance.minor for balance in (await balances(database)).values()} == {0}


async def test_a_refund_beside_the_end_of_the_dispute_waits_for_it(database):
    await charge(database, "o-1", "tok_disputed")
    refund_id = await one_behind_the_other(
        database, partial(store.close_dispute, order_id="o-1"), partial(store.refund, outbox=OUTBOX, order_id="o-1")
    )
    assert refund_id == (await payment(database, "o-1")).refund_id


async def test_what_was_never_charged_cannot_be_refunded(database):
    with pytest.raises(PaymentUnknown):
        await refund(database, "o-1")


async def test_a_disputed_charge_is_refunded_only_after_the_dispute(database):
    await charge(database, "o-1", "tok_disputed")
    with pytest.raises(ChargeDisputed):
        await refund(database, "o-1")
    for _ in range(2):
        async with database.transaction() as transaction:
            await store.close_dispute(transaction, "o-1")
    assert await refund(database, "o-1")


async def test_there_is_no_dispute_about_what_was_never_charged(database):
    with pytest.raises(PaymentUnknown):
        async with database.transaction() as transaction:
            await store.close_dispute(transaction, "o-1")


async def write_entry(database, payment_id, postings):
    async with database.transaction() as transaction:
        await transaction.execute("INSERT INTO entry VALUES ('x', $1, 'refund', 'EUR')", payment_id)
        for account, minor in postings.items():
            await transaction.execute("INSERT INTO posting VALUES ('x', $1, $2)", account, minor)


@pytest.mark.parametrize("postings", [{}, {"merchant": 5, "customer-cards": -4}])
async def test_the_database_itself_refuses_an_entry_that_does_not_balance(database, postings):
    payment_id = await charge(database, "o-1")
    with pytest.raises(asyncpg.CheckViolationError, match="sum to"):
        await write_entry(database, payment_id, postings)
    assert (await balances(database))[Account.MERCHANT] == SOME


async def test_the_database_itself_refuses_a_posting_that_comes_later(database):
    await charge(database, "o-1")
    await database.pool.execute("INSERT INTO account VALUES ('elsewhere')")
    with pytest.raises(asyncpg.CheckViolationError, match="sum to"):
        await database.pool.execute("INSERT INTO posting SELECT entry_id, 'elsewhere', 1 FROM entry")


@pytest.mark.parametrize("change", ["UPDATE posting SET minor = 2 * minor", "DELETE FROM posting", "DELETE FROM entry"])
async def test_the_ledger_is_append_only(database, change):
    await charge(database, "o-1")
    with pytest.raises(asyncpg.CheckViolationError, match="append-only"):
        await database.pool.execute(change)


async def test_the_database_holds_no_card_token(database):
    await charge(database, "o-1", "tok_mastercard")
    row = await database.pool.fetchrow("SELECT payment::text AS everything, card_last_four FROM payment")
    assert row["card_last_four"] == "4444"
    assert "tok_" not in row["everything"]


async def test_the_networks_memory_survives_the_process_that_asks(database):
    assert [await DurableMemory(database).attempt("o-1") for _ in range(3)] == [1, 2, 3]
    assert await DurableMemory(database).attempt("o-2") == 1


async def test_a_charge_and_a_refund_each_have_an_event_of_their_transaction(database):
    payment_id = await charge(database, "o-1")
    with pytest.raises(AlreadyCharged):
        await charge(database, "o-1")
    refund_id = await refund(database, "o-1")
    await refund(database, "o-1")
    rows = await database.pool.fetch("SELECT type, key, version, payload FROM outbox ORDER BY seq")
    taken, refunded = PaymentTaken.FromString(rows[0]["payload"]), PaymentRefunded.FromString(rows[1]["payload"])
    assert [(row["key"], row["version"]) for row in rows] == [("o-1", 1), ("o-1", 2)]
    assert (taken.payment_id, taken.amount.minor) == (payment_id, SOME.minor)
    assert (refunded.payment_id, refunded.refund_id, refunded.amount.currency) == (payment_id, refund_id, "EUR")
