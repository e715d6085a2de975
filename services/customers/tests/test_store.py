"""The rules that only a real Postgres can keep, and what others are told."""

from functools import partial

import asyncpg
import pytest
from amends_cache import Cache
from amends_events import Outbox
from amends_events.backlog import list_waiting, skip_waiting
from amends_events.decisions import DecidedBy
from amends_testkit.service import one_behind_the_other
from prometheus_client import CollectorRegistry
from shop_customers import api, store
from shop_customers.domain import (
    Address,
    CustomerUnknown,
    Details,
    PaymentMethod,
    PaymentMethodUnknown,
    delivery_address,
)
from shop_customers.events import PUBLISHES, handlers

from shop.customers.events.v1.customers_pb2 import CustomerChanged, CustomerErased
from shop.identity.events.v1.identity_pb2 import AccountClosed, AccountOpened

OUTBOX = Outbox("/shop/customers", PUBLISHES)
FORGETFUL = Cache(api.CUSTOMERS, None, registry=CollectorRegistry())
HOME = Address("Ada Lovelace", "Rosenweg 3", "Berlin", "10115", "DE")
ADA = Details("Ada Lovelace", "ada@example.com", "de", HOME)
CARD = PaymentMethod("card-1", "Visa", "4242")


async def handle(database, event, times=1):
    handler = handlers(OUTBOX, FORGETFUL)[type(event)]
    for _ in range(times):
        async with database.transaction() as transaction:
            await handler(transaction, None, event)


async def change(database, details=ADA):
    async with database.transaction() as transaction:
        return await store.change(transaction, OUTBOX, "acc-1", 0, details)


async def fill(database):
    await change(database)
    async with database.transaction() as transaction:
        await store.put_delivery_address(transaction, "acc-1", delivery_address("home", "Home", HOME))
        await store.put_payment_method(transaction, "acc-1", CARD, "tok_visa")


async def published(database):
    rows = await database.pool.fetch("SELECT key, version, type, payload FROM outbox ORDER BY seq")
    types = {one.DESCRIPTOR.full_name: one for one in PUBLISHES}
    return [(row["version"], types[row["type"]].FromString(row["payload"])) for row in rows]


async def read(database):
    async with database.transaction() as transaction:
        return await store.customer_of(transaction, "acc-1")


async def test_an_account_that_opens_makes_a_customer_of_whom_nothing_is_known(database):
    await handle(database, AccountOpened(account_id="acc-1"), times=2)
    assert (await read(database)).details == Details("", "", "en", None)
    assert await published(database) == []


async def test_what_was_written_before_the_account_was_heard_of_stays(database):
    await change(database)
    await handle(database, AccountOpened(account_id="acc-1"))
    assert (await read(database)).details == ADA


async def test_each_change_is_told_with_its_version_and_no_change_is_not(database):
    await change(database)
    await change(database)
    await change(database, Details("Ada", "ada@example.org", "en", None))
    assert await published(database) == [
        (2, CustomerChanged(account_id="acc-1", email_address="ada@example.com", locale="de")),
        (3, CustomerChanged(account_id="acc-1", email_address="ada@example.org", locale="en")),
    ]
    assert (await read(database)).version == 3


async def test_a_closed_account_leaves_its_id_alone_in_tables_and_events(database):
    await fill(database)
    await handle(database, AccountClosed(account_id="acc-1"), times=2)
    for table in ("billing_address", "delivery_address", "payment_method"):
        assert await database.pool.fetchval(f"SELECT count(*) FROM {table}") == 0
    row = await database.pool.fetchrow("SELECT * FROM customer")
    assert tuple(row.values()) == ("acc-1", 3, True, "", "", "en", 5)
    assert await published(database) == [(3, CustomerErased(account_id="acc-1"))]


async def test_the_erasure_reaches_events_that_are_kept_for_who_is_on_call(database):
    on_call = DecidedBy("Grace", "the broker will not take it")
    await change(database)
    await change(database, Details("Ada", "ada@example.org", "en", None))
    async with database.pool.acquire() as connection:
        waiting, _ = await list_waiting(connection)
        await skip_waiting(connection, "/shop/customers", waiting.event_id, on_call)
        await connection.execute("INSERT INTO outbox_sent SELECT *, now() FROM outbox")
    await handle(database, AccountClosed(account_id="acc-1"))
    assert await database.pool.fetchval("SELECT count(*) FROM outbox_sent") == 0
    decision = await database.pool.fetchrow("SELECT * FROM event_decision")
    assert (decision["actor"], decision["payload"]) == ("Grace", None)


async def test_nothing_brings_back_who_was_erased_even_before_it_was_known(database):
    await handle(database, AccountClosed(account_id="acc-1"))
    await handle(database, AccountOpened(account_id="acc-1"))
    changes = (
        partial(store.change, outbox=OUTBOX, account_id="acc-1", expected=0, details=ADA),
        partial(store.put_delivery_address, account_id="acc-1", to=delivery_address("home", "Home", HOME)),
        partial(store.put_payment_method, account_id="acc-1", method=CARD, token="tok_visa"),
        partial(store.remove_delivery_address, account_id="acc-1", delivery_address_id="home"),
        partial(store.remove_payment_method, account_id="acc-1", payment_method_id="card-1"),
        partial(store.customer_of, account_id="acc-1"),
    )
    for each in changes:
        with pytest.raises(CustomerUnknown):
            async with database.transaction() as transaction:
                await each(transaction)
    assert await published(database) == [(1, CustomerErased(account_id="acc-1"))]


async def test_a_change_beside_the_erasure_comes_before_it_or_is_refused(database):
    await handle(database, AccountOpened(account_id="acc-1"))
    with pytest.raises(CustomerUnknown):
        await one_behind_the_other(
            database,
            partial(store.erase, outbox=OUTBOX, account_id="acc-1"),
            partial(store.put_payment_method, account_id="acc-1", method=CARD, token="tok_visa"),
        )
    with pytest.raises(PaymentMethodUnknown):
        async with database.transaction() as transaction:
            await store.card_token_of(transaction, "acc-1", "card-1")


async def test_an_erasure_beside_a_change_deletes_what_the_change_wrote(database):
    await handle(database, AccountOpened(account_id="acc-1"))
    await one_behind_the_other(
        database,
        partial(store.change, outbox=OUTBOX, account_id="acc-1", expected=0, details=ADA),
        partial(store.erase, outbox=OUTBOX, account_id="acc-1"),
    )
    assert await database.pool.fetchval("SELECT count(*) FROM billing_address") == 0
    assert [event for _, event in await published(database)] == [CustomerErased(account_id="acc-1")]


async def test_an_erasure_waits_for_who_writes_down_a_card_and_deletes_it(database):
    await handle(database, AccountOpened(account_id="acc-1"))
    await one_behind_the_other(
        database,
        partial(store.put_payment_method, account_id="acc-1", method=CARD, token="tok_visa"),
        partial(store.erase, outbox=OUTBOX, account_id="acc-1"),
    )
    assert await database.pool.fetchval("SELECT count(*) FROM payment_method") == 0


async def test_the_database_itself_keeps_nothing_of_who_was_erased(database):
    await handle(database, AccountClosed(account_id="acc-1"))
    with pytest.raises(asyncpg.CheckViolationError):
        await database.pool.execute("UPDATE customer SET email_address = 'ada@example.com'")
