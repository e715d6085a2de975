"""Access tokens: whether one is believed, and who shows it.

A token is a JWT of one issuer, signed with ES256 (RFC 9068: its type is `at+jwt`). It is checked here, without asking
anybody: signature, type, issuer, audience, times, and that every claim that is needed is there. `Runtime.tokens` has
the verifier of a service that is told who gives out tokens; the server interceptor uses it, and so does the gateway.
"""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
from prometheus_client import CollectorRegistry, Counter

from amends_chassis.errors import Unauthenticated, Unavailable
from amends_chassis.issuer import ALGORITHM, IssuerKeys
from amends_chassis.people import Principal

TYPE = "at+jwt"
LEEWAY = timedelta(seconds=30)
"""So far the clocks of two machines may be apart."""
MAX_TOKEN = 4096
REQUIRED = ("iss", "aud", "sub", "iat", "exp", "jti", "auth_time")
REMEMBERED_FOR = timedelta(seconds=60)
REMEMBERED = 4096
"""So many tokens are remembered as verified; those that were verified first make room."""


@dataclass(frozen=True, slots=True)
class _Remembered:
    principal: Principal
    kid: str
    until: float


class TokenVerifier:
    """Believes the access tokens of one issuer for one audience."""

    def __init__(
        self,
        issuer: str,
        audience: str,
        keys: IssuerKeys,
        registry: CollectorRegistry,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Compare `iss` and `aud` with these, exactly. `clock` gives seconds since 1970."""
        self.keys = keys
        self._issuer = issuer
        self._audience = audience
        self._clock = clock
        self._remembered: OrderedDict[bytes, _Remembered] = OrderedDict()
        self._outcomes = Counter(
            "amends_access_tokens", "Access tokens that were looked at.", ["outcome"], registry=registry
        )
        self._again = self._outcomes.labels("remembered")
        keys.on_gone = self._forget

    async def verify(self, token: str) -> Principal:
        """Return who shows a token.

        Raises Unauthenticated, with a reason that says what is wrong with it, and Unavailable (ISSUER_UNREACHABLE)
        when the key that it names cannot be asked for.
        """
        digest = hashlib.sha256(token.encode(errors="replace")).digest()
        found = self._remembered.get(digest)
        if found is not None and self._clock() < found.until:
            self._again.inc()
            return found.principal
        try:
            principal, kid = await self._verify(token)
        except (Unauthenticated, Unavailable) as refused:
            self._outcomes.labels(refused.reason.lower()).inc()
            raise
        self._outcomes.labels("verified").inc()
        self._remember(digest, principal, kid)
        return principal

    async def _verify(self, token: str) -> tuple[Principal, str]:
        kid = _kid(token)
        key = await self.keys.named(kid)
        if key is None:
            raise Unauthenticated("TOKEN_KEY_UNKNOWN", "The access token names a key that its issuer does not have.")
        try:
            claims = claims_in(token, key, self._issuer, self._audience)
        except jwt.InvalidTokenError as error:
            raise _meaning(error) from error
        return _principal_of(claims, token), kid

    def _remember(self, digest: bytes, principal: Principal, kid: str) -> None:
        until = min(principal.expires_at.timestamp(), self._clock() + REMEMBERED_FOR.total_seconds())
        self._remembered.pop(digest, None)
        self._remembered[digest] = _Remembered(principal, kid, until)
        if len(self._remembered) > REMEMBERED:
            self._remembered.popitem(last=False)

    def _forget(self, kids: frozenset[str]) -> None:
        """Forget what was verified with these keys."""
        for digest in [digest for digest, one in self._remembered.items() if one.kid in kids]:
            del self._remembered[digest]


def claims_in(token: str, key: Any, issuer: str, audience: str) -> dict[str, Any]:
    """Return what a token says that was signed with the private half of `key`.

    It has each claim of REQUIRED, and is for this audience and for now. Raises jwt.InvalidTokenError.
    """
    claims: dict[str, Any] = jwt.decode(
        token,
        key,
        algorithms=[ALGORITHM],
        audience=audience,
        issuer=issuer,
        leeway=LEEWAY,
        options={"require": list(REQUIRED)},
    )
    return claims


def _kid(token: str) -> str:
    """Return the name of the key that a token says it is signed with. Raises Unauthenticated."""
    if len(token) > MAX_TOKEN or not token.isascii():
        raise _malformed(f"An access token has at most {MAX_TOKEN} characters of ASCII.")
    try:
        header = jwt.get_unverified_header(token)
    except jwt.InvalidTokenError as error:
        raise _malformed("The access token is no signed JWT.") from error
    if header.get("alg") != ALGORITHM:
        raise Unauthenticated("TOKEN_ALGORITHM_WRONG", f"Access tokens are signed with {ALGORITHM}.")
    kid = header.get("kid")
    if header.get("typ") != TYPE or not isinstance(kid, str) or "crit" in header:
        raise _malformed(f"An access token is of the type {TYPE} and names its key.")
    return kid


def _principal_of(claims: Mapping[str, Any], token: str) -> Principal:
    subject, roles, scope = claims["sub"], claims.get("roles", []), claims.get("scope", "")
    if not subject:  # it would see everything, as a call does that is made for nobody
        raise _malformed("The access token is of nobody.")
    if not (isinstance(roles, list) and all(isinstance(role, str) for role in roles) and isinstance(scope, str)):
        raise _malformed("A claim of the access token has another form than it must.")
    try:
        authenticated_at = datetime.fromtimestamp(int(claims["auth_time"]), UTC)
        expires_at = datetime.fromtimestamp(int(claims["exp"]), UTC)
    except (ValueError, TypeError, OverflowError, OSError) as error:
        raise _malformed("A moment in the access token is none.") from error
    return Principal(
        subject, claims["iss"], frozenset(roles), frozenset(scope.split()), authenticated_at, expires_at, token
    )


def _meaning(error: jwt.InvalidTokenError) -> Unauthenticated:
    match error:
        case jwt.ExpiredSignatureError():
            return Unauthenticated("TOKEN_EXPIRED", "The access token has expired.")
        case jwt.ImmatureSignatureError() | jwt.InvalidIssuedAtError():
            return Unauthenticated("TOKEN_NOT_VALID_YET", "The access token is not valid yet.")
        case jwt.InvalidAudienceError():
            return Unauthenticated("TOKEN_AUDIENCE_WRONG", "The access token is for somebody else.")
        case jwt.InvalidIssuerError():
            return Unauthenticated("TOKEN_ISSUER_WRONG", "The access token is of an issuer that is not believed here.")
        case jwt.InvalidSignatureError():
            return Unauthenticated("TOKEN_SIGNATURE_WRONG", "The access token is not signed by the key that it names.")
        case jwt.MissingRequiredClaimError():
            return Unauthenticated("TOKEN_CLAIM_MISSING", "The access token does not say all that it must.")
        case _:
            return _malformed("The access token cannot be read.")


def _malformed(message: str) -> Unauthenticated:
    return Unauthenticated("TOKEN_MALFORMED", message)
