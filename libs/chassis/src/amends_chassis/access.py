"""Who may call which method of this service, by the identity in the caller's certificate: nobody unless a rule says so.

The rules are a file that is read again when it changes:

    {"rules": [{"identities": ["spiffe://amends.local/ns/shop/sa/orders"],
                "methods": ["/shop.inventory.v1.InventoryService/Reserve", "/shop.inventory.v1.InventoryService/*"]}]}

Health is open to everybody. A file that cannot be used is refused: the rules that were good before stay.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NoReturn

import structlog

from amends_chassis.certificates import SPIFFE
from amends_chassis.errors import PermissionDenied
from amends_chassis.followed import FollowedFile, entries, texts
from amends_chassis.types import Context

_log = structlog.get_logger(__name__)

_OPEN = "/grpc.health.v1.Health/"
_PEER = "x509_subject_alternative_name"
_NOTHING: frozenset[str] = frozenset()


class Access:
    """The rules that are in force now."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Read the file. Raises RulesError when it cannot be used."""
        self._rules = FollowedFile(path, parse, clock=clock)

    def gate(self, method: str) -> Callable[[Context], None] | None:
        """Return what raises PermissionDenied unless the peer of a call may call `method` ("/package.Service/Method").

        None for a method that is open to everybody.
        """
        if method.startswith(_OPEN):
            return None
        all_methods = f"{method.rpartition('/')[0]}/*"

        def look(context: Context) -> None:
            caller = identity(context)
            allowed = self._rules.current.get(caller, _NOTHING)
            if method not in allowed and all_methods not in allowed:
                _refuse(caller, method)

        return look

    def missing(self, methods: Iterable[str]) -> list[str]:
        """Return those of `methods` that nobody may call: each of them is a rule that somebody forgot."""
        named = {name for names in self._rules.current.values() for name in names}
        return [name for name in methods if not {name, f"{name.rpartition('/')[0]}/*"} & named]


def _refuse(caller: str, method: str) -> NoReturn:
    _log.warning("access.denied", caller=caller, method=method)
    raise PermissionDenied(
        "NO_ACCESS",
        f"{caller or 'A caller without a certificate that names it'} may not call {method}: "
        "there is no `access` from it to this method.",
        caller=caller,
        method=method,
    )


def identity(context: Context) -> str:
    """Return the SPIFFE id of the peer's certificate; empty unless it has exactly one URI."""
    found = [name for name in context.auth_context().get(_PEER, ()) if name.startswith(SPIFFE.encode())]
    return found[0].decode() if len(found) == 1 else ""


def parse(text: str, where: str) -> Mapping[str, frozenset[str]]:
    """Return the methods that each identity may call. Raises RulesError."""
    found: dict[str, set[str]] = {}
    for place, rule in entries(text, where, "rules"):
        methods = texts(rule, "methods", place, "/")
        for caller in texts(rule, "identities", place, SPIFFE):
            found.setdefault(caller, set()).update(methods)
    return {caller: frozenset(methods) for caller, methods in found.items()}
