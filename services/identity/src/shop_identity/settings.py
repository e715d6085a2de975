"""The settings of the identity service beside those of every service; read once, by `__main__`."""

from datetime import timedelta

from amends_chassis.settings import PositiveDuration, ServiceSettings
from pydantic import Field, SecretStr


class Settings(ServiceSettings):
    """The settings of the identity service."""

    name: str = "identity"
    max_request_bytes: int | None = Field(default=16 * 1024, ge=1024)
    key_secret: SecretStr = Field(min_length=32)
    """Encrypts the signing keys in the database, and hides the addresses of whom attempts are counted for. With another
    secret the keys that are there sign no more, and a new one is made."""
    issuer: str = "http://identity.shop.svc.cluster.local:8080"
    """Who says so in access tokens (`iss`); whoever checks them compares it."""
    audience: str = "shop"
    """Whom access tokens are for (`aud`)."""
    staff: tuple[str, ...] = ()
    """The ids of accounts whose access tokens have the role `staff`, as a JSON list."""
    jwks_port: int = Field(default=0, ge=0, le=65535)
    """Where the public keys are served over HTTP, as /.well-known/jwks.json."""
    access_token_lifetime: PositiveDuration = timedelta(minutes=10)
    session_idle: PositiveDuration = timedelta(days=14)
    """A session that is not refreshed for so long ends."""
    session_lifetime: PositiveDuration = timedelta(days=90)
    """After so long one signs in again."""
    rotate_keys_every: PositiveDuration = timedelta(days=7)
    """How long a key signs before the next one does."""
