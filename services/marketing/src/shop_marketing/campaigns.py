"""Campaigns: begun by a call, sent in the background, a batch of customers in each transaction.

Whether a customer agrees is read with its row locked, in the transaction that writes the event: whoever takes consent
back is sent nothing from then on. A campaign remembers how far it is, so any replica goes on where one has died.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import structlog
from amends_chassis.database import Database
from amends_events import Outbox, with_events

from shop.marketing.events.v1.marketing_pb2 import CampaignSent
from shop_marketing.domain import (
    PAUSES,
    Audience,
    Campaign,
    CampaignReused,
    CampaignTopic,
    CampaignUnknown,
    Frequency,
    Purpose,
)

if TYPE_CHECKING:
    from amends_chassis.database import Connection

BATCH = 200
_log = structlog.get_logger(__name__)

_START = """
INSERT INTO campaign (campaign_id, topic, audience, subject, text) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (campaign_id) DO NOTHING
"""
_READ = "SELECT campaign_id, topic, audience, subject, text FROM campaign WHERE campaign_id = $1"
_NEXT = """
SELECT campaign_id, topic, audience, subject, text, looked_at FROM campaign
WHERE ended_at IS NULL ORDER BY started_at, campaign_id LIMIT 1 FOR UPDATE SKIP LOCKED
"""
_BATCH = "SELECT account_id FROM customer WHERE account_id > $1 ORDER BY account_id LIMIT $2"
_WANT_IT = f"""
SELECT account_id FROM customer
WHERE account_id = ANY($1::text[]) AND NOT erased AND '{Purpose.EMAIL}' = ANY(agreed_to)
    AND (topics = '{{}}' OR $2 = ANY(topics))
    AND ($3 = '{Audience.EVERYBODY}' OR ($3 = '{Audience.BUYERS}') = (orders > 0))
    AND (last_sent_at IS NULL OR last_sent_at <= now() - CASE frequency
        WHEN '{Frequency.WEEKLY}' THEN $4::interval WHEN '{Frequency.MONTHLY}' THEN $5::interval ELSE '0' END)
ORDER BY account_id FOR UPDATE
"""  # noqa: S608 - our own words
_SEND = with_events(
    "UPDATE customer SET last_sent_at = now(), version = version + 1 WHERE account_id = ANY($1::text[])"
    " RETURNING account_id AS key, version",
    1,
)
_NOTE = (
    "INSERT INTO sent_campaign (account_id, campaign_id) SELECT account_id, $2 FROM unnest($1::text[]) AS account_id"
)
_GO_ON = """
UPDATE campaign SET looked_at = $2, sent = sent + $3, ended_at = CASE WHEN $4 THEN now() END WHERE campaign_id = $1
"""


@dataclass(frozen=True, slots=True)
class CampaignProgress:
    """How far a campaign is."""

    campaign_id: str
    subject: str
    sent: int
    started_at: datetime
    ended_at: datetime | None


async def start(connection: "Connection", wanted: Campaign) -> None:
    """Write down a campaign; the same again changes nothing. Raises CampaignReused."""
    await connection.execute(_START, wanted.campaign_id, wanted.topic, wanted.audience, wanted.subject, wanted.text)
    if _campaign(await connection.fetchrow(_READ, wanted.campaign_id)) != wanted:
        raise CampaignReused(f"campaign {wanted.campaign_id} was begun with other content")


async def progress(connection: "Connection", campaign_id: str) -> CampaignProgress:
    """Read how far a campaign is. Raises CampaignUnknown."""
    row = await connection.fetchrow(
        "SELECT campaign_id, subject, sent, started_at, ended_at FROM campaign WHERE campaign_id = $1", campaign_id
    )
    if row is None:
        raise CampaignUnknown(f"there is no campaign {campaign_id}")
    return CampaignProgress(*row)


async def send_batch(connection: "Connection", outbox: Outbox) -> bool:
    """Send the oldest campaign that goes on to some more customers; False when there is none, or another has it."""
    row = await connection.fetchrow(_NEXT)
    if row is None:
        return False
    campaign = _campaign(row)
    looked_at = [one["account_id"] for one in await connection.fetch(_BATCH, row["looked_at"], BATCH)]
    wanting = await _who_wants(connection, campaign, looked_at)
    await _send(connection, outbox, campaign, wanting)
    is_last = len(looked_at) < BATCH
    await connection.execute(
        _GO_ON, campaign.campaign_id, looked_at[-1] if looked_at else row["looked_at"], len(wanting), is_last
    )
    if is_last:
        _log.info("campaign.ended", campaign=campaign.campaign_id)
    return True


async def _who_wants(connection: "Connection", campaign: Campaign, accounts: Sequence[str]) -> list[str]:
    """Return those of the accounts that are sent a campaign, with their rows locked."""
    pauses = (PAUSES[Frequency.WEEKLY], PAUSES[Frequency.MONTHLY])
    rows = await connection.fetch(_WANT_IT, accounts, campaign.topic, campaign.audience, *pauses)
    return [row["account_id"] for row in rows]


async def _send(connection: "Connection", outbox: Outbox, campaign: Campaign, accounts: Sequence[str]) -> None:
    if not accounts:
        return
    events = (
        CampaignSent(
            account_id=account_id, campaign_id=campaign.campaign_id, subject=campaign.subject, text=campaign.text
        )
        for account_id in accounts
    )
    await connection.fetch(_SEND, accounts, *outbox.rows(events))
    await connection.execute(_NOTE, accounts, campaign.campaign_id)


def _campaign(row: Any) -> Campaign:
    return Campaign(
        row["campaign_id"], CampaignTopic(row["topic"]), Audience(row["audience"]), row["subject"], row["text"]
    )


class Campaigns:
    """Sends campaigns, for as long as the service runs."""

    def __init__(self, database: Database, outbox: Outbox, look_every: timedelta) -> None:
        self._database = database
        self._outbox = outbox
        self._look_every = look_every
        self._begun = asyncio.Event()

    def wake(self) -> None:
        """Look at once: a campaign was begun."""
        self._begun.set()

    async def run(self) -> None:
        """Send what there is to send, for ever."""
        while True:
            self._begun.clear()
            while await self._send_some():
                pass
            try:
                async with asyncio.timeout(self._look_every.total_seconds()):
                    await self._begun.wait()
            except TimeoutError:
                continue

    async def _send_some(self) -> bool:
        async with self._database.transaction() as transaction:
            return await send_batch(transaction, self._outbox)
