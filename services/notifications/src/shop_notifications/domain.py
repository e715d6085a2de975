"""What may be said to a customer, when, and what an answer of the mail server means. No SQL, no SMTP.

`store` asks `decide` before each transmission and `after` what comes of one; `events` makes notices.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID, uuid5

from amends_chassis.domain import RefusedError
from amends_resilience import Backoff

EMAIL: Final = "email"
"""The only channel there is. It is part of a notification's id, so that another one can come beside it."""


class CustomerUnknown(RefusedError):
    """There is no such customer, for whoever asks."""

    reason = "CUSTOMER_UNKNOWN"


class MessageUnknown(RefusedError):
    """There is no such message."""

    reason = "MESSAGE_UNKNOWN"


class StateUnknown(RefusedError):
    """There is no such state of a message."""

    reason = "STATE_UNKNOWN"


def unknown(notification_id: object) -> MessageUnknown:
    """Return what is said of a message that is not there, and of one that is not the caller's."""
    return MessageUnknown(f"there is no message {notification_id}")


class NotificationState(StrEnum):
    """Where a notification stands."""

    DUE = "due"
    SENDING = "sending"
    """Written down before the transmission begins."""
    SENT = "sent"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    """The transmission had begun, and nobody knows whether the server took it."""
    SUPPRESSED = "suppressed"


class MailGuarantee(StrEnum):
    """What is worse for a customer: to get a message twice, or not at all."""

    AT_LEAST_ONCE = "at least once"
    """After an unknown outcome it is sent again, with the same Message-ID, by which a mailbox can tell."""
    AT_MOST_ONCE = "at most once"
    """After an unknown outcome it is not sent again."""


class MailTemplate(StrEnum):
    """What can be said; each has a folder of texts in every language."""

    ORDER_CONFIRMED = "order-confirmed"
    ORDER_REJECTED = "order-rejected"
    PARCEL_HANDED_OVER = "parcel-handed-over"
    CAMPAIGN = "campaign"


DELIVERY: Final[Mapping[MailTemplate, MailGuarantee]] = {
    MailTemplate.ORDER_CONFIRMED: MailGuarantee.AT_LEAST_ONCE,
    MailTemplate.ORDER_REJECTED: MailGuarantee.AT_LEAST_ONCE,
    MailTemplate.PARCEL_HANDED_OVER: MailGuarantee.AT_LEAST_ONCE,
    MailTemplate.CAMPAIGN: MailGuarantee.AT_MOST_ONCE,
}


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that a customer is to be told, as it follows from an event."""

    event_id: UUID
    occurred_at: datetime
    template: MailTemplate
    parameters: Mapping[str, str]
    order_id: str = ""
    customer_id: str = ""
    """Empty when the event does not say whose order it is."""

    @property
    def notification_id(self) -> UUID:
        """Return the id, which is the same whenever the same event is handled."""
        return uuid5(self.event_id, f"{self.template}/{EMAIL}")


@dataclass(frozen=True, slots=True)
class Contact:
    """Where a customer is written to, and in which language."""

    email: str
    locale: str
    erased: bool = False


@dataclass(frozen=True, slots=True)
class Notification:
    """A message to a customer, and what has become of it."""

    notification_id: UUID
    event_id: UUID
    occurred_at: datetime
    template: MailTemplate
    parameters: Mapping[str, str]
    order_id: str
    customer_id: str
    state: NotificationState
    message_id: str
    attempts: int
    due_at: datetime | None
    answer: str
    sent_at: datetime | None


@dataclass(frozen=True, slots=True)
class SendingRules:
    """When a message may be sent, and when it is tried again."""

    limit: int = 20
    """So many messages a customer is sent within `window` at most; what is beyond waits."""
    window: timedelta = timedelta(hours=1)
    max_age: timedelta = timedelta(hours=24)
    """A message about something older is not sent: it would confuse, and a replay must not write to anybody."""
    transmission: timedelta = timedelta(minutes=1)
    """One transmission takes no longer; one that was begun twice as long ago was given up."""
    again: Backoff = field(default_factory=lambda: Backoff(timedelta(seconds=10), timedelta(minutes=15)))


@dataclass(frozen=True, slots=True)
class SendNow:
    """The message may be sent now."""

    contact: Contact


@dataclass(frozen=True, slots=True)
class SendLater:
    """The message may not be sent yet."""

    until: datetime
    why: str


@dataclass(frozen=True, slots=True)
class SendNever:
    """The message will not be sent."""

    why: str


MailDecision = SendNow | SendLater | SendNever

NO_ADDRESS: Final = "it is not known yet where to write"
TOO_MANY: Final = "the customer has been sent too many messages lately"
TOO_OLD: Final = "what it tells is too old"
ERASED: Final = "the customer was erased"
UNHEARD: Final = "the process that was sending it has not said what came of it"


def decide(
    notification: Notification, contact: Contact | None, begun: Sequence[datetime], now: datetime, rules: SendingRules
) -> MailDecision:
    """Decide whether a due message is sent now. `begun` says when messages to the customer were, the newest first."""
    age = now - notification.occurred_at
    if contact is not None and contact.erased:
        return SendNever(ERASED)
    if age >= rules.max_age:
        return SendNever(TOO_OLD)
    if contact is None or not contact.email:
        # Events of different topics have no order: the address may come soon, or never.
        return SendLater(now + min(max(age, timedelta(seconds=1)), timedelta(minutes=5)), NO_ADDRESS)
    if len(begun) >= rules.limit:
        return SendLater(begun[rules.limit - 1] + rules.window, TOO_MANY)
    return SendNow(contact)


class ServerReply(StrEnum):
    """How a transmission can end."""

    TAKEN = "taken"
    LATER = "later"
    """The server has not taken it now, or nothing was transmitted."""
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Transmission:
    """What came of one transmission; `answer` is what the server said, or what happened, for people."""

    reply: ServerReply
    answer: str


_STATES: Final[Mapping[ServerReply, NotificationState]] = {
    ServerReply.TAKEN: NotificationState.SENT,
    ServerReply.LATER: NotificationState.DUE,
    ServerReply.REFUSED: NotificationState.REFUSED,
    ServerReply.UNKNOWN: NotificationState.UNKNOWN,
}


def after(template: MailTemplate, reply: ServerReply) -> tuple[NotificationState, bool]:
    """Return the state after a transmission, and whether the message is tried again."""
    unknown_again = reply is ServerReply.UNKNOWN and DELIVERY[template] is MailGuarantee.AT_LEAST_ONCE
    return _STATES[reply], reply is ServerReply.LATER or unknown_again


def repeated() -> list[str]:
    """Return the templates that are sent again after an unknown outcome."""
    return [template.value for template, delivery in DELIVERY.items() if delivery is MailGuarantee.AT_LEAST_ONCE]
