"""What can be set for the payments service beside what every service has; read once, by `__main__.py`."""

from datetime import timedelta

from amends_chassis.settings import Duration, ServiceSettings
from pydantic import Field


class Settings(ServiceSettings):
    """The settings of the payments service."""

    name: str = "payments"
    database_pool: int = Field(default=24, ge=1, le=200)
    """More than other services have: a charge holds its connection while the card network thinks."""
    slow_answer: Duration = timedelta(seconds=3)
    """How long the card network takes for the first charge of an order with the test card tok_slow."""
