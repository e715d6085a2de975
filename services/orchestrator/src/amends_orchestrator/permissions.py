"""Who may do what with whose runs and definitions: roles in namespaces, for the identity in a caller's certificate.

The roles are a file that is read again when it changes (AMENDS_ROLES); without one whoever can connect may do all:

    {"bindings": [{"subjects": ["spiffe://amends.local/ns/shop/sa/orders"], "namespaces": ["shop"],
                   "roles": ["operator"]}]}

A namespace that a caller may not read does not exist for it: its runs are unknown, and lists leave them out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum

from amends_chassis.errors import NotFound, PermissionDenied
from amends_chassis.followed import RulesError, entries, texts

EVERY = "*"
"""As a namespace: all of them."""


class Role(StrEnum):
    """What a caller may do in a namespace."""

    VIEWER = "viewer"
    """Read runs and definitions, without payloads."""
    OPERATOR = "operator"
    """Start, resolve and cancel runs, and read them."""
    DEFINER = "definer"
    """Apply and delete definitions, and read them."""
    PAYLOAD_READER = "payload-reader"
    """See inputs and responses of runs, and read them."""
    ADMIN = "admin"
    """All of these."""


METHODS: Mapping[str, Role] = {
    "StartRun": Role.OPERATOR,
    "GetRun": Role.VIEWER,
    "ListRuns": Role.VIEWER,
    "WatchRun": Role.VIEWER,
    "ReadPayload": Role.PAYLOAD_READER,
    "ResolveRun": Role.OPERATOR,
    "CancelRun": Role.OPERATOR,
    "CheckSaga": Role.VIEWER,
    "ApplySaga": Role.DEFINER,
    "ListSagas": Role.VIEWER,
    "DeleteSaga": Role.DEFINER,
    "ApplyParticipant": Role.DEFINER,
    "ListParticipants": Role.VIEWER,
    "DeleteParticipant": Role.DEFINER,
    "ApplyRetryPolicy": Role.DEFINER,
    "ListRetryPolicies": Role.VIEWER,
    "DeleteRetryPolicy": Role.DEFINER,
    "ListWebhooks": Role.ADMIN,
    "TestWebhook": Role.ADMIN,
    "ListParkedWebhooks": Role.ADMIN,
    "DecideWebhook": Role.ADMIN,
    "ReplayWebhook": Role.ADMIN,
    "ListTopics": Role.ADMIN,
    "ListLag": Role.ADMIN,
    "ListParked": Role.ADMIN,
    "GetParked": Role.ADMIN,
    "DecideParked": Role.ADMIN,
    "Replay": Role.ADMIN,
    "ListOutbox": Role.ADMIN,
    "SkipOutbox": Role.ADMIN,
    "Republish": Role.ADMIN,
    "ListDecisions": Role.ADMIN,
}
"""The role that each method takes: in the namespace that it is about, ADMIN in all of them."""

Bindings = Mapping[str, Mapping[str, frozenset[Role]]]
"""Roles by subject and namespace."""


@dataclass(frozen=True, slots=True)
class Permissions:
    """What one caller may do."""

    identity: str
    """The SPIFFE id of its certificate; empty without one."""
    roles: Mapping[str, frozenset[Role]]
    """Roles by namespace, EVERY among them."""

    def may(self, role: Role, namespace: str) -> bool:
        """Return whether the caller has a role in a namespace; each role includes the viewer's."""
        has = self.roles.get(namespace, frozenset()) | self.roles.get(EVERY, frozenset())
        return bool(has & {role, Role.ADMIN}) or (role is Role.VIEWER and bool(has))

    def require(self, role: Role, namespace: str) -> None:
        """Raise PermissionDenied unless the caller has a role in a namespace."""
        if not self.may(role, namespace):
            raise PermissionDenied(
                "ROLE_MISSING",
                f"{self.identity or 'Who shows no certificate'} needs the role {role} in the namespace {namespace}.",
                identity=self.identity,
                role=role,
                namespace=namespace,
            )

    def require_somewhere(self, role: Role) -> None:
        """Raise PermissionDenied unless the caller has a role in any namespace."""
        if not any(self.may(role, namespace) for namespace in self.roles):
            self.require(role, EVERY)

    def require_of_run(self, role: Role, namespace: str) -> None:
        """Raise as `require` does; NotFound when the caller may not even read the run's namespace."""
        if not self.may(Role.VIEWER, namespace):
            raise NotFound("RUN_UNKNOWN", "There is no such run.")
        self.require(role, namespace)

    def readable(self) -> list[str] | None:
        """Return the namespaces that the caller may read; None for all of them."""
        return None if self.roles.get(EVERY) else sorted(name for name, roles in self.roles.items() if roles)


EVERYTHING = Permissions("", {EVERY: frozenset({Role.ADMIN})})
"""The permissions of every caller where no roles are given."""
_current: ContextVar[Permissions] = ContextVar("permissions", default=EVERYTHING)


def current() -> Permissions:
    """Return the permissions of the call that is served."""
    return _current.get()


@contextmanager
def acting_with(permissions: Permissions) -> Iterator[None]:
    """Serve a call with these permissions."""
    token = _current.set(permissions)
    try:
        yield
    finally:
        _current.reset(token)


def permissions_of(bindings: Bindings, identity: str) -> Permissions:
    """Return what the bindings give to an identity."""
    return Permissions(identity, bindings.get(identity, {}))


def parse(text: str, where: str) -> Bindings:
    """Return the roles of a file. Raises RulesError."""
    found: dict[str, dict[str, frozenset[Role]]] = {}
    for place, binding in entries(text, where, "bindings"):
        roles = frozenset(_role(text, place) for text in texts(binding, "roles", place))
        for subject in texts(binding, "subjects", place):
            namespaces = found.setdefault(subject, {})
            for namespace in texts(binding, "namespaces", place):
                namespaces[namespace] = namespaces.get(namespace, frozenset()) | roles
    return found


def _role(text: str, place: str) -> Role:
    try:
        return Role(text)
    except ValueError:
        raise RulesError(f"{place}.roles: {text!r} is none of {', '.join(Role)}") from None
