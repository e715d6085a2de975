"""The texts: from a notification and a contact to a mail. Called by `sender`.

Each template has in each language a file of plain text, whose first line is the subject, and one of HTML. `$name`
stands for a parameter. Whatever is filled into HTML is escaped, and whatever is filled into a header is one line.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr
from html import escape
from importlib.resources import files
from string import Template as Text
from typing import Final

from shop_notifications.domain import DELIVERY, Contact, MailGuarantee, MailTemplate, Notification

LOCALES: Final = ("en", "de")
"""The first is for whoever speaks none of them."""
_ADDRESS: Final = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")
_LONGEST_ADDRESS: Final = 254
_LONGEST_SUBJECT: Final = 200
_SEVEN_BIT: Final = SMTP.clone(cte_type="7bit")
"""No server need be able to do more."""
ELSE: Final = "ELSE"
"""The reason that stands for any that has no sentence of its own."""


class AddressInvalidError(ValueError):
    """Nobody can be written to at such an address."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A mail, ready to be transmitted."""

    sender: str
    recipient: str
    content: bytes


@dataclass(frozen=True, slots=True)
class _Texts:
    subject: Text
    plain: Text
    html: Text


def sender_of(mail_from: str) -> Address:
    """Return the address of who writes, as `Name <name@domain>` or `name@domain`. Raises AddressInvalidError."""
    name, address = parseaddr(mail_from)
    return Address(name, addr_spec=checked_address(address))


def checked_address(address: str) -> str:
    """Return an address that fits into a header and a command of SMTP as it is. Raises AddressInvalidError."""
    if len(address) > _LONGEST_ADDRESS or not _ADDRESS.fullmatch(address):
        raise AddressInvalidError("the address is none that can be written to")
    return address


class Letters:
    """All texts, read once."""

    def __init__(self, mail_from: str) -> None:
        """Read the texts of every template in every language. Raises AddressInvalidError for `mail_from`."""
        self._from = sender_of(mail_from)
        self._texts = {(template, locale): _texts(template, locale) for template in MailTemplate for locale in LOCALES}
        self._reasons = {locale: _reasons(locale) for locale in LOCALES}

    @property
    def domain(self) -> str:
        """Return the domain that mails are sent from."""
        return self._from.domain

    def compose(self, notification: Notification, contact: Contact, now: datetime) -> Letter:
        """Write a mail in the customer's language. Raises AddressInvalidError, KeyError for a missing parameter."""
        locale = language(contact.locale)
        texts = self._texts[notification.template, locale]
        told = self._told(notification.parameters, locale)
        message = EmailMessage(policy=_SEVEN_BIT)
        message["From"] = self._from
        message["To"] = Address(addr_spec=checked_address(contact.email))
        message["Subject"] = one_line(texts.subject.substitute(told))[:_LONGEST_SUBJECT]
        message["Date"] = format_datetime(now)
        message["Message-ID"] = notification.message_id
        if DELIVERY[notification.template] is MailGuarantee.AT_LEAST_ONCE:
            message["Auto-Submitted"] = "auto-generated"
        message.set_content(texts.plain.substitute(told))
        message.add_alternative(texts.html.substitute(in_html(told)), subtype="html")
        message["Content-Language"] = locale
        return Letter(self._from.addr_spec, contact.email, message.as_bytes())

    def _told(self, parameters: Mapping[str, str], locale: str) -> dict[str, str]:
        told = dict(parameters)
        if "reason" in told:
            reasons = self._reasons[locale]
            told["reason"] = reasons.get(told["reason"], reasons[ELSE])
        return told


def language(locale: str) -> str:
    """Return the language of LOCALES for a BCP 47 tag: `de` for de-AT."""
    spoken = locale.partition("-")[0].lower()
    return spoken if spoken in LOCALES else LOCALES[0]


def one_line(text: str) -> str:
    """Return a text without line breaks and other control characters."""
    return "".join(character for character in " ".join(text.split()) if character.isprintable())


def in_html(told: Mapping[str, str]) -> dict[str, str]:
    """Return parameters as HTML that shows them and obeys nothing in them; line breaks stay."""
    return {name: escape(value).replace("\n", "<br>\n") for name, value in told.items()}


def _read(*path: str) -> str:
    return files("shop_notifications.templates").joinpath(*path).read_text(encoding="utf-8")


def _texts(template: MailTemplate, locale: str) -> _Texts:
    subject, _, plain = _read(locale, f"{template}.txt").partition("\n")
    return _Texts(Text(subject.strip()), Text(plain.lstrip("\n")), Text(_read(locale, f"{template}.html")))


def _reasons(locale: str) -> dict[str, str]:
    """Return why an order is rejected, in words, by the code of the event."""
    lines = (line.partition(":") for line in _read(locale, "reasons.txt").splitlines() if line.strip())
    return {code.strip(): words.strip() for code, _, words in lines}
