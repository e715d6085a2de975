"""One POST to an address that was checked: no redirect is followed, no proxy asked, and little of the answer is read.

A request has a connection of its own. Webhooks are few, and a connection that nobody keeps hides no change of a name, a
certificate or a rule.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import h11

from amends_orchestrator.webhooks.addresses import CheckedAddress
from amends_orchestrator.webhooks.destinations import WebhookUrl

MAX_HEADERS = 16 * 1024
"""An answer whose head is longer is none."""
MAX_ADDRESSES = 3
"""So many addresses of a destination are tried for one attempt."""
READ = 4096
CLOSING = 1.0
"""Seconds that the other side has to say goodbye."""

Headers = Iterable[tuple[str, str]]


class NotReachedError(Exception):
    """There was no answer. The text is for people, and says nothing that the other side has sent."""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """What is read of an answer."""

    status: int
    retry_after: timedelta | None
    """How long the other side wants to be left alone, when it said so in seconds."""


def trust(ca_file: Path | None) -> ssl.SSLContext:
    """Return the context that trusts the certificates of a file, or the system's. Raises NotReachedError."""
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise NotReachedError(f"the certificates of caFile cannot be used: {type(error).__name__}") from error


async def post(
    url: WebhookUrl,
    places: Sequence[CheckedAddress],
    headers: Headers,
    body: bytes,
    *,
    tls: ssl.SSLContext | None,
    within: timedelta,
) -> HttpAnswer:
    """Send a request to the first of the places that takes a connection. Raises NotReachedError.

    `within` is all that connecting, sending and the head of the answer may take together.
    """
    try:
        async with asyncio.timeout(within.total_seconds()):
            reader, writer = await _connect(url, places, tls)
            try:
                return await _exchange(url, headers, body, reader, writer)
            finally:
                writer.close()
    except TimeoutError as error:
        raise NotReachedError(f"there was no answer within {within.total_seconds():g} s") from error
    except ssl.SSLCertVerificationError as error:
        raise NotReachedError(f"its certificate is not trusted: {error.verify_message}") from error
    except OSError as error:
        raise NotReachedError(f"it was not reached: {type(error).__name__}") from error
    except h11.ProtocolError as error:
        raise NotReachedError("it did not answer in HTTP/1.1, or with too long a head") from error


async def _connect(
    url: WebhookUrl, places: Sequence[CheckedAddress], tls: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    failure: OSError | None = None
    for place in places[:MAX_ADDRESSES]:
        try:
            return await asyncio.open_connection(
                str(place.address),
                place.port,
                ssl=tls,
                server_hostname=url.host if tls is not None else None,
                ssl_shutdown_timeout=CLOSING if tls is not None else None,
            )
        except OSError as error:
            failure = failure or error
    raise failure or ConnectionError("there is no address")


async def _exchange(
    url: WebhookUrl, headers: Headers, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> HttpAnswer:
    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEADERS)
    head = [("Host", url.authority), ("Content-Length", str(len(body))), ("Connection", "close"), *headers]
    writer.write(http.send(h11.Request(method="POST", target=url.target, headers=head)))
    writer.write(http.send(h11.Data(data=body)))
    await writer.drain()
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await reader.read(READ))
        elif isinstance(event, h11.Response):
            return HttpAnswer(event.status_code, _retry_after(event))
        elif not isinstance(event, h11.InformationalResponse):
            raise ConnectionResetError("the connection was closed before there was an answer")


def _retry_after(answer: h11.Response) -> timedelta | None:
    value = next((value for name, value in answer.headers if name == b"retry-after"), b"")
    return timedelta(seconds=int(value)) if value.isdigit() and len(value) < 8 else None
