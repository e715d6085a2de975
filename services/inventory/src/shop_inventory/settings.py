"""The settings of the inventory service beside those of every service; read once, by `__main__.py`."""

from amends_chassis.settings import ServiceSettings
from pydantic import Field


class Settings(ServiceSettings):
    """The settings of the inventory service."""

    name: str = "inventory"
    max_request_bytes: int | None = Field(default=64 * 1024, ge=1024)
