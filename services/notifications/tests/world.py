"""What the tests write: notices, contacts, and a sender that they drive by hand."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from amends_chassis.database import Database
from amends_resilience import Backoff
from prometheus_client import CollectorRegistry
from shop_notifications import store
from shop_notifications.domain import Contact, MailTemplate, Notice, Notification, NotificationState, SendingRules
from shop_notifications.letters import Letters
from shop_notifications.metrics import MessageMetrics
from shop_notifications.sender import MailSender
from shop_notifications.smtp import Security, SmtpClient, SmtpServer

FROM = "The Shop <orders@shop.example>"
PARAMETERS = {
    MailTemplate.ORDER_CONFIRMED: {"order": "o-1", "tracking": "t-1"},
    MailTemplate.ORDER_REJECTED: {"order": "o-1", "reason": "OUT_OF_STOCK"},
    MailTemplate.PARCEL_HANDED_OVER: {"order": "o-1", "tracking": "t-1", "carrier": "postal"},
    MailTemplate.CAMPAIGN: {"subject": "Tea", "text": "There is new tea."},
}
AT_ONCE = Backoff(timedelta(0), timedelta(0))


def notice(
    template: MailTemplate = MailTemplate.ORDER_CONFIRMED,
    *,
    event_id: UUID | None = None,
    age: timedelta = timedelta(0),
    order_id: str = "o-1",
    customer_id: str = "ada",
) -> Notice:
    return Notice(event_id or uuid4(), datetime.now(UTC) - age, template, PARAMETERS[template], order_id, customer_id)


async def add(database: Database, *notices: Notice) -> None:
    async with database.transaction() as connection:
        for one in notices:
            await store.add(connection, one, f"<{one.notification_id}@shop.example>")


async def know(
    database: Database, customer_id: str = "ada", version: int = 1, email: str = "ada@example.org", locale: str = "en"
) -> None:
    async with database.transaction() as connection:
        await store.know_contact(connection, customer_id, version, Contact(email, locale))


async def messages(database: Database, **wanted) -> list[Notification]:
    """Every message, the oldest first."""
    async with database.transaction() as connection:
        found = await store.page(connection, store.MessageFilter(**wanted), None, 1_000)
    return list(reversed(found))


async def states(database: Database) -> list[NotificationState]:
    return [one.state for one in await messages(database)]


def sender(database: Database, port: int, *, hostname: str = "shop.example", timeout: float = 5, **rules) -> MailSender:
    """A sender whose turns the test takes; an attempt that failed is due again at once."""
    options: dict[str, Any] = {"again": AT_ONCE, "transmission": timedelta(seconds=timeout)} | rules
    asked = SendingRules(**options)
    place = SmtpServer("127.0.0.1", port, Security.NONE)
    client = SmtpClient(lambda: place, hostname, timedelta(seconds=timeout))
    return MailSender(database, client, Letters(FROM), asked, MessageMetrics(CollectorRegistry()), asyncio.Event())


async def send_all(one: MailSender, turns: int = 1_000) -> int:
    """Take turns until there is nothing to do; return how many that took."""
    for number in range(turns):
        if await one.turn():
            return number
    return turns
