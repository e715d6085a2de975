"""Makes attempts at one webhook: looks its name up, checks the addresses, signs, sends, and judges the answer."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from amends_chassis.followed import stamp

from amends_orchestrator.webhooks.addresses import AddressRefusedError, Lookup, Resolver, check, look_up
from amends_orchestrator.webhooks.destinations import Destination, SecretError
from amends_orchestrator.webhooks.http import HttpAnswer, NotReachedError, post, trust
from amends_orchestrator.webhooks.signing import headers

WITHIN = timedelta(seconds=10)
"""How long a look-up may take, and how long everything after it."""
LONGEST_PATIENCE = timedelta(hours=1)
GONE = 410
ASKS_FOR_PATIENCE = (429, 503)


@dataclass(frozen=True, slots=True)
class AttemptOutcome:
    """What came of an attempt."""

    delivered: bool
    detail: str
    """What is said about it; it has nothing that the other side has sent but its status."""
    gone: bool = False
    """Whether the other side wants nothing any more."""
    pause: timedelta = timedelta()
    """The least time until the next attempt."""


class WebhookClient:
    """Makes attempts at one webhook."""

    def __init__(self, within: timedelta = WITHIN, look_up: Lookup = look_up) -> None:
        self._within = within
        self._resolver = Resolver(look_up)
        self._trusted: tuple[object, ssl.SSLContext] | None = None

    async def attempt(self, destination: Destination, event_id: UUID, body: bytes) -> AttemptOutcome:
        """Send a body once and return what came of it."""
        try:
            return _judge(await self._send(destination, event_id, body))
        except (SecretError, AddressRefusedError, NotReachedError) as error:
            return AttemptOutcome(False, str(error))

    async def _send(self, destination: Destination, event_id: UUID, body: bytes) -> HttpAnswer:
        url = destination.url
        signed = headers(event_id, body, destination.secrets(), datetime.now(UTC))
        places = check(await self._addresses(url.host, url.port), destination)
        tls = self._context(destination.ca_file) if url.scheme == "https" else None
        return await post(url, places, signed, body, tls=tls, within=self._within)

    async def _addresses(self, host: str, port: int) -> list[str]:
        try:
            async with asyncio.timeout(self._within.total_seconds()):
                return await self._resolver.resolve(host, port)
        except TimeoutError as error:
            raise NotReachedError(f"{host} was not looked up within {self._within.total_seconds():g} s") from error
        except (OSError, UnicodeError) as error:
            raise NotReachedError(f"{host} has no address") from error

    def _context(self, ca_file: Path | None) -> ssl.SSLContext:
        """Return the context for a destination; it is slow to make, so only another file makes another one."""
        key = None if ca_file is None else (ca_file, stamp(ca_file))
        if self._trusted is None or self._trusted[0] != key:
            self._trusted = (key, trust(ca_file))
        return self._trusted[1]


def _judge(answer: HttpAnswer) -> AttemptOutcome:
    status = answer.status
    if 200 <= status < 300:
        return AttemptOutcome(True, f"it answered {status}")
    if 300 <= status < 400:
        return AttemptOutcome(False, f"it answered {status}, and redirects are not followed")
    pause = answer.retry_after if status in ASKS_FOR_PATIENCE and answer.retry_after is not None else timedelta()
    return AttemptOutcome(False, f"it answered {status}", gone=status == GONE, pause=min(pause, LONGEST_PATIENCE))
