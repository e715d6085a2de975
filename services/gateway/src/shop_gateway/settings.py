"""The settings of the gateway beside those of every service; read once, by `__main__`."""

from datetime import timedelta

from amends_chassis.settings import PositiveDuration, ServiceSettings
from pydantic import Field, SecretStr


class Settings(ServiceSettings):
    """The settings of the gateway."""

    name: str = "gateway"
    http_port: int = Field(default=0, ge=0, le=65535)
    """Where REST and pages are served."""
    catalog_target: str
    """Where articles, categories and prices are."""
    customers_target: str
    """Where addresses and payment methods are."""
    identity_target: str
    """Where accounts and sessions are."""
    inventory_target: str
    """Where it is known how much there is of an article."""
    marketing_target: str
    """Where consents are."""
    notifications_target: str
    """Where it is known what a customer was written."""
    orders_target: str
    """Where orders are, and the copies of articles by which they are priced."""
    search_target: str
    """Where articles are found by words."""
    cookie_secret: SecretStr = Field(min_length=32)
    """Seals what browsers keep for pages; all replicas have the same. With another one everybody signs in again."""
    rate_per_address: float = Field(default=50, gt=0)
    """How many requests a second one address may make in the long run, in each process of the gateway."""
    rate_per_account: float = Field(default=50, gt=0)
    """The same for one account, wherever it asks from."""
    trusted_proxies: int = Field(default=0, ge=0, le=8)
    """How many proxies of ours are in front of this. Each adds to x-forwarded-for who asked it, so the client is at
    this place from its end; what stands before anybody may have written. 0: the header is not looked at."""
    most_streams: int = Field(default=1_000, ge=1)
    """How many clients are told the progress of orders at once, in each process."""
    request_timeout: PositiveDuration = timedelta(seconds=10)
    """How long a request may take in all, its body included. Calls behind get what is left of it as their deadline."""
    max_body_bytes: int = Field(default=256 * 1024, ge=1024)
    max_header_bytes: int = Field(default=16 * 1024, ge=1024)
    """Of the request line and all headers together."""
