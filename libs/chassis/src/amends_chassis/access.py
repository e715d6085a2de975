"""Who may call which method of this service, by the identity in the caller's certificate: nobody unless a rule says so.

The rules are a file that is read again when it changes:

    {"rules": [{"identities": ["spiffe://amends.local/ns/shop/sa/orders"],
                "methods": ["/shop.inventory.v1.InventoryService/Reserve", "/shop.inventory.v1.InventoryService/*"]}]}

Health is open to everybody. A file that cannot be used is refused: the rules that were good before stay.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import structlog

from amends_chassis.errors import PermissionDenied
from amends_chassis.followed import FollowedFile, RulesError
from amends_chassis.types import Context

_log = structlog.get_logger(__name__)

_OPEN = "/grpc.health.v1.Health/"
_PEER = "x509_subject_alternative_name"
_SPIFFE = "spiffe://"
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
    found = [name for name in context.auth_context().get(_PEER, ()) if name.startswith(b"spiffe://")]
    return found[0].decode() if len(found) == 1 else ""


def parse(text: str, where: str) -> Mapping[str, frozenset[str]]:
    """Return the methods that each identity may call. Raises RulesError."""
    try:
        rules = json.loads(text)["rules"]
    except (ValueError, KeyError, TypeError) as error:
        raise RulesError(f"{where} must be JSON, an object with the list `rules`: {error}") from error
    found: dict[str, set[str]] = {}
    for number, rule in enumerate(rules if isinstance(rules, list) else [rules]):
        place = f"{where}: rules[{number}]"
        methods = _texts(rule, "methods", "/", place)
        for caller in _texts(rule, "identities", _SPIFFE, place):
            found.setdefault(caller, set()).update(methods)
    return {caller: frozenset(methods) for caller, methods in found.items()}


def _texts(rule: Any, name: str, begins: str, place: str) -> list[str]:
    given = rule.get(name) if isinstance(rule, dict) else None
    if not isinstance(given, list) or not given:
        raise RulesError(f"{place}.{name} must be a list with at least one text that begins with {begins}")
    for text in given:
        if not isinstance(text, str) or not text.startswith(begins):
            raise RulesError(f"{place}.{name}: {text!r} must be a text that begins with {begins}")
    return given
