"""The settings of the payments service beside those of every service; read once, by `__main__.py`."""

from datetime import timedelta

from amends_chassis.settings import Duration, PositiveDuration, ServiceSettings
from pydantic import Field


class Settings(ServiceSettings):
    """The settings of the payments service."""

    name: str = "payments"
    max_request_bytes: int | None = Field(default=64 * 1024, ge=1024)
    slow_answer: Duration = timedelta(seconds=3)
    """How long the card network takes for the first charge of an order with the test card tok_slow."""
    charge_every: PositiveDuration = timedelta(milliseconds=500)
    """How often charges are looked for that another replica was asked for, or that have to be asked for again."""
