"""Customers and consent in Postgres: every function is one change or read inside its caller's transaction.

`api.py` and `events.py` call it. Every change locks the customer's row first; campaigns are in `campaigns`.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from amends_events.backlog import forget_events

from shop.marketing.events.v1.marketing_pb2 import CampaignSent
from shop_marketing.domain import (
    CampaignTopic,
    Consent,
    Customer,
    CustomerUnknown,
    EmailPreferences,
    Frequency,
    Purpose,
)

if TYPE_CHECKING:
    from amends_chassis.database import Connection, Executes

LISTED = 500

_ERASE = """
INSERT INTO customer (account_id, erased) VALUES ($1, true) ON CONFLICT (account_id) DO UPDATE
SET erased = true, version = customer.version + 1, agreed_to = DEFAULT, frequency = DEFAULT, topics = DEFAULT,
    orders = DEFAULT, last_ordered_at = NULL, last_sent_at = NULL
"""
_ORDERED = """
INSERT INTO customer AS c (account_id, orders, last_ordered_at) VALUES ($1, 1, $2) ON CONFLICT (account_id) DO UPDATE
SET orders = c.orders + 1, last_ordered_at = greatest(c.last_ordered_at, $2) WHERE NOT c.erased
"""
_LATEST = "SELECT granted, wording FROM consent WHERE account_id = $1 AND purpose = $2 ORDER BY consent_id DESC LIMIT 1"


async def open_customer(connection: "Executes", account_id: str) -> None:
    """Write down that there is a customer, who agreed to nothing; one that is there, or was erased, stays so."""
    await connection.execute("INSERT INTO customer (account_id) VALUES ($1) ON CONFLICT DO NOTHING", account_id)


async def erase(connection: "Executes", account_id: str) -> None:
    """Delete whatever is known about a customer; a second time changes nothing.

    Campaigns that are not on their way yet are not sent.
    """
    await connection.execute(_ERASE, account_id)
    await connection.execute("DELETE FROM consent WHERE account_id = $1", account_id)
    await connection.execute("DELETE FROM sent_campaign WHERE account_id = $1", account_id)
    await forget_events(connection, CampaignSent, account_id)


async def ordered(connection: "Executes", account_id: str, at: datetime) -> None:
    """Write down that an order of a customer was confirmed."""
    await connection.execute(_ORDERED, account_id, at)


async def customer_of(connection: "Connection", account_id: str) -> Customer:
    """Read a customer. Raises CustomerUnknown."""
    row = await connection.fetchrow(
        "SELECT account_id, agreed_to, frequency, topics, orders, last_ordered_at FROM customer"
        " WHERE account_id = $1 AND NOT erased",
        account_id,
    )
    if row is None:
        raise CustomerUnknown(f"account {account_id} has no customer")
    return Customer(
        account_id=row["account_id"],
        agreed_to=frozenset(map(Purpose, row["agreed_to"])),
        email_preferences=EmailPreferences(Frequency(row["frequency"]), frozenset(map(CampaignTopic, row["topics"]))),
        orders=row["orders"],
        last_ordered_at=row["last_ordered_at"],
    )


async def set_consent(connection: "Connection", account_id: str, given: Consent) -> None:
    """Write down what a customer agrees to, or takes back; the same again changes nothing. Raises CustomerUnknown."""
    await _lock(connection, account_id)
    latest = await connection.fetchrow(_LATEST, account_id, given.purpose)
    before = (False, given.wording) if latest is None else (latest["granted"], latest["wording"])
    if before == (given.granted, given.wording) or not (before[0] or given.granted):
        return
    await connection.execute(
        "INSERT INTO consent (account_id, purpose, granted, wording) VALUES ($1, $2, $3, $4)",
        account_id,
        given.purpose,
        given.granted,
        given.wording,
    )
    change = "array_append(array_remove(agreed_to, $2), $2)" if given.granted else "array_remove(agreed_to, $2)"
    await connection.execute(
        f"UPDATE customer SET agreed_to = {change}, version = version + 1 WHERE account_id = $1",  # noqa: S608 - ours
        account_id,
        given.purpose.value,
    )


async def consents_of(connection: "Connection", account_id: str) -> Sequence[tuple[Consent, datetime]]:
    """Read what a customer agreed to and when, newest first. Raises CustomerUnknown."""
    await customer_of(connection, account_id)
    rows = await connection.fetch(
        "SELECT purpose, granted, wording, at FROM consent WHERE account_id = $1 ORDER BY consent_id DESC LIMIT $2",
        account_id,
        LISTED,
    )
    return [(Consent(Purpose(row["purpose"]), row["granted"], row["wording"]), row["at"]) for row in rows]


async def set_email_preferences(connection: "Connection", account_id: str, wanted: EmailPreferences) -> None:
    """Replace how a customer wants to be written to. Raises CustomerUnknown."""
    await _lock(connection, account_id)
    await connection.execute(
        "UPDATE customer SET frequency = $2, topics = $3, version = version + 1 WHERE account_id = $1",
        account_id,
        wanted.frequency,
        sorted(wanted.topics),
    )


async def campaigns_sent_to(connection: "Connection", account_id: str) -> Sequence[tuple[str, str, datetime]]:
    """Read id, subject and moment of each campaign that a customer was sent, newest first. Raises CustomerUnknown."""
    await customer_of(connection, account_id)
    rows = await connection.fetch(
        "SELECT campaign_id, subject, sent_at FROM sent_campaign JOIN campaign USING (campaign_id)"
        " WHERE account_id = $1 ORDER BY sent_at DESC, campaign_id LIMIT $2",
        account_id,
        LISTED,
    )
    return [(row["campaign_id"], row["subject"], row["sent_at"]) for row in rows]


async def _lock(connection: "Connection", account_id: str) -> None:
    """Lock a customer's row, which is made when there is none. Raises CustomerUnknown for one that was erased."""
    await open_customer(connection, account_id)
    if await connection.fetchval("SELECT erased FROM customer WHERE account_id = $1 FOR UPDATE", account_id):
        raise CustomerUnknown(f"account {account_id} is closed")
