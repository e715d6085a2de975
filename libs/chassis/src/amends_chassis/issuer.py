"""The public keys of an issuer of access tokens, as it publishes them over HTTP (JWKS, RFC 7517).

They are fetched in a thread, once a minute and when a token names a key that nobody has heard of; such tokens cause one
request in ten seconds, however many there are. While the issuer does not answer, what it said last is good for a day;
in a file, also for the process that is started meanwhile. Used by `tokens`.
"""

import asyncio
import contextlib
import http
import http.client
import json
import re
import socket
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jwt
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from amends_chassis.context import detached
from amends_chassis.errors import Unavailable

ALGORITHM = "ES256"
"""The one algorithm that is believed, whatever a token or a key says of itself."""
FETCH_EVERY = timedelta(seconds=60)
ASK_AT_MOST_EVERY = timedelta(seconds=10)
"""So seldom keys are asked for because of a token whose key is unknown, and again after an attempt that failed."""
FIRST_AGAIN = timedelta(seconds=1)
"""The pause after a failed attempt while there are no keys at all."""
KEPT_FOR = timedelta(hours=24)
WAIT_FOR_KEYS = timedelta(seconds=1)
"""So long a call waits for keys that are being fetched because of it."""
WAITING_AT_ONCE = 64
"""So many calls wait; more are answered at once, so that tokens of unknown keys do not pile up."""
MAX_DOCUMENT = 64 * 1024
MAX_KEYS = 64

_READ_WITHIN = timedelta(seconds=2)
_FETCHED_WITHIN = timedelta(seconds=5)
_KID = re.compile(r"[A-Za-z0-9._~-]{1,128}")
_log = structlog.get_logger(__name__)


class KeysError(Exception):
    """The published keys cannot be read: why."""


