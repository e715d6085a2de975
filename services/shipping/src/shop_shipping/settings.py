"""What can be set for the shipping service beside what every service has; read once, by `__main__.py`."""

from datetime import timedelta

from amends_chassis.settings import Duration, ServiceSettings


class Settings(ServiceSettings):
    """The settings of the shipping service."""

    name: str = "shipping"
    handling_time: Duration = timedelta(0)
    """How long packing a parcel takes before its slot is booked, to see sagas with a slow participant."""
