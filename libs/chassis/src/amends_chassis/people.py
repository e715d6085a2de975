"""For whom a call is made: the person whose access token it brings. Which people may call which method.

Methods say it in their contract (`amends.options.v1.people`), and the server interceptor holds calls to it. A handler
asks whether it `may_see` what it found, and answers as if there were nothing when it may not. No channel passes a token
on by itself: the gateway puts it into its calls, and events and sagas, whose work goes on after the call, have none.
"""

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from google.protobuf.descriptor_pool import Default

from amends.options.v1 import people_pb2
from amends_chassis.admission import INFRASTRUCTURE
from amends_chassis.context import current_call
from amends_chassis.errors import PermissionDenied, Unauthenticated

AUTHORIZATION = "authorization"
_BEARER = "bearer "
_HOW = "The metadata `authorization` must be Bearer and an access token."


@dataclass(frozen=True, slots=True)
class Principal:
    """Whom an access token was given to, and what it says about them."""

    subject: str
    """The account (`sub`)."""
    issuer: str
    roles: frozenset[str]
    scopes: frozenset[str]
    authenticated_at: datetime
    """When they signed in (`auth_time`)."""
    expires_at: datetime
    token: str = field(repr=False)
    """The token itself, for whoever calls others for them while this call is served."""


class BelievesTokens(Protocol):
    """What says whose a token is."""

    async def verify(self, token: str) -> Principal:
        """Return who shows a token. Raises Unauthenticated or Unavailable."""


_principal: ContextVar[Principal | None] = ContextVar("amends_principal", default=None)


def current_principal() -> Principal | None:
    """Return for whom the call in hand is made; None for a service, and where nobody has to show a token."""
    return _principal.get()


def may_see(owner: str, *roles: str) -> bool:
    """Return whether the call in hand may see what belongs to `owner`.

    The owner may, whoever has one of `roles`, and a call that is made for nobody: it comes from a service.
    """
    principal = _principal.get()
    return principal is None or principal.subject == owner or not principal.roles.isdisjoint(roles)


def whose_alone(*roles: str) -> str:
    """Return of whom alone the call in hand may see things; empty for one that may see everybody's, as in `may_see`."""
    principal = _principal.get()
    return "" if principal is None or not principal.roles.isdisjoint(roles) else principal.subject


class PeopleAccess:
    """Holds the calls of a service to what its methods say about people."""

    def __init__(self, tokens: BelievesTokens, *, required: bool) -> None:
        """Believe what `tokens` does. Unless tokens are required, a call without one is taken for a service's."""
        self._tokens = tokens
        self._required = required

    def gate(self, method: str) -> Callable[[], Awaitable[None]] | None:
        """Return what raises unless the call in hand may be made of `method` ("/package.Service/Method").

        It makes who shows the token the current principal. None for a method that looks at no token.
        """
        if method.startswith(INFRASTRUCTURE):
            return None
        rule = rule_of(method)
        if rule is None:
            return _services_alone
        if rule.anybody:
            return None
        roles, without = frozenset(rule.roles), rule.services or not self._required

        async def look() -> None:
            token = _token()
            if token is None:
                if without:
                    return
                raise Unauthenticated(
                    "TOKEN_MISSING", "The metadata `authorization` must be Bearer and an access token."
                )
            principal = await self._tokens.verify(token)
            if roles and roles.isdisjoint(principal.roles):
                raise PermissionDenied("ROLE_MISSING", f"Only people with the role {' or '.join(sorted(roles))} may.")
            _principal.set(principal)

        return look


def rule_of(method: str) -> people_pb2.People | None:
    """Return what a method ("/package.Service/Method") says about people; None: it is for services alone."""
    try:
        found = Default().FindMethodByName(method[1:].replace("/", "."))
    except KeyError:
        return None
    options = found.GetOptions()
    return options.Extensions[people_pb2.people] if options.HasExtension(people_pb2.people) else None


async def _services_alone() -> None:
    if _token() is not None:
        raise PermissionDenied("NOT_FOR_PEOPLE", "Services call this method, for nobody: it takes no access token.")


def _token() -> str | None:
    """Return the access token of the call in hand, None when it brings none. Raises Unauthenticated."""
    call = current_call()
    given = [] if call is None else [value for name, value in call.metadata if name == AUTHORIZATION]
    if not given:
        return None
    value = given[0]
    if len(given) > 1 or not isinstance(value, str) or not value.lower().startswith(_BEARER):
        raise Unauthenticated("TOKEN_MALFORMED", _HOW)
    return value[len(_BEARER) :].strip()
