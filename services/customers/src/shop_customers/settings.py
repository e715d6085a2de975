"""The settings of the customers service beside those of every service; read once, by `__main__.py`."""

from amends_chassis.settings import ServiceSettings
from pydantic import Field, SecretStr


class Settings(ServiceSettings):
    """The settings of the customers service."""

    name: str = "customers"
    max_request_bytes: int | None = Field(default=64 * 1024, ge=1024)
    cache_url: SecretStr | None = None
    """The service's own Redis, redis://USER:PASSWORD@HOST:PORT; None: each process remembers for itself alone."""
