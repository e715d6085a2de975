"""Puts the identity service together. Called by `__main__`."""

from amends_chassis.service import Runtime

from shop.identity.v1.identity_pb2_grpc import add_IdentityServiceServicer_to_server
from shop_identity import jwks
from shop_identity.accounts import Accounts
from shop_identity.api import IdentityService
from shop_identity.events import PUBLISHES
from shop_identity.keys import KeySecret, SigningKeys
from shop_identity.passwords import Passwords
from shop_identity.settings import Settings
from shop_identity.tokens import AccessTokens


async def assemble(settings: Settings, runtime: Runtime) -> None:
    """Put the service's parts together."""
    database, lifetime = runtime.database, settings.access_token_lifetime
    secret = KeySecret(settings.key_secret.get_secret_value())
    keys = SigningKeys(database, secret, every=settings.rotate_keys_every, tokens_live=lifetime)
    await keys.refresh()
    accounts = Accounts(database, runtime.publishes("/shop/identity", *PUBLISHES), Passwords(), secret, settings)
    tokens = AccessTokens(settings.issuer, settings.audience, lifetime, lambda: keys.keyring)
    servicer = IdentityService(accounts, tokens, frozenset(settings.staff))
    runtime.add(add_IdentityServiceServicer_to_server, servicer, "shop.identity.v1.IdentityService")
    runtime.serve_http("jwks", jwks.serving(lambda: keys.keyring), settings.jwks_port)
    runtime.background("keys", keys.run)
    runtime.background("expiry", accounts.expire)