class IssuerKeys:
    """The keys that an issuer published last."""

    def __init__(
        self,
        url: str,
        registry: CollectorRegistry,
        kept_in: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take the address of the keys, and a file that keeps them. `clock` gives seconds since 1970.

        Raises ValueError for an address that is not of HTTP.
        """
        place = urlsplit(url)
        if place.scheme not in ("http", "https") or not place.hostname or place.port == 0:  # `port` raises ValueError
            raise ValueError(f"keys are published at http:// or https://, not at {url!r}")
        self._url = url
        self._kept_in = kept_in
        self._clock = clock
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self._fetched_at = 0.0
        self._attempted_at = 0.0
        self._fetching: asyncio.Task[bool] | None = None
        self._waiting = 0
        self.on_gone: Callable[[frozenset[str]], None] = lambda kids: None
        """Called with the names of keys that are not published any more, or are others now."""
        self._fetches = Counter(
            "amends_issuer_keys_fetches", "Attempts to fetch the issuer's keys.", ["outcome"], registry=registry
        )
        for outcome in ("fetched", "failed"):
            self._fetches.labels(outcome)
        age = Gauge(
            "amends_issuer_keys_fetched_timestamp_seconds",
            "When the keys in force were fetched, in seconds since 1970.",
            registry=registry,
        )
        age.set_function(lambda: self._fetched_at)
        self._read_kept()

    async def run(self) -> None:
        """Fetch the keys for ever."""
        try:
            while True:
                fetched = await asyncio.shield(self._fetch())
                await asyncio.sleep(self._pause(fetched).total_seconds())
        finally:
            if self._fetching is not None:
                self._fetching.cancel()

    async def named(self, kid: str) -> jwt.PyJWK | None:
        """Return the key of that name, None when the issuer has none. Raises Unavailable when nobody can know."""
        key = self._current().get(kid)
        if key is not None or not _KID.fullmatch(kid):
            return key
        if not 0 <= self._clock() - self._attempted_at < ASK_AT_MOST_EVERY.total_seconds():
            self._fetch()
        if self._fetching is not None and self._waiting < WAITING_AT_ONCE:
            self._waiting += 1
            try:
                await asyncio.wait({self._fetching}, timeout=WAIT_FOR_KEYS.total_seconds())
            finally:
                self._waiting -= 1
        key = self._current().get(kid)
        if key is None and self._fetched_at < self._attempted_at:
            raise Unavailable("ISSUER_UNREACHABLE", "Whoever gives out access tokens does not answer now.")
        return key

    def _current(self) -> Mapping[str, jwt.PyJWK]:
        return self._keys if self._clock() - self._fetched_at < KEPT_FOR.total_seconds() else {}

    def _pause(self, fetched: bool) -> timedelta:
        if fetched:
            return FETCH_EVERY
        return ASK_AT_MOST_EVERY if self._current() else FIRST_AGAIN

    def _fetch(self) -> "asyncio.Task[bool]":
        """Return the attempt that is under way, or begin one."""
        if self._fetching is None or self._fetching.done():
            self._attempted_at = self._clock()
            self._fetching = asyncio.create_task(self._attempt(), name="issuer keys", context=detached())
        return self._fetching

    async def _attempt(self) -> bool:
        try:
            document = await _document(self._url)
            keys = parse(document)
        except KeysError as error:
            self._fetches.labels("failed").inc()
            _log.warning("issuer.keys_not_fetched", url=self._url, error=str(error), fetched_at=self._fetched_at)
            return False
        self._fetches.labels("fetched").inc()
        self._take(keys, self._attempted_at)
        self._keep(document)
        return True

    def _take(self, keys: Mapping[str, jwt.PyJWK], fetched_at: float) -> None:
        before, self._keys, self._fetched_at = self._keys, keys, fetched_at
        gone = frozenset(kid for kid, key in before.items() if kid not in keys or not _same(key, keys[kid]))
        if gone or len(keys) != len(before):
            _log.info("issuer.keys_changed", kids=sorted(keys), gone=sorted(gone))
        self.on_gone(gone)

    def _keep(self, document: str) -> None:
        if self._kept_in is None:
            return
        kept = {"url": self._url, "fetched_at": self._fetched_at, "document": document}
        draft = self._kept_in.with_name(f".{self._kept_in.name}.draft")
        try:
            draft.write_text(json.dumps(kept), encoding="utf-8")
            draft.replace(self._kept_in)
        except OSError as error:
            _log.warning("issuer.keys_not_kept", path=str(self._kept_in), error=str(error))

    def _read_kept(self) -> None:
        if self._kept_in is None or not self._kept_in.exists():
            return
        try:
            kept = json.loads(self._kept_in.read_bytes())
            if kept["url"] == self._url:
                self._take(parse(kept["document"]), min(float(kept["fetched_at"]), self._clock()))
        except (OSError, ValueError, KeyError, TypeError, KeysError) as error:
            _log.warning("issuer.keys_not_kept", path=str(self._kept_in), error=f"{type(error).__name__}: {error}")


def parse(document: str) -> Mapping[str, jwt.PyJWK]:
    """Return the keys of a document that can check signatures with ES256, by name. Raises KeysError.

    Others are left out: an issuer may publish keys for other uses beside them.
    """
    try:
        entries = json.loads(document)["keys"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise KeysError(f"the document is no key set: {type(error).__name__}") from error
    if not isinstance(entries, list) or len(entries) > MAX_KEYS:
        raise KeysError(f"a key set is a list of at most {MAX_KEYS} keys")
    found: dict[str, jwt.PyJWK] = {}
    for entry in entries:
        if not _checks_signatures(entry):
            continue
        if entry["kid"] in found:
            raise KeysError(f"two keys have the name {entry['kid']}")
        try:
            found[entry["kid"]] = jwt.PyJWK(entry, algorithm=ALGORITHM)
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise KeysError(f"the key {entry['kid']} cannot be used: {error}") from error
    return found


def _checks_signatures(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("kid"), str) or not _KID.fullmatch(entry["kid"]):
        return False
    return (
        (entry.get("kty"), entry.get("crv")) == ("EC", "P-256")
        and entry.get("use", "sig") == "sig"
        and entry.get("alg", ALGORITHM) == ALGORITHM
        and "d" not in entry  # a private key that somebody published is nobody's any more
    )


def _same(one: jwt.PyJWK, other: jwt.PyJWK) -> bool:
    return bool(one.key.public_numbers() == other.key.public_numbers())


async def _document(url: str) -> str:
    """Return the document at an address. Raises KeysError.

    Redirections are not followed, and no proxy is asked: whoever answers must be who was asked.
    """
    place = urlsplit(url)
    made = http.client.HTTPSConnection if place.scheme == "https" else http.client.HTTPConnection
    connection = made(place.hostname or "", place.port, timeout=_READ_WITHIN.total_seconds())
    path = (place.path or "/") + (f"?{place.query}" if place.query else "")
    try:
        async with asyncio.timeout(_FETCHED_WITHIN.total_seconds()):
            return await asyncio.to_thread(_ask, connection, path)
    except TimeoutError as error:
        raise KeysError(f"the answer takes longer than {_FETCHED_WITHIN.total_seconds():g} s") from error
    finally:
        if connection.sock is not None:  # the thread still reads, and so it ends
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)


def _ask(connection: http.client.HTTPConnection, path: str) -> str:
    try:
        connection.request("GET", path, headers={"Accept": "application/jwk-set+json, application/json"})
        response = connection.getresponse()
        if response.status != http.HTTPStatus.OK:
            raise KeysError(f"the answer is {response.status}")
        document = response.read(MAX_DOCUMENT + 1)
        if len(document) > MAX_DOCUMENT:
            raise KeysError(f"the answer has more than {MAX_DOCUMENT} bytes")
        return document.decode()
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise KeysError(f"{type(error).__name__}: {error}") from error
    finally:
        connection.close()
