"""The texts, in every language, whatever is filled into them."""

import re
from datetime import UTC, datetime
from email import message_from_bytes, policy
from uuid import uuid4

import pytest
from shop_notifications.domain import Contact, MailTemplate, Notification, NotificationState
from shop_notifications.letters import LOCALES, AddressInvalidError, Letters, language, sender_of
from shop_notifications.letters import _read as read

from .world import FROM, PARAMETERS

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
NASTY = "x\r\nBcc: everybody@example.org\r\n\r\n<script>alert(1)</script> & $order ${nothing} 茶"


@pytest.fixture(scope="module")
def letters() -> Letters:
    return Letters(FROM)


def written(letters: Letters, template: MailTemplate, parameters=None, email="ada@example.org", locale="en"):
    told = PARAMETERS[template] if parameters is None else parameters
    notification = Notification(
        uuid4(), uuid4(), NOW, template, told, "o-1", "ada", NotificationState.SENDING, "<1@shop.example>", 1, NOW, "",
        None,
    )  # fmt: skip
    letter = letters.compose(notification, Contact(email, locale), NOW)
    return letter, message_from_bytes(letter.content, policy=policy.default)


def parts(message) -> tuple[str, str]:
    return tuple(message.get_body((kind,)).get_content().replace("\r\n", "\n") for kind in ("plain", "html"))


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("template", MailTemplate)
def test_every_text_is_there_in_every_language_and_says_the_same(letters, template, locale):
    letter, message = written(letters, template, locale=locale)
    assert (letter.sender, letter.recipient) == ("orders@shop.example", "ada@example.org")
    assert message["Message-ID"] == "<1@shop.example>"
    assert message["Content-Language"] == locale
    assert message["From"] == FROM
    assert message["Date"].datetime == NOW
    plain, html = parts(message)
    for name, value in PARAMETERS[template].items():
        if name not in ("reason", "subject"):
            assert value in plain
            assert value in html
    assert f'lang="{locale}"' in html
    assert "$" not in message["Subject"] + plain + html
    assert letter.content.isascii()


@pytest.mark.parametrize("template", MailTemplate)
def test_the_languages_ask_for_the_same_parameters(template):
    def asked(locale: str) -> set[str]:
        return set(re.findall(r"\$(\w+)", read(locale, f"{template}.txt") + read(locale, f"{template}.html")))

    assert asked("en") == asked("de") == set(PARAMETERS[template])


def test_the_reason_is_in_the_language_of_the_customer_also_when_it_is_a_new_one(letters):
    def reason(code: str, locale: str) -> str:
        told = {"order": "o-1", "reason": code}
        return parts(written(letters, MailTemplate.ORDER_REJECTED, told, locale=locale)[1])[0]

    assert "sold out" in reason("OUT_OF_STOCK", "en")
    assert "ausverkauft" in reason("OUT_OF_STOCK", "de-AT")
    assert "on our side" in reason("NEVER_HEARD_OF", "en")
    assert "on our side" in reason("", "fr")


@pytest.mark.parametrize("template", MailTemplate)
def test_nothing_that_is_filled_in_becomes_a_header_or_html(letters, template):
    letter, message = written(letters, template, dict.fromkeys(PARAMETERS[template], NASTY))
    assert "bcc" not in {name.lower() for name in message}
    assert len(message.get_all("Subject")) == 1
    head = letter.content.partition(b"\r\n\r\n")[0].lower()
    assert b"\nbcc:" not in head
    plain, html = parts(message)
    assert "<script" not in html
    if template is not MailTemplate.ORDER_REJECTED:  # whose reason is one of ours
        assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; $order ${nothing} 茶" in html
        assert "茶" in plain


@pytest.mark.parametrize(
    "email",
    [
        "",
        "ada",
        "ada@",
        "ada@example.org\r\nBcc: everybody@example.org",
        "ada@example.org>\r\nRCPT TO:<everybody@example.org",
        "ada@example.org, everybody@example.org",
        "<ada@example.org>",
        "ada example@example.org",
        '"ada\r\n"@example.org',
        "ädä@example.org",
        f"{'a' * 65}@example.org",
        f"a@{'a.' * 130}org",
    ],
)
def test_an_address_that_is_none_is_refused(letters, email):
    with pytest.raises(AddressInvalidError):
        written(letters, MailTemplate.ORDER_CONFIRMED, email=email)


def test_a_sender_that_is_none_is_refused():
    assert sender_of("orders@shop.example").addr_spec == "orders@shop.example"
    with pytest.raises(AddressInvalidError):
        sender_of("The Shop")


def test_who_speaks_another_language_is_written_to_in_the_first_one():
    spoken = {tag: language(tag) for tag in ("de", "DE", "de-AT", "en-GB", "fr", "", "deutsch")}
    assert spoken == {"de": "de", "DE": "de", "de-AT": "de", "en-GB": "en", "fr": "en", "": "en", "deutsch": "en"}
