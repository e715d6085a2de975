"""Access tokens: what they say, how they are signed, and when one is believed.

They are JWTs with ES256 (RFC 7519, RFC 7518), and have the type `at+jwt` of RFC 9068. Services check them with the
public keys alone; this service checks those that it is shown by the same rules.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
from amends_chassis.issuer import ALGORITHM
from amends_chassis.tokens import MAX_TOKEN, TYPE, claims_in
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey

from shop_identity.domain import TokenInvalid


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key as this process knows it."""

    kid: str
    public_key: EllipticCurvePublicKey
    private_key: EllipticCurvePrivateKey | None = field(repr=False)
    """None for one that cannot be decrypted: it signs nothing, and what it signed is believed until it has gone."""
    signs_from: datetime

    def jwk(self) -> dict[str, Any]:
        """Return the public half as RFC 7517 has it."""
        made: dict[str, Any] = jwt.algorithms.ECAlgorithm.to_jwk(self.public_key, as_dict=True)
        return made | {"kid": self.kid, "use": "sig", "alg": ALGORITHM}


@dataclass(frozen=True, slots=True)
class Keyring:
    """The keys of a moment: those that sign now or soon, and those whose tokens still live."""

    keys: Sequence[SigningKey] = ()

    def signer(self, now: datetime) -> SigningKey | None:
        """Return the key that signs at a moment: the newest that may. None when no key can sign.

        Before the first of all may, as the clock of another replica sees it, it is that one.
        """
        able = sorted((key for key in self.keys if key.private_key is not None), key=lambda key: key.signs_from)
        begun = [key for key in able if key.signs_from <= now]
        return next(iter(begun[-1:] or able), None)

    def named(self, kid: object) -> SigningKey | None:
        """Return the key of that name."""
        return next((key for key in self.keys if key.kid == kid), None)


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A token that was given out."""

    text: str = field(repr=False)
    expires_at: datetime


class AccessTokens:
    """Signs access tokens, and believes those that it signed."""

    def __init__(
        self,
        issuer: str,
        audience: str,
        lifetime: timedelta,
        keyring: Callable[[], Keyring],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Sign as `issuer` for `audience`, with the keys that there are when a token is asked for."""
        self._issuer = issuer
        self._audience = audience
        self._lifetime = lifetime
        self._keyring = keyring
        self._clock = clock

    def sign(self, account_id: str, signed_in_at: datetime, roles: Sequence[str]) -> AccessToken:
        """Return a token for an account. Raises LookupError while no key can sign."""
        now = self._clock()
        key = self._keyring().signer(now)
        if key is None or key.private_key is None:
            raise LookupError("there is no key to sign with")
        expires_at = now.replace(microsecond=0) + self._lifetime
        claims: Mapping[str, Any] = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": account_id,
            "iat": now,
            "exp": expires_at,
            "auth_time": int(signed_in_at.timestamp()),
            "jti": secrets.token_urlsafe(16),
            "roles": list(roles),
        }
        text = jwt.encode(dict(claims), key.private_key, ALGORITHM, headers={"typ": TYPE, "kid": key.kid})
        return AccessToken(text, expires_at)

    def account_of(self, token: str) -> str:
        """Return the account that a token was given to. Raises TokenInvalid, without saying what is wrong with it."""
        try:
            if len(token) > MAX_TOKEN:
                raise TokenInvalid("the access token is not valid")
            header = jwt.get_unverified_header(token)
            key = self._keyring().named(header.get("kid"))
            if key is None or header.get("typ") != TYPE:
                raise TokenInvalid("the access token is not valid")
            claims = claims_in(token, key.public_key, self._issuer, self._audience)
        except jwt.InvalidTokenError as error:
            raise TokenInvalid("the access token is not valid") from error
        return str(claims["sub"])
