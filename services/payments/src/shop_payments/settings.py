"""What can be set for the payments service beside what every service has; read once, by `__main__.py`."""

from datetime import timedelta

from amends_chassis.settings import Duration, ServiceSettings


class Settings(ServiceSettings):
    """The settings of the payments service."""

    name: str = "payments"
    slow_answer: Duration = timedelta(seconds=3)
    """How long the card network takes for the first charge of an order with the test card tok_slow."""
