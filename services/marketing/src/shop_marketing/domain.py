"""The rules of customers as marketing needs them, free of SQL and gRPC.

Orders have a Customer of their own, in another service; the two share the account's id and nothing else.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from amends_chassis.domain import RefusedError, identifier

MAX_SUBJECT, MAX_TEXT = 200, 20_000


class PurposeInvalid(RefusedError):
    """The request names no purpose."""

    reason = "PURPOSE_INVALID"


class PreferencesInvalid(RefusedError):
    """The request names no frequency, or a topic that is none."""

    reason = "PREFERENCES_INVALID"


class CampaignInvalid(RefusedError):
    """The campaign has no subject, text, topic or audience."""

    reason = "CAMPAIGN_INVALID"


class CampaignReused(RefusedError):
    """The campaign was begun before, with other content."""

    reason = "CAMPAIGN_REUSED"


class CampaignUnknown(RefusedError):
    """There is no such campaign."""

    reason = "CAMPAIGN_UNKNOWN"


class CustomerUnknown(RefusedError):
    """There is no such customer, or not any more."""

    reason = "CUSTOMER_UNKNOWN"


class Purpose(StrEnum):
    """What one can agree to."""

    EMAIL = "email"


class CampaignTopic(StrEnum):
    """What campaigns are about."""

    OFFERS = "offers"
    ARTICLES = "articles"
    NEWS = "news"


class Frequency(StrEnum):
    """How often one wants campaigns at most."""

    ANY = "any"
    WEEKLY = "weekly"
    MONTHLY = "monthly"


PAUSES = {Frequency.WEEKLY: timedelta(days=7), Frequency.MONTHLY: timedelta(days=30)}
"""So long one who wants campaigns rarely is left alone after one."""


class Audience(StrEnum):
    """Whom campaigns are for, of those who have agreed."""

    EVERYBODY = "everybody"
    BUYERS = "buyers"
    NEWCOMERS = "newcomers"


@dataclass(frozen=True, slots=True)
class EmailPreferences:
    """How one wants to be written to; without topics about everything."""

    frequency: Frequency
    topics: frozenset[CampaignTopic]


@dataclass(frozen=True, slots=True)
class Customer:
    """A customer as marketing needs it."""

    account_id: str
    agreed_to: frozenset[Purpose]
    email_preferences: EmailPreferences
    orders: int
    last_ordered_at: datetime | None


@dataclass(frozen=True, slots=True)
class Consent:
    """What somebody agreed to, or took back, and which text was shown."""

    purpose: Purpose
    granted: bool
    wording: str


@dataclass(frozen=True, slots=True)
class Campaign:
    """What is sent, and to whom. Build it with `campaign`, which checks it."""

    campaign_id: str
    topic: CampaignTopic
    audience: Audience
    subject: str
    text: str


def consent(purpose: Purpose | None, granted: bool, wording: str) -> Consent:
    """Return what somebody agreed to. Raises PurposeInvalid, IdentifierInvalidError."""
    if purpose is None:
        raise PurposeInvalid("purpose must say what is agreed to")
    return Consent(purpose, granted, identifier(wording, "wording"))


def email_preferences(frequency: Frequency | None, topics: Iterable[CampaignTopic | None]) -> EmailPreferences:
    """Return how one wants to be written to. Raises PreferencesInvalid."""
    wanted = frozenset(topics)
    if frequency is None or None in wanted:
        raise PreferencesInvalid("email_preferences must say how often, and topics must be those that there are")
    return EmailPreferences(frequency, frozenset(topic for topic in wanted if topic is not None))


def campaign(
    campaign_id: str, topic: CampaignTopic | None, audience: Audience | None, subject: str, text: str
) -> Campaign:
    """Return a campaign. Raises IdentifierInvalidError, CampaignInvalid."""
    identifier(campaign_id, "campaign_id")
    if topic is None or audience is None:
        raise CampaignInvalid("a campaign must say what it is about, and whom it is for")
    if not subject.strip() or len(subject) > MAX_SUBJECT or not subject.isprintable():
        raise CampaignInvalid(f"subject must have 1 to {MAX_SUBJECT} printable characters")
    if not text.strip() or len(text) > MAX_TEXT or "\0" in text:
        raise CampaignInvalid(f"text must have 1 to {MAX_TEXT} characters")
    return Campaign(campaign_id, topic, audience, subject, text)
