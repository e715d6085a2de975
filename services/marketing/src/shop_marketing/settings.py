"""The settings of the marketing service beside those of every service; read once, by `__main__`."""

from datetime import timedelta

from amends_chassis.settings import PositiveDuration, ServiceSettings
from pydantic import Field


class Settings(ServiceSettings):
    """The settings of the marketing service."""

    name: str = "marketing"
    max_request_bytes: int | None = Field(default=128 * 1024, ge=1024)
    look_for_campaigns_every: PositiveDuration = timedelta(seconds=2)
    """How often each replica looks for a campaign that goes on."""
