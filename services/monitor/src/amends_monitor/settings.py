"""The settings of the monitor beside those of every service; read once, by `__main__.py`."""

from datetime import timedelta

from amends_chassis.settings import Duration, PositiveDuration, ServiceSettings
from pydantic import Field


class Settings(ServiceSettings):
    """The settings of the monitor."""

    name: str = "monitor"
    grace: Duration = timedelta(seconds=2)
    """How long after it was due an event may still come before its flow is late: on its way, by clocks that differ."""
    retention: PositiveDuration = timedelta(days=30)
    """How long flows are kept after their last event, once they have ended."""
    database_pool: int = Field(default=8, ge=4, le=200)
