"""Who is sent a campaign, and what a real Postgres keeps when things happen at once."""

import asyncio
from datetime import UTC, datetime, timedelta
from functools import partial

import asyncpg
import pytest
from amends_events import CloudEvent, Outbox
from amends_testkit.service import one_behind_the_other
from shop_marketing import campaigns, store
from shop_marketing.domain import (
    Audience,
    Campaign,
    CampaignTopic,
    Consent,
    CustomerUnknown,
    EmailPreferences,
    Frequency,
    Purpose,
)
from shop_marketing.events import HANDLERS, PUBLISHES

from shop.identity.events.v1.identity_pb2 import AccountClosed, AccountOpened
from shop.marketing.events.v1.marketing_pb2 import CampaignSent
from shop.orders.events.v1.orders_pb2 import OrderConfirmed

OUTBOX = Outbox("/shop/marketing", PUBLISHES)
YES, NO = Consent(Purpose.EMAIL, True, "newsletter-1"), Consent(Purpose.EMAIL, False, "newsletter-1")
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def spring(campaign_id="spring", topic=CampaignTopic.OFFERS, audience=Audience.EVERYBODY):
    return Campaign(campaign_id, topic, audience, "Spring", "Tea")


async def handle(database, message, at=NOON):
    event = CloudEvent(None, "", "", "", "", 1, at, {}, b"")
    async with database.transaction() as transaction:
        await HANDLERS[type(message)](transaction, event, message)


async def do(database, change, *arguments):
    async with database.transaction() as transaction:
        return await change(transaction, *arguments)


async def send(database, campaign):
    """Send a campaign; return to whom."""
    await do(database, campaigns.start, campaign)
    while await do(database, campaigns.send_batch, OUTBOX):
        pass
    rows = await database.pool.fetch(
        "SELECT account_id FROM sent_campaign WHERE campaign_id = $1 ORDER BY 1", campaign.campaign_id
    )
    assert await database.pool.fetchval("SELECT sent FROM campaign WHERE campaign_id = $1", campaign.campaign_id) == (
        len(rows)
    )
    return [row["account_id"] for row in rows]


async def told(database):
    rows = await database.pool.fetch("SELECT key, version, payload FROM outbox ORDER BY seq")
    return [(row["key"], row["version"], CampaignSent.FromString(row["payload"])) for row in rows]


async def agree(database, *accounts):
    for account_id in accounts:
        await do(database, store.set_consent, account_id, YES)


async def test_a_campaign_is_sent_to_who_agreed_and_to_nobody_else(database):
    await agree(database, "agreed", "took-back", "closed")
    await do(database, store.set_consent, "took-back", NO)
    await handle(database, AccountOpened(account_id="never-asked"))
    await handle(database, AccountClosed(account_id="closed"))
    assert await send(database, spring()) == ["agreed"]
    sent = CampaignSent(account_id="agreed", campaign_id="spring", subject="Spring", text="Tea")
    assert await told(database) == [("agreed", 3, sent)]


async def test_topics_frequency_and_orders_say_who_wants_it(database):
    await agree(database, "all", "news", "weekly", "monthly", "buyer")
    await do(database, store.set_email_preferences, "news", EmailPreferences(Frequency.ANY, {CampaignTopic.NEWS}))
    for rarely in (Frequency.WEEKLY, Frequency.MONTHLY):
        await do(database, store.set_email_preferences, rarely.value, EmailPreferences(rarely, frozenset()))
    await handle(database, OrderConfirmed(order_id="o-1", customer_id="buyer"))
    assert await send(database, spring("1")) == ["all", "buyer", "monthly", "weekly"]
    assert await send(database, spring("2")) == ["all", "buyer"]
    assert await send(database, spring("3", CampaignTopic.NEWS, Audience.NEWCOMERS)) == ["all", "news"]
    await database.pool.execute("UPDATE customer SET last_sent_at = now() - interval '8 days'")
    assert await send(database, spring("4", audience=Audience.BUYERS)) == ["buyer"]
    assert await send(database, spring("5")) == ["all", "buyer", "weekly"]
    await database.pool.execute("UPDATE customer SET last_sent_at = now() - interval '31 days'")
    assert await send(database, spring("6")) == ["all", "buyer", "monthly", "weekly"]


async def test_several_replicas_send_a_campaign_of_many_batches_once_to_each(database, monkeypatch):
    monkeypatch.setattr(campaigns, "BATCH", 7)
    accounts = [f"acc-{number:03}" for number in range(40)]
    await database.pool.executemany(
        "INSERT INTO customer (account_id, agreed_to) VALUES ($1, '{email}')", [(one,) for one in accounts]
    )
    await do(database, campaigns.start, spring())

    async def replica():
        for _ in range(20):
            await do(database, campaigns.send_batch, OUTBOX)

    await asyncio.gather(*(replica() for _ in range(3)))
    assert sorted(key for key, _, _ in await told(database)) == accounts
    assert await database.pool.fetchval("SELECT ended_at IS NOT NULL AND sent = 40 FROM campaign")


async def test_consent_that_is_taken_back_beside_a_batch_counts(database):
    await agree(database, "acc-1")
    await do(database, campaigns.start, spring())
    await one_behind_the_other(
        database,
        partial(store.set_consent, account_id="acc-1", given=NO),
        partial(campaigns.send_batch, outbox=OUTBOX),
    )
    assert await told(database) == []
    assert await database.pool.fetchval("SELECT sent FROM campaign") == 0


async def test_orders_are_counted_whoever_is_heard_of_first_and_the_last_one_is_the_latest(database):
    await handle(database, OrderConfirmed(order_id="o-2", customer_id="acc-1"), NOON)
    await handle(database, AccountOpened(account_id="acc-1"))
    await handle(database, OrderConfirmed(order_id="o-1", customer_id="acc-1"), NOON - timedelta(hours=1))
    await handle(database, OrderConfirmed(order_id="o-0"))
    customer = await do(database, store.customer_of, "acc-1")
    assert (customer.orders, customer.last_ordered_at) == (2, NOON)
    assert await database.pool.fetchval("SELECT count(*) FROM customer") == 1


async def test_a_closed_account_leaves_its_id_alone_and_nothing_brings_it_back(database):
    await agree(database, "acc-1")
    await send(database, spring())
    for _ in range(2):
        await handle(database, AccountClosed(account_id="acc-1"))
    await handle(database, AccountOpened(account_id="acc-1"))
    await handle(database, OrderConfirmed(order_id="o-1", customer_id="acc-1"))
    for table in ("consent", "sent_campaign", "outbox"):
        assert await database.pool.fetchval(f"SELECT count(*) FROM {table}") == 0
    for change in (
        partial(store.set_consent, account_id="acc-1", given=YES),
        partial(store.set_email_preferences, account_id="acc-1", wanted=EmailPreferences(Frequency.ANY, frozenset())),
        partial(store.customer_of, account_id="acc-1"),
    ):
        with pytest.raises(CustomerUnknown):
            await do(database, change)
    with pytest.raises(asyncpg.CheckViolationError):
        await database.pool.execute("UPDATE customer SET orders = 1")
