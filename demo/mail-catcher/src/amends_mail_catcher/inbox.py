"""The mails that were caught, the newest first; the oldest make room. Filled by `catching`, shown by `showing`."""

import threading
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default

KEPT = 1_000
"""So many mails are kept."""


@dataclass(frozen=True, slots=True)
class CaughtMail:
    """A mail as it came, with what its envelope said."""

    number: int
    sender: str
    recipients: tuple[str, ...]
    content: bytes
    caught_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def message(self) -> EmailMessage:
        """Return the mail, taken apart."""
        return message_from_bytes(self.content, policy=default)

    def header(self, name: str) -> str:
        """Return a header's text; empty when the mail has none, or none that can be read."""
        try:
            return str(self.message[name] or "")
        except (ValueError, LookupError):
            return ""

    def text(self, kind: str) -> str:
        """Return the part that is `plain` text or `html`; empty when there is none, or none that can be read."""
        body = self.message.get_body((kind,))
        try:
            return "" if body is None else str(body.get_content())
        except (ValueError, LookupError):
            return ""


class Inbox:
    """The mails of a server. Threads may use it at once."""

    def __init__(self, kept: int = KEPT) -> None:
        self._mails: deque[CaughtMail] = deque(maxlen=kept)
        self._lock = threading.Lock()
        self._number = 0

    def add(self, sender: str, recipients: tuple[str, ...], content: bytes) -> None:
        """Keep a mail."""
        with self._lock:
            self._number += 1
            self._mails.appendleft(CaughtMail(self._number, sender, recipients, content))

    def mails(self) -> list[CaughtMail]:
        """Return all mails, the newest first."""
        with self._lock:
            return list(self._mails)

    def mail(self, number: int) -> CaughtMail | None:
        """Return a mail by its number, or None."""
        return next((mail for mail in self.mails() if mail.number == number), None)
