"""The settings of the search service beside those of every service; read once, by `__main__.py`."""

from datetime import timedelta

from amends_chassis.settings import Duration, ServiceSettings
from pydantic import Field


class Settings(ServiceSettings):
    """The settings of the search service."""

    name: str = "search"
    max_request_bytes: int | None = Field(default=64 * 1024, ge=1024)
    catalog_target: str
    """Where articles are exported, for an index that cannot begin with the log; never asked when somebody searches."""
    inventory_target: str
    """Where stock is exported, as above."""
    keep_retired: Duration = timedelta(hours=1)
    """How long an index is kept after another has taken its place."""
