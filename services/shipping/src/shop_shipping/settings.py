"""The settings of the shipping service beside those of every service; read once, by `__main__.py`."""

from datetime import timedelta

from amends_chassis.settings import Duration, ServiceSettings
from pydantic import Field


class Settings(ServiceSettings):
    """The settings of the shipping service."""

    name: str = "shipping"
    max_request_bytes: int | None = Field(default=64 * 1024, ge=1024)
    handling_time: Duration = timedelta(0)
    """How long packing a parcel takes before its slot is booked, to see sagas with a slow participant."""
