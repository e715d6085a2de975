"""Where events are sent: a file of the administrator that is read again when it changes (AMENDS_WEBHOOKS).

    {"webhooks": [{"name": "on-call", "url": "https://hooks.example.com/amends", "secretFile": "/secrets/on-call",
                   "types": ["RunParked", "RunStalled"], "namespaces": ["shop"]}]}

Only this file says where requests go and which networks they may reach; nothing that a caller of the API sends does.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from amends_chassis.followed import RulesError, entries, texts

from amends_orchestrator.announcer import PUBLISHES

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

TYPES = frozenset(message.DESCRIPTOR.name for message in PUBLISHES)
FIELDS = frozenset(("name", "url", "secretFile", "types", "namespaces", "sagas", "allowNetworks", "caFile", "attempts"))
ATTEMPTS = 16
"""So often an event is tried before it is parked: for about five hours."""
MOST_ATTEMPTS = 100
LEAST_SECRET, MOST_SECRET = 24, 64
"""Bytes of a secret, as Standard Webhooks has it."""
SECRET_PREFIX = "whsec_"  # noqa: S105 - what secrets begin with, and none of them
MOST_SECRETS = 4
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class SecretError(Exception):
    """The file of a secret cannot be read, or holds none. The text never has what the file says."""


@dataclass(frozen=True, slots=True)
class WebhookUrl:
    """The URL of a destination, taken apart."""

    scheme: str
    host: str
    port: int
    target: str
    """Path and query."""

    @property
    def origin(self) -> str:
        """Return scheme, host and port: what may be shown, because paths often are secrets."""
        return f"{self.scheme}://{self.authority}"

    @property
    def authority(self) -> str:
        """Return host and port, as the header Host has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


DEFAULT_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True)
class Destination:
    """One webhook."""

    name: str
    url: WebhookUrl
    secret_file: Path
    types: tuple[str, ...] = ()
    """Names of events; empty for all."""
    namespaces: tuple[str, ...] = ()
    sagas: tuple[str, ...] = ()
    networks: tuple[IpNetwork, ...] = ()
    """Networks that may be reached beside the public ones."""
    ca_file: Path | None = None
    """The certificates that are trusted instead of the system's."""
    attempts: int = ATTEMPTS

    def wants(self, kind: str, namespace: str, saga: str) -> bool:
        """Return whether it gets an event of this type, of this namespace and saga."""
        return (
            (not self.types or kind in self.types)
            and (not self.namespaces or namespace in self.namespaces)
            and (not self.sagas or saga in self.sagas)
        )

    def secrets(self) -> list[bytes]:
        """Read the secrets, one a line, of which the first is the newest. Raises SecretError."""
        try:
            lines = self.secret_file.read_text(encoding="utf-8").split()
        except (OSError, UnicodeDecodeError) as error:
            raise SecretError(f"the secret of {self.name} cannot be read: {type(error).__name__}") from error
        if not 0 < len(lines) <= MOST_SECRETS:
            raise SecretError(f"the file of {self.name} must hold 1 to {MOST_SECRETS} secrets, it holds {len(lines)}")
        return [self._secret(line) for line in lines]

    def _secret(self, line: str) -> bytes:
        try:
            secret = base64.b64decode(line.removeprefix(SECRET_PREFIX), validate=True)
        except binascii.Error:
            secret = b""
        if not line.startswith(SECRET_PREFIX) or not LEAST_SECRET <= len(secret) <= MOST_SECRET:
            bounds = f"{LEAST_SECRET} to {MOST_SECRET} bytes in base64"
            raise SecretError(f"a secret of {self.name} must be {SECRET_PREFIX} and {bounds}")
        return secret


@dataclass(frozen=True)
class Destinations:
    """All webhooks of a file."""

    by_name: Mapping[str, Destination]
    _wanted: dict[tuple[str, str, str], tuple[str, ...]] = field(default_factory=dict)

    def wanted(self, kind: str, namespace: str, saga: str) -> tuple[str, ...]:
        """Return the names of those that get an event. Asked for each event, so the answers are kept."""
        key = (kind, namespace, saga)
        found = self._wanted.get(key)
        if found is None:
            found = tuple(name for name, one in self.by_name.items() if one.wants(kind, namespace, saga))
            self._wanted[key] = found
        return found


def parse(text: str, where: str) -> Destinations:
    """Return the webhooks of a file. Raises RulesError, which says where and why, and has no URL in it.

    `where` is the file's path, from whose folder relative paths in it start.
    """
    found: dict[str, Destination] = {}
    for place, entry in entries(text, where, "webhooks"):
        destination = _destination(entry, place, Path(where).parent)
        if destination.name in found:
            raise RulesError(f"{place}.name: {destination.name} is the name of another one")
        found[destination.name] = destination
    return Destinations(found)


def _destination(entry: Any, place: str, folder: Path) -> Destination:
    if not isinstance(entry, dict):
        raise RulesError(f"{place} must be an object")
    if unknown := sorted(entry.keys() - FIELDS):
        raise RulesError(f"{place}.{unknown[0]} is no field: there are {', '.join(sorted(FIELDS))}")
    name = _text(entry, "name", place)
    if not _NAME.fullmatch(name):
        raise RulesError(f"{place}.name must be up to 63 lower-case letters, digits and hyphens")
    types = _texts(entry, "types", place)
    if wrong := [kind for kind in types if kind not in TYPES]:
        raise RulesError(f"{place}.types: {wrong[0]!r} is none of {', '.join(sorted(TYPES))}")
    networks = tuple(_network(text, place) for text in _texts(entry, "allowNetworks", place))
    attempts = entry.get("attempts", ATTEMPTS)
    if not isinstance(attempts, int) or isinstance(attempts, bool) or not 1 <= attempts <= MOST_ATTEMPTS:
        raise RulesError(f"{place}.attempts must be a number from 1 to {MOST_ATTEMPTS}")
    return Destination(
        name,
        _url(_text(entry, "url", place), f"{place}.url"),
        folder / _text(entry, "secretFile", place),
        types,
        _texts(entry, "namespaces", place),
        _texts(entry, "sagas", place),
        networks,
        folder / _text(entry, "caFile", place) if "caFile" in entry else None,
        attempts,
    )


def _text(entry: dict[str, Any], name: str, place: str) -> str:
    value = entry.get(name)
    if not isinstance(value, str) or not value:
        raise RulesError(f"{place}.{name} must be a text that is not empty")
    return value


def _texts(entry: dict[str, Any], name: str, place: str) -> tuple[str, ...]:
    return tuple(texts(entry, name, place)) if name in entry else ()


def _network(text: str, place: str) -> IpNetwork:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise RulesError(f"{place}.allowNetworks: {text!r} must be a network such as 10.1.0.0/16: {error}") from error


def _url(text: str, place: str) -> WebhookUrl:
    """Take a URL apart. Raises RulesError, in whose text the URL is not."""
    if not text.isascii() or not text.isprintable() or " " in text or "\\" in text:
        raise RulesError(f"{place} must be a URL of printable ASCII characters, without spaces and backslashes")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise RulesError(f"{place} is no URL") from error
    if parts.scheme not in DEFAULT_PORTS or not host:
        raise RulesError(f"{place} must begin with https:// and a host (http:// is for the loopback network alone)")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise RulesError(f"{place} may have neither a user, nor a password, nor a fragment")
    if "%" in host or port == 0:
        raise RulesError(f"{place} has a host or port that cannot be reached")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return WebhookUrl(parts.scheme, host, port or DEFAULT_PORTS[parts.scheme], target)
