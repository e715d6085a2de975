"""Cards that were kept are charged by the worker: once, in time, and asked for again as long as nobody knows."""

import asyncio
from datetime import timedelta

import pytest
from amends_events import Outbox
from amends_testkit.waiting import eventually
from shop_payments import store
from shop_payments.cards import card, fingerprint
from shop_payments.choreography import AT_ONCE, REMEMBERED, ChargeWorker
from shop_payments.domain import Money
from shop_payments.events import PUBLISHES
from shop_payments.network import DurableMemory, Network

OUTBOX = Outbox("/shop/payments", PUBLISHES)
SOME, LONG = Money("EUR", 1250), timedelta(minutes=1)


def worker(database, slow_answer=timedelta(0)) -> ChargeWorker:
    return ChargeWorker(database, OUTBOX, Network(DurableMemory(database), slow_answer), timedelta(milliseconds=20))


async def due(database, order_id, token="tok_visa", keep_for=LONG):
    """Keep a card and have it charged."""
    async with database.transaction() as transaction:
        await store.keep_card(transaction, order_id, SOME, fingerprint(token), keep_for)
        return await store.make_due(transaction, order_id, {"correlationid": "c-1"})


async def events(database):
    rows = await database.pool.fetch("SELECT key, type, headers FROM outbox ORDER BY seq")
    return [(row["key"], row["type"].rpartition(".")[2]) for row in rows]


async def settled(database):
    assert await database.pool.fetchval("SELECT count(*) FROM kept_card WHERE state <> 'done'") == 0
    return True


async def run(database):
    """Let a worker do what is due."""
    task = asyncio.create_task(worker(database).run())
    try:
        await eventually(lambda: settled(database), what="nothing is due any more")
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_a_charge_that_is_due_is_made_once_by_two_workers(database):
    await due(database, "o-1")
    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(run(database))
    assert await events(database) == [("o-1", "PaymentTaken")]
    headers = await database.pool.fetchval("SELECT headers FROM outbox")
    assert '"correlationid": "c-1"' in headers


async def test_a_refusal_is_an_event_and_ends_the_charge(database):
    await due(database, "o-1", "tok_chargeDeclined")
    await run(database)
    assert await events(database) == [("o-1", "PaymentFailed")]


async def test_a_charge_without_an_answer_is_asked_for_again(database):
    await due(database, "o-1", "tok_processingError")
    await run(database)
    assert await events(database) == [("o-1", "PaymentTaken")]
    assert await database.pool.fetchval("SELECT attempts FROM network_attempt") == 3


async def test_whoever_dies_while_the_network_is_asked_leaves_the_charge_to_others(database):
    await due(database, "o-1")
    async with database.transaction() as transaction:
        assert len(await store.claim_due(transaction, 1)) == 1  # and nothing follows
        assert await store.claim_due(transaction, 1) == []
    await database.pool.execute("UPDATE kept_card SET due_at = due_at - interval '1 minute'")
    await run(database)
    assert await events(database) == [("o-1", "PaymentTaken")]


async def test_a_slow_answer_makes_no_other_order_wait(database):
    task = asyncio.create_task(worker(database, timedelta(seconds=60)).run())
    try:
        await due(database, "o-slow", "tok_slow")
        await due(database, "o-1")

        async def charged():
            return await events(database) == [("o-1", "PaymentTaken")]

        await eventually(charged, what="the other order is charged")
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_nothing_is_charged_after_its_time_nor_after_it_was_called_off(database):
    assert not await due(database, "o-late", keep_for=timedelta(0))
    await due(database, "o-off")
    async with database.transaction() as transaction:
        await store.call_off(transaction, "o-off")
        assert not await store.make_due(transaction, "o-off", {})
    await due(database, "o-later")
    async with database.transaction() as transaction:
        [claimed] = await store.claim_due(transaction, AT_ONCE)
    await database.pool.execute("UPDATE kept_card SET expires_at = now() - interval '1 second'")
    await worker(database).settle(claimed)
    assert await events(database) == []


async def test_an_order_that_was_charged_in_another_way_fails_and_is_not_charged_again(database):
    async with database.transaction() as transaction:
        await store.charge(transaction, OUTBOX, "o-1", SOME, card("tok_visa"))
    await due(database, "o-1")
    await run(database)
    assert await events(database) == [("o-1", "PaymentTaken"), ("o-1", "PaymentFailed")]


@pytest.mark.parametrize(("age", "forgotten"), [("13 days", 0), ("15 days", 1)])
async def test_a_card_is_remembered_as_long_as_an_event_may_come_again(database, age, forgotten):
    await due(database, "o-1")
    await database.pool.execute("UPDATE kept_card SET expires_at = now() - $1::text::interval", age)
    async with database.transaction() as transaction:
        assert await store.forget_cards(transaction, REMEMBERED, 10) == forgotten
