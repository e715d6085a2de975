"""What can be set for the inventory service beside what every service has; read once, by `__main__.py`."""

from amends_chassis.settings import ServiceSettings


class Settings(ServiceSettings):
    """The settings of the inventory service."""

    name: str = "inventory"
