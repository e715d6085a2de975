"""What is decided about a message without a database or a mail server."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from shop_notifications.domain import (
    DELIVERY,
    ERASED,
    NO_ADDRESS,
    TOO_MANY,
    TOO_OLD,
    Contact,
    MailGuarantee,
    MailTemplate,
    Notice,
    Notification,
    NotificationState,
    SendingRules,
    SendLater,
    SendNever,
    SendNow,
    ServerReply,
    after,
    decide,
)

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
ADA = Contact("ada@example.org", "en")
RULES = SendingRules(limit=2, window=timedelta(hours=1), max_age=timedelta(hours=24))
EVENT = UUID("01890a5d-ac96-774b-bcce-b302099a8057")


def due(age: timedelta = timedelta(0)) -> Notification:
    return Notification(
        EVENT, EVENT, NOW - age, MailTemplate.ORDER_CONFIRMED, {}, "o-1", "ada", NotificationState.DUE, "<1@a>", 0,
        NOW, "", None,
    )  # fmt: skip


def minutes(*ago: int) -> list[datetime]:
    return [NOW - timedelta(minutes=one) for one in ago]


def test_a_message_with_an_address_is_sent():
    assert decide(due(), ADA, [], NOW, RULES) == SendNow(ADA)


@pytest.mark.parametrize("contact", [None, Contact("", "en")])
def test_without_an_address_a_message_waits_longer_and_longer(contact):
    def pause(age: timedelta) -> timedelta:
        decision = decide(due(age), contact, [], NOW, RULES)
        assert isinstance(decision, SendLater)
        assert decision.why == NO_ADDRESS
        return decision.until - NOW

    ages = (timedelta(0), timedelta(seconds=30), timedelta(hours=3))
    assert [pause(age) for age in ages] == [timedelta(seconds=1), timedelta(seconds=30), timedelta(minutes=5)]


@pytest.mark.parametrize("contact", [None, ADA])
def test_what_is_a_day_old_is_not_told(contact):
    assert decide(due(timedelta(hours=24)), contact, [], NOW, RULES) == SendNever(TOO_OLD)
    assert decide(due(timedelta(hours=24, seconds=-1)), ADA, [], NOW, RULES) == SendNow(ADA)


def test_nobody_writes_to_who_was_erased():
    assert decide(due(), Contact("", "", erased=True), [], NOW, RULES) == SendNever(ERASED)


def test_beyond_the_limit_a_message_waits_until_the_window_has_room():
    assert decide(due(), ADA, minutes(1), NOW, RULES) == SendNow(ADA)
    assert decide(due(), ADA, minutes(1, 20), NOW, RULES) == SendLater(NOW + timedelta(minutes=40), TOO_MANY)


@pytest.mark.parametrize(
    ("reply", "transactional", "marketing"),
    [
        (ServerReply.TAKEN, (NotificationState.SENT, False), (NotificationState.SENT, False)),
        (ServerReply.LATER, (NotificationState.DUE, True), (NotificationState.DUE, True)),
        (ServerReply.REFUSED, (NotificationState.REFUSED, False), (NotificationState.REFUSED, False)),
        (ServerReply.UNKNOWN, (NotificationState.UNKNOWN, True), (NotificationState.UNKNOWN, False)),
    ],
)
def test_the_template_says_whether_an_unknown_outcome_is_tried_again(reply, transactional, marketing):
    assert after(MailTemplate.ORDER_CONFIRMED, reply) == transactional
    assert after(MailTemplate.CAMPAIGN, reply) == marketing


def test_marketing_alone_is_sent_at_most_once():
    assert set(DELIVERY) == set(MailTemplate)
    at_most_once = {template for template, guarantee in DELIVERY.items() if guarantee is MailGuarantee.AT_MOST_ONCE}
    assert at_most_once == {MailTemplate.CAMPAIGN}


def test_the_same_event_makes_the_same_message_of_a_template():
    first, again, other = (
        Notice(EVENT, NOW, template, {}).notification_id
        for template in (MailTemplate.ORDER_CONFIRMED, MailTemplate.ORDER_CONFIRMED, MailTemplate.ORDER_REJECTED)
    )
    assert first == again
    assert first != other
