"""The envelope of an event: CloudEvents 1.0 in binary mode, attributes beside the payload and never around it.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md. The outbox's rows become attributes here, and what
a consumer reads becomes an `Event`. Brokers add their prefix (`ce-`, `ce_`).
"""

import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeGuard
from uuid import UUID

SPECVERSION = "1.0"
CONTENT_TYPE = "application/protobuf"

TRACEPARENT = "traceparent"
CORRELATION = "correlationid"
CAUSATION = "causationid"
ACTOR = "actor"
EXTENSIONS = (TRACEPARENT, CORRELATION, CAUSATION, ACTOR)
"""The attributes that an event may carry beside those of its row."""
MAX_HEADER = 1024
"""The longest of them, in characters, all of which are printable; what is not so is left out when it is read."""
YEARS = range(1900, 3000)
"""When an event may have occurred: other years are mistakes, with which nobody can reckon."""


class EnvelopeError(ValueError):
    """The attributes are not those of an event."""


@dataclass(frozen=True, slots=True)
class CloudEvent:
    """An event as its consumer sees it, with the payload as bytes."""

    event_id: UUID
    source: str
    """Who published it, e.g. /shop/payments."""
    type: str
    """The full name of its message."""
    topic: str
    key: str
    """What it happened to."""
    version: int
    """The version of that after it happened: projections ignore events that are not newer than what they know."""
    occurred_at: datetime
    headers: Mapping[str, str]
    """Those of EXTENSIONS that it has."""
    payload: bytes


_NOTHING: Mapping[str, str] = {}
_cause: ContextVar[Mapping[str, str]] = ContextVar("amends_events_cause", default=_NOTHING)


def handling(event: CloudEvent) -> AbstractContextManager[None]:
    """Do the block as the handling of an event: what it writes into the outbox is caused by that event."""
    carried = {name: event.headers[name] for name in (TRACEPARENT,) if name in event.headers}
    own = {CAUSATION: str(event.event_id), CORRELATION: event.headers.get(CORRELATION, str(event.event_id))}
    return caused_by(carried | own)


def cause() -> dict[str, str]:
    """Return what an event carries of the one that is being handled: its cause, and what all of them belong to.

    A handler that leaves work for later keeps it beside the work, for `caused_by`.
    """
    return dict(_cause.get())


@contextmanager
def caused_by(known: Mapping[str, str]) -> Iterator[None]:
    """Do the block as what was left for later with this `cause`: what it writes into the outbox carries it."""
    token = _cause.set(known)
    try:
        yield
    finally:
        _cause.reset(token)


def new_event_id() -> UUID:
    """Make a UUIDv7 (RFC 9562): milliseconds since 1970, then chance."""
    milliseconds = time.time_ns() // 1_000_000
    number = (milliseconds << 80) | (0x7 << 76) | (secrets.randbits(12) << 64) | (0b10 << 62) | secrets.randbits(62)
    return UUID(int=number)


def attributes(event: CloudEvent, dataschema: str) -> dict[str, str]:
    """Return the CloudEvents attributes of an event, without a broker's prefix."""
    return {
        "specversion": SPECVERSION,
        "id": str(event.event_id),
        "source": event.source,
        "type": event.type,
        "subject": event.key,
        "time": event.occurred_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "datacontenttype": CONTENT_TYPE,
        "dataschema": dataschema,
        "partitionkey": event.key,
        "sequence": str(event.version),
        **event.headers,
    }


def event_from(topic: str, attributes: Mapping[str, str], payload: bytes) -> CloudEvent:
    """Read an event from its attributes. Raises EnvelopeError when one is missing or makes no sense."""
    try:
        if attributes["specversion"] != SPECVERSION:
            raise EnvelopeError(f"specversion is {attributes['specversion']}, not {SPECVERSION}")
        return CloudEvent(
            event_id=id_of(attributes),
            source=attributes["source"],
            type=attributes["type"],
            topic=topic,
            key=attributes["subject"],
            version=int(attributes["sequence"]),
            occurred_at=_moment(attributes["time"]),
            headers={name: attributes[name] for name in EXTENSIONS if may_carry(attributes.get(name))},
            payload=payload,
        )
    except KeyError as error:
        raise EnvelopeError(f"the attribute {error.args[0]} is missing") from error
    except ValueError as error:
        raise EnvelopeError(str(error)) from error


def may_carry(value: str | None) -> TypeGuard[str]:
    """Return whether an event can have such an extension."""
    return value is not None and len(value) <= MAX_HEADER and value.isprintable()


def id_of(attributes: Mapping[str, str]) -> UUID:
    """Return the id of an event, however its publisher spells a UUID. Raises EnvelopeError when it is none."""
    text = attributes.get("id", "")
    try:
        return UUID(text)
    except ValueError as error:
        raise EnvelopeError(f"the id {text[:100]!r} is no UUID") from error


def _moment(text: str) -> datetime:
    """Read the time of an event. Raises ValueError."""
    moment = datetime.fromisoformat(text.upper())
    if moment.tzinfo is None:
        raise EnvelopeError(f"the time {text[:100]} has no zone")
    if moment.year not in YEARS:
        raise EnvelopeError(f"the time {text[:100]} is not between the years {YEARS.start} and {YEARS.stop}")
    return moment
