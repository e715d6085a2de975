"""The outbox: an event is a row of the transaction that makes it true, written by a statement that is sent anyway.

Made once by a process, for the events that it publishes. Stores make their statements by `with_event`, or call
`append`. The relay publishes what is there, and is woken by `written`.
"""

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from google.protobuf.message import Message

from amends_events.envelope import EXTENSIONS, cause, may_carry, new_event_id
from amends_events.topics import EventType, Topic, event_types

MAX_PAYLOAD = 256 * 1024
MAX_KEY = 255


class EventRefusedError(ValueError):
    """An event that no broker may be given: its type is not declared, or it is too large. The transaction fails."""


COLUMNS = {
    "event_id": "uuid",
    "topic": "text",
    "partition": "smallint",
    "key": "text",
    "type": "text",
    "dataschema": "text",
    "headers": "jsonb",
    "payload": "bytea",
}
"""The columns of `Row.values` with their types, for a statement that is put together otherwise than here."""

_CASTS = tuple(COLUMNS.values())
_COLUMNS = ", ".join((*COLUMNS, "version"))
_VALUES = ", ".join(f"${{}}::{cast}" for cast in _CASTS)


@dataclass(frozen=True, slots=True)
class Row:
    """One event on its way into the outbox, all but its version."""

    event_id: UUID
    values: tuple[Any, ...]
    """The last parameters of a statement made by `with_event`."""


def with_event(change: str, parameters: int, *, timed: bool = False) -> str:
    """Return the statement that makes a change and writes its event: what the change returns is its result.

    `change` has so many parameters; `Row.values` follow them. It returns one row with the column `version`: what the
    aggregate has after it. When it returns none, because it changed nothing, there is no event. A `timed` change
    returns the column `occurred_at` too, for a service that keeps when it happened; else it is that of the statement.

        _PAY = with_event("UPDATE payment SET ... WHERE order_id = $1 RETURNING payment_id, version", 1)
        await connection.fetchval(_PAY, order_id, *row.values)
    """
    values = _VALUES.format(*range(parameters + 1, parameters + 1 + len(_CASTS)))
    column, at = (", occurred_at", ", changed.occurred_at") if timed else ("", "")
    event = f"INSERT INTO outbox ({_COLUMNS}{column}) SELECT {values}, changed.version{at} FROM changed"  # noqa: S608
    return f"WITH changed AS ({change}), event AS ({event}) SELECT * FROM changed"  # noqa: S608


def with_events(change: str, parameters: int, *, timed: bool = False) -> str:
    """Return the statement that changes several aggregates and writes an event for each.

    As `with_event`, with the parameters of `Outbox.rows`. The change returns for each aggregate a row with its `key`
    and `version`; a `timed` one with `occurred_at`, too.
    """
    arrays = ", ".join(f"${parameters + 1 + number}::{cast}[]" for number, cast in enumerate(_CASTS))
    names = _COLUMNS.removesuffix(", version")
    columns = ", ".join(f"event.{name}" for name in names.split(", "))
    column, at = (", occurred_at", ", changed.occurred_at") if timed else ("", "")
    event = (
        f"INSERT INTO outbox ({_COLUMNS}{column}) SELECT {columns}, changed.version{at}"  # noqa: S608 - no values
        f" FROM unnest({arrays}) AS event ({names}) JOIN changed ON changed.key = event.key"
    )
    return f"WITH changed AS ({change}), event AS ({event}) SELECT * FROM changed"  # noqa: S608


_APPEND = f"INSERT INTO outbox ({_COLUMNS}) VALUES ({_VALUES.format(*range(1, 9))}, $9::bigint)"  # noqa: S608


class Outbox:
    """Makes the rows of the events that a process publishes."""

    def __init__(
        self,
        source: str,
        publishes: Iterable[type[Message]],
        headers: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        """Publish as `source` (e.g. /shop/payments) events of these types.

        `headers` says what each event carries beside its own: of envelope.EXTENSIONS. Raises ContractError.
        """
        self.source = source
        self.types: Mapping[str, EventType] = event_types(publishes)
        self._headers = headers
        self.written = asyncio.Event()
        """Set when a row was made: it will be committed soon."""

    @property
    def topics(self) -> list[Topic]:
        """Return the topics of the events, by name."""
        return sorted({one.topic for one in self.types.values()}, key=lambda topic: topic.name)

    def row(self, event: Message, headers: Mapping[str, str] | None = None) -> Row:
        """Make the row of an event. Raises EventRefusedError for whatever a broker could refuse.

        `headers` are what it carries instead of what all events of the outbox carry.
        """
        known = self.types.get(event.DESCRIPTOR.full_name)
        if known is None:
            raise EventRefusedError(f"{self.source} does not declare that it publishes {event.DESCRIPTOR.full_name}")
        key, payload = known.key_of(event), event.SerializeToString()
        if not 0 < len(key) <= MAX_KEY or not key.isprintable() or key != key.strip():  # NATS takes spaces away
            raise EventRefusedError(
                f"{known.name} needs a key of 1 to {MAX_KEY} printable characters, of which neither end is a space"
            )
        if len(payload) > MAX_PAYLOAD:
            raise EventRefusedError(f"{known.name} has {len(payload)} bytes, the most are {MAX_PAYLOAD}")
        topic, event_id = known.topic, new_event_id()
        self.written.set()
        return Row(
            event_id,
            (
                event_id,
                topic.name,
                topic.partition_of(key),
                key,
                known.name,
                known.dataschema,
                json.dumps(_checked({**(self._headers() if headers is None else headers), **cause()})),
                payload,
            ),
        )

    def rows(self, events: Iterable[Message]) -> tuple[list[Any], ...]:
        """Make the rows of several events, of a key each, as the last parameters of a statement of `with_events`.

        Raises EventRefusedError.
        """
        rows = [self.row(event).values for event in events]
        return tuple([row[column] for row in rows] for column in range(len(_CASTS)))

    async def append(self, connection: Any, event: Message, version: int) -> UUID:
        """Write an event in the transaction of `connection`, by a statement of its own, and return its id.

        `version` is that of the aggregate, whose row the transaction has locked: so the events of one key have the
        order of their commits.
        """
        row = self.row(event)
        await connection.execute(_APPEND, *row.values, version)
        return row.event_id


def _checked(headers: Mapping[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if name not in EXTENSIONS or not may_carry(value):
            raise EventRefusedError(f"an event cannot carry the attribute {name}")
    return dict(headers)
