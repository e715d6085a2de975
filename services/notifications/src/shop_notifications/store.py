"""Notifications and contacts in Postgres.

What the consumer calls is one change inside its transaction; what the sender calls (`claim`, `settle`, `give_up`) is
a transaction of its own, because each has to be committed before the sender goes on. Rows are locked in one order:
notifications before contacts.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from shop_notifications.domain import (
    UNHEARD,
    Contact,
    MailDecision,
    MailTemplate,
    Notice,
    Notification,
    NotificationState,
    SendingRules,
    SendLater,
    SendNow,
    Transmission,
    after,
    decide,
    repeated,
    unknown,
)

if TYPE_CHECKING:
    from amends_chassis.database import Connection, Database

_COLUMNS = (
    "notification_id, event_id, occurred_at, template, parameters, order_id, customer_id, state, message_id, attempts,"
    " due_at, answer, sent_at"
)

_ADD = """
INSERT INTO notification
    (notification_id, event_id, occurred_at, template, parameters, order_id, customer_id, state, message_id, due_at)
VALUES (
    $1, $2, $3, $4, $5, $6,
    coalesce(nullif($7, ''), (SELECT customer_id FROM customer_of_order WHERE order_id = $6), ''), 'due', $8, now()
)
ON CONFLICT DO NOTHING
"""
_KNOW_CONTACT = """
INSERT INTO contact (customer_id, version, email, locale, erased) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (customer_id) DO UPDATE
SET version = excluded.version, email = excluded.email, locale = excluded.locale, erased = excluded.erased
WHERE excluded.version > contact.version AND NOT contact.erased
"""
_FORGET_MESSAGES = """
UPDATE notification SET
    parameters = '{}',
    state = CASE WHEN state = 'due' OR (state = 'unknown' AND due_at IS NOT NULL) THEN 'suppressed' ELSE state END,
    due_at = CASE WHEN state = 'sending' THEN due_at END
WHERE customer_id = $1
    OR (customer_id = '' AND order_id IN (SELECT order_id FROM customer_of_order WHERE customer_id = $1))
"""

_IS_DUE = "SELECT EXISTS (SELECT FROM notification WHERE due_at <= now() AND state <> 'sending')"
_NEXT = f"""
SELECT {_COLUMNS}, clock_timestamp() AS now,
    coalesce(nullif(customer_id, ''), (SELECT c.customer_id FROM customer_of_order c WHERE c.order_id = n.order_id), '')
        AS whose
FROM notification n WHERE due_at <= now() AND state <> 'sending' ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED
"""  # noqa: S608
_CONTACT = "SELECT email, locale, erased FROM contact WHERE customer_id = $1 FOR UPDATE"
_BEGUN = """
SELECT began_at FROM notification WHERE customer_id = $1 AND began_at > $2 ORDER BY began_at DESC LIMIT $3
"""
_BEGIN = """
UPDATE notification SET state = 'sending', customer_id = $2, attempts = attempts + 1, began_at = $3, due_at = $4
WHERE notification_id = $1
"""
_PUT_OFF = "UPDATE notification SET customer_id = $2, due_at = $3, answer = $4 WHERE notification_id = $1"
_SUPPRESS = """
UPDATE notification SET customer_id = $2, state = 'suppressed', due_at = NULL, answer = $3 WHERE notification_id = $1
"""
# The number of the attempt is a fence: whoever was taken for dead changes nothing of a later attempt.
_SETTLE = """
UPDATE notification SET
    state = $3, answer = $4, due_at = now() + $5::interval, sent_at = CASE WHEN $3 = 'sent' THEN now() END
WHERE notification_id = $1 AND attempts = $2 AND state IN ('sending', 'unknown')
RETURNING true
"""
_GIVE_UP = """
UPDATE notification SET state = 'unknown', answer = $2, due_at = CASE WHEN template = ANY($1) THEN now() END
WHERE state = 'sending' AND due_at <= now()
RETURNING template
"""
# What waits because of the mail server: its turn has come, or it was tried. What waits for an address does not count.
_OLDEST = """
SELECT now() - min(occurred_at) FROM notification WHERE due_at IS NOT NULL AND (due_at <= now() OR attempts > 0)
"""
_EXPIRE = """
DELETE FROM notification WHERE notification_id IN (
    SELECT notification_id FROM notification WHERE due_at IS NULL AND occurred_at < now() - $1::interval
    ORDER BY occurred_at LIMIT $2
)
"""
_EXPIRE_ORDERS = """
DELETE FROM customer_of_order WHERE order_id IN (
    SELECT order_id FROM customer_of_order WHERE known_since < now() - $1::interval LIMIT $2
)
"""


async def know_order(connection: "Connection", order_id: str, customer_id: str) -> None:
    """Remember whose an order is."""
    await connection.execute(
        "INSERT INTO customer_of_order (order_id, customer_id) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        order_id,
        customer_id,
    )


async def know_contact(connection: "Connection", customer_id: str, version: int, contact: Contact) -> None:
    """Remember where a customer is written to, unless something newer is known or the customer was erased."""
    await connection.execute(_KNOW_CONTACT, customer_id, version, contact.email, contact.locale, contact.erased)


async def erase(connection: "Connection", customer_id: str, version: int) -> None:
    """Forget the customer's address, whose which order was, and what was said; what waits is not sent."""
    await connection.execute(_FORGET_MESSAGES, customer_id)
    await connection.execute("DELETE FROM customer_of_order WHERE customer_id = $1", customer_id)
    await know_contact(connection, customer_id, version, Contact("", "", erased=True))


