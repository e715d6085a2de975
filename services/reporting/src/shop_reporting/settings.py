"""The settings of the reporting service beside those of every service; read once, by `__main__.py` or `command.py`."""

from datetime import timedelta

from amends_chassis.settings import Duration, PositiveDuration, ServiceSettings


class Settings(ServiceSettings):
    """The settings of the reporting service."""

    name: str = "reporting"
    orders_target: str
    """Where orders are exported; the next three export what they know of the same orders."""
    inventory_target: str
    payments_target: str
    shipping_target: str
    stuck_after: PositiveDuration = timedelta(minutes=2)
    """An order in which something is still to come after this long is stuck: twice the deadline of an order."""
    keep_retired: Duration = timedelta(days=1)
    """How long a projection is kept after another has taken its place."""
