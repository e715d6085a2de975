"""The settings of the notifications service beside those of every service; read once, by `__main__`."""

from datetime import timedelta
from typing import Self

from amends_chassis.settings import PositiveDuration, ServiceSettings
from amends_resilience import Backoff
from pydantic import Field, SecretStr, model_validator

from shop_notifications.domain import SendingRules
from shop_notifications.letters import sender_of
from shop_notifications.smtp import smtp_server


class Settings(ServiceSettings):
    """The settings of the notifications service."""

    name: str = "notifications"
    max_request_bytes: int | None = Field(default=64 * 1024, ge=1024)
    smtp: SecretStr | None = None
    """The mail server: smtp://HOST:PORT (plain text), smtp+starttls://USER:PASSWORD@HOST:PORT, or smtps://...; None:
    messages wait."""
    smtp_timeout: PositiveDuration = timedelta(minutes=1)
    """How long one transmission may take. Nobody knows what became of one that took longer, nor of one that a process
    has not reported for twice as long."""
    mail_from: str = "The Shop <orders@shop.example>"
    """Who writes. Message-IDs are of its domain."""
    mail_limit: int = Field(default=20, ge=1, le=10_000)
    """So many messages one customer is sent within `mail_limit_window` at most; more of them wait."""
    mail_limit_window: PositiveDuration = timedelta(hours=1)
    mail_max_age: PositiveDuration = timedelta(hours=24)
    """Messages about anything older are not sent."""
    mail_retry_first: PositiveDuration = timedelta(seconds=10)
    """The longest pause after a first attempt that the server did not take; it doubles with each."""
    mail_retry_longest: PositiveDuration = timedelta(minutes=15)
    mail_retention: PositiveDuration = timedelta(days=90)
    """How long messages that came to their end can be looked up."""

    @model_validator(mode="after")
    def _checked(self) -> Self:
        """Refuse what no message could be sent with. Raises ValueError."""
        sender_of(self.mail_from)
        if self.smtp is not None:
            smtp_server(self.smtp.get_secret_value())
        return self

    @property
    def rules(self) -> SendingRules:
        """Return the rules of sending."""
        return SendingRules(
            limit=self.mail_limit,
            window=self.mail_limit_window,
            max_age=self.mail_max_age,
            transmission=self.smtp_timeout,
            again=Backoff(self.mail_retry_first, self.mail_retry_longest),
        )