async def add(connection: "Connection", notice: Notice, message_id: str) -> None:
    """Write down that a message is due. The same notice again changes nothing."""
    await connection.execute(
        _ADD,
        notice.notification_id,
        notice.event_id,
        notice.occurred_at,
        notice.template,
        json.dumps(dict(notice.parameters)),
        notice.order_id,
        notice.customer_id,
        message_id,
    )


@dataclass(frozen=True, slots=True)
class ClaimedMessage:
    """A due message, and what was decided about it; when that is SendNow, the message is in state `sending` now."""

    notification: Notification
    decision: MailDecision


async def is_due(database: "Database") -> bool:
    """Return whether there is a message that `claim` would look at."""
    return bool(await database.pool.fetchval(_IS_DUE))


async def claim(database: "Database", rules: SendingRules) -> ClaimedMessage | None:
    """Decide about the message that has been due for longest, and commit that. None when there is none.

    Raises Unavailable while the database is away.
    """
    async with database.transaction() as connection:
        row = await connection.fetchrow(_NEXT)
        if row is None:
            return None
        notification, whose, now = _notification(row), row["whose"], row["now"]
        contact = await connection.fetchrow(_CONTACT, whose)
        begun = await connection.fetch(_BEGUN, whose, now - rules.window, rules.limit)
        decision = decide(
            notification,
            None if contact is None else Contact(contact["email"], contact["locale"], contact["erased"]),
            [one["began_at"] for one in begun],
            now,
            rules,
        )
        await _write(connection, notification.notification_id, whose, decision, now, rules)
    return ClaimedMessage(notification, decision)


async def _write(
    connection: "Connection",
    notification_id: UUID,
    customer_id: str,
    decision: MailDecision,
    now: datetime,
    rules: SendingRules,
) -> None:
    if isinstance(decision, SendNow):
        await connection.execute(_BEGIN, notification_id, customer_id, now, now + 2 * rules.transmission)
    elif isinstance(decision, SendLater):
        await connection.execute(_PUT_OFF, notification_id, customer_id, decision.until, decision.why)
    else:
        await connection.execute(_SUPPRESS, notification_id, customer_id, decision.why)


async def settle(
    database: "Database", claimed: Notification, transmission: Transmission, pause: timedelta
) -> NotificationState | None:
    """Write down what came of a transmission and return the state.

    `pause` is how long to wait if it is tried again. None, with nothing changed, when another process has taken the
    message over.
    """
    state, again = after(claimed.template, transmission.reply)
    settled = await database.pool.fetchval(
        _SETTLE,
        claimed.notification_id,
        claimed.attempts + 1,
        state,
        transmission.answer,
        pause if again else None,
    )
    return state if settled else None


async def give_up(database: "Database") -> list[MailTemplate]:
    """Call unknown what nobody is sending any more; return the templates of those messages."""
    rows = await database.pool.fetch(_GIVE_UP, repeated(), UNHEARD)
    return [MailTemplate(row["template"]) for row in rows]


async def oldest(database: "Database") -> timedelta:
    """Return how old the oldest event is whose message should have been sent by now."""
    return await database.pool.fetchval(_OLDEST) or timedelta(0)


async def expire(database: "Database", retention: timedelta, limit: int = 1_000) -> int:
    """Delete at most `limit` messages that came to their end and are older than that; return how many."""
    await database.pool.execute(_EXPIRE_ORDERS, retention, limit)
    tag = await database.pool.execute(_EXPIRE, retention, limit)
    return int(tag.rpartition(" ")[2])


async def message(connection: "Connection", notification_id: UUID) -> Notification:
    """Read a message. Raises MessageUnknown."""
    row = await connection.fetchrow(
        f"SELECT {_COLUMNS} FROM notification WHERE notification_id = $1",  # noqa: S608
        notification_id,
    )
    if row is None:
        raise unknown(notification_id)
    return _notification(row)


@dataclass(frozen=True, slots=True)
class MessageFilter:
    """Which messages a list has: whatever is given must hold."""

    customer_id: str = ""
    order_id: str = ""
    state: NotificationState | None = None


async def page(
    connection: "Connection", wanted: MessageFilter, before: tuple[datetime, UUID] | None, limit: int
) -> Sequence[Notification]:
    """Read a page of messages, newest first, those older than `before`."""
    arguments: list[Any] = []

    def holds(condition: str, *values: Any) -> str:
        numbers = [f"${len(arguments) + number}" for number in range(1, len(values) + 1)]
        arguments.extend(values)
        return condition.format(*numbers)

    conditions = ["true"]
    if wanted.customer_id:
        conditions.append(holds("customer_id = {}", wanted.customer_id))
    if wanted.order_id:
        conditions.append(holds("order_id = {} AND order_id <> ''", wanted.order_id))
    if wanted.state is not None:
        conditions.append(holds("state = {}", wanted.state))
    if before is not None:
        conditions.append(holds("(occurred_at, notification_id) < ({}, {})", *before))
    query = (
        f"SELECT {_COLUMNS} FROM notification WHERE {' AND '.join(conditions)}"  # noqa: S608
        f" ORDER BY occurred_at DESC, notification_id DESC {holds('LIMIT {}', limit)}"
    )
    return [_notification(row) for row in await connection.fetch(query, *arguments)]


def _notification(row: Any) -> Notification:
    return Notification(
        notification_id=row["notification_id"],
        event_id=row["event_id"],
        occurred_at=row["occurred_at"],
        template=MailTemplate(row["template"]),
        parameters=json.loads(row["parameters"]),
        order_id=row["order_id"],
        customer_id=row["customer_id"],
        state=NotificationState(row["state"]),
        message_id=row["message_id"],
        attempts=row["attempts"],
        due_at=row["due_at"],
        answer=row["answer"],
        sent_at=row["sent_at"],
    )
