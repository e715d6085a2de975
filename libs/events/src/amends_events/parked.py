"""Events that wait for a person: the one that could not be handled, and those of the same key that came after it.

The consumer that owns the partition parks and releases; a person's decision is a row's column that it looks for.
Lists and decisions are for the tools of who is on call.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID

from amends_events.broker import EventRecord, LogEntry
from amends_events.decisions import DecidedBy, DecisionError, DecisionKind, note_decision
from amends_events.envelope import EnvelopeError, event_from
from amends_events.topics import MAX_PARTITIONS


class ParkedReason(StrEnum):
    """Why an event is parked."""

    FAILED = "failed"
    """Its handler has raised each time."""
    UNDECODABLE = "undecodable"
    """Its bytes are not its type's, or its envelope is none."""
    AFTER = "after"
    """An earlier event of its key is parked."""


class ParkedDecision(StrEnum):
    """What a person may decide about a parked event."""

    RETRY = "retry"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class ParkedEvent:
    """An event that waits."""

    consumer: str
    topic: str
    partition: int
    position: int
    event_id: UUID | None
    key: str
    type: str
    reason: ParkedReason
    detail: str
    attempts: int
    parked_at: datetime
    decision: ParkedDecision | None
    decided_by: str | None
    decided_because: str | None
    released_at: datetime | None
    """When it was handled or left out; None while it waits."""

    @property
    def place(self) -> "ParkedPlace":
        """Return where it is parked: its name."""
        return ParkedPlace(self.consumer, self.topic, self.partition, self.position)


LARGEST = 2**63
"""Numbers of rows and positions are below it."""


class ParkedPlace(NamedTuple):
    """Where an event is parked. As a text it is the event's name: CONSUMER/TOPIC/PARTITION/POSITION."""

    consumer: str
    topic: str
    partition: int
    position: int

    def __str__(self) -> str:
        """Return the name."""
        return "/".join(map(str, self))

    @classmethod
    def parse(cls, name: str) -> "ParkedPlace":
        """Read a name. Raises ValueError for any other text."""
        consumer, *rest = name.rsplit("/", 3)
        if len(rest) != 3 or not consumer or not rest[0]:
            raise ValueError(f"{name!r} is not CONSUMER/TOPIC/PARTITION/POSITION")
        partition, position = int(rest[1]), int(rest[2])
        if not (0 <= partition < MAX_PARTITIONS and -LARGEST <= position < LARGEST):
            raise ValueError(f"{name!r} is no place that a log can have")
        return cls(consumer, rest[0], partition, position)


_FIELDS = (
    "consumer, topic, partition, position, event_id, key, type, reason, detail, attempts, parked_at, decision,"
    " decided_by, decided_because, released_at"
)
_OPEN = "released_at IS NULL AND ($1 = '' OR consumer = $1) AND ($2 = '' OR topic = $2) AND ($3 = '' OR key = $3)"
_PAGE = """
WHERE ($4::text IS NULL OR (consumer, topic, partition, position) > ($4, $5, $6, $7))
ORDER BY consumer, topic, partition, position LIMIT $8
"""
_LIST = f"SELECT {_FIELDS} FROM (SELECT * FROM inbox_parked WHERE {_OPEN}) AS open {_PAGE}"  # noqa: S608 - no values
_LIST_FIRST = f"""
SELECT {_FIELDS} FROM (
    SELECT DISTINCT ON (consumer, topic, partition, key) * FROM inbox_parked WHERE {_OPEN}
    ORDER BY consumer, topic, partition, key, position
) AS first {_PAGE}
"""  # noqa: S608
_ONE = f"""
SELECT {_FIELDS}, attributes, payload FROM inbox_parked
WHERE consumer = $1 AND topic = $2 AND partition = $3 AND position = $4
"""  # noqa: S608
_BEHIND = """
SELECT count(*) FROM inbox_parked
WHERE consumer = $1 AND topic = $2 AND partition = $3 AND position > $4 AND key = $5 AND released_at IS NULL
"""
_LOCKED = """
SELECT released_at, decision, key, (
    SELECT min(position) FROM inbox_parked AS earlier
    WHERE earlier.consumer = p.consumer AND earlier.topic = p.topic AND earlier.partition = p.partition
      AND earlier.key = p.key AND earlier.position < p.position AND earlier.released_at IS NULL) AS earlier
FROM inbox_parked AS p WHERE consumer = $1 AND topic = $2 AND partition = $3 AND position = $4 FOR UPDATE
"""
_DECIDE = """
UPDATE inbox_parked SET decision = $5, decided_by = $6, decided_because = $7, decided_at = now()
WHERE consumer = $1 AND topic = $2 AND partition = $3 AND position = $4
"""
_PARK = """
INSERT INTO inbox_parked
    (consumer, topic, partition, position, event_id, key, type, attributes, payload, reason, detail, attempts)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
ON CONFLICT (consumer, topic, partition, position) DO UPDATE SET
    event_id = excluded.event_id, key = excluded.key, type = excluded.type, attributes = excluded.attributes,
    payload = excluded.payload, reason = excluded.reason, detail = excluded.detail, attempts = excluded.attempts,
    parked_at = now(), decision = NULL, decided_by = NULL, decided_because = NULL, decided_at = NULL, released_at = NULL
WHERE inbox_parked.released_at IS NOT NULL
  AND (excluded.event_id IS NOT NULL OR inbox_parked.event_id IS NOT NULL OR excluded.payload <> inbox_parked.payload)
"""
_TAKEN = """
SELECT EXISTS (
    SELECT FROM unnest($4::bigint[], $5::uuid[], $6::bytea[]) AS new (position, event_id, payload)
    JOIN inbox_parked AS open ON open.position = new.position
    WHERE open.consumer = $1 AND open.topic = $2 AND open.partition = $3 AND open.released_at IS NULL
      AND (new.event_id IS DISTINCT FROM open.event_id OR (new.event_id IS NULL AND new.payload <> open.payload)))
"""
# Events of a log that is no more, whose positions are given again: they keep their order, before those of the new one.
_MAKE_ROOM = """
UPDATE inbox_parked AS p SET position = p.position - span.width FROM (
    SELECT greatest(max(position), max(position) - min(position) + 1) AS width FROM inbox_parked
    WHERE consumer = $1 AND topic = $2 AND partition = $3
) AS span
WHERE consumer = $1 AND topic = $2 AND partition = $3 AND released_at IS NULL
"""
_BLOCKED = """
SELECT DISTINCT key FROM inbox_parked
WHERE consumer = $1 AND topic = $2 AND partition = $3 AND released_at IS NULL
"""
# An event behind another one needs no decision once it is the first: its owner may have died before it got there.
_DECIDED = """
SELECT key FROM (
    SELECT DISTINCT ON (key) key, position, decision, reason FROM inbox_parked
    WHERE consumer = $1 AND topic = $2 AND partition = $3 AND released_at IS NULL ORDER BY key, position
) AS first
WHERE decision IS NOT NULL OR reason = 'after' ORDER BY position
"""
_FIRST = """
SELECT position, attributes, payload, reason, decision FROM inbox_parked
WHERE consumer = $1 AND topic = $2 AND partition = $3 AND key = $4 AND released_at IS NULL
ORDER BY position LIMIT 1 FOR UPDATE
"""
_RELEASE = """
UPDATE inbox_parked SET released_at = now(), attempts = attempts + $5
WHERE consumer = $1 AND topic = $2 AND partition = $3 AND position = $4
"""
# What a person decided stays in event_decision; the event waits for the next decision.
_AGAIN = """
UPDATE inbox_parked SET reason = $5, detail = $6, attempts = attempts + $7,
    decision = NULL, decided_by = NULL, decided_because = NULL, decided_at = NULL
WHERE consumer = $1 AND topic = $2 AND partition = $3 AND position = $4
"""
MAX_TEXT = 2000


@dataclass(frozen=True, slots=True)
class ParkedFilter:
    """Which parked events to list; an empty text means all."""

    consumer: str = ""
    topic: str = ""
    key: str = ""
    decidable: bool = False
    """Only the first of each key."""


async def list_parked(
    connection: Any, which: ParkedFilter = ParkedFilter(), limit: int = 100, after: ParkedPlace | None = None
) -> list[ParkedEvent]:
    """Return the events that wait, by their places, at most `limit`; with `after` those that come after that one."""
    start = (None, None, None, None) if after is None else tuple(after)
    asked = (which.consumer, which.topic, which.key, *start, limit)
    rows = await connection.fetch(_LIST_FIRST if which.decidable else _LIST, *asked)
    return [_event(row) for row in rows]


async def get_parked(connection: Any, place: ParkedPlace) -> tuple[ParkedEvent, EventRecord] | None:
    """Return an event that is parked, or was a while ago, with its record; None when there is none."""
    row = await connection.fetchrow(_ONE, *place)
    if row is None:
        return None
    fields = dict(row)
    record = EventRecord(json.loads(fields.pop("attributes")), fields.pop("payload"))
    return _event(fields), record


async def count_behind(connection: Any, event: ParkedEvent) -> int:
    """Return how many events of its key wait behind a parked one."""
    found: int = await connection.fetchval(_BEHIND, *event.place, event.key)
    return found


async def decide(connection: Any, place: ParkedPlace, decision: ParkedDecision, by: DecidedBy) -> ParkedEvent:
    """Decide about the first parked event of a key: have it handled again, or left out. Return it.

    Those behind it follow by themselves, in order, until one fails. Who decided and why is kept with the event, and for
    ever beside it. Raises DecisionError.
    """
    async with connection.transaction():
        row = await connection.fetchrow(_LOCKED, *place)
        if row is None:
            raise DecisionError("PARKED_UNKNOWN", f"no event is parked as {place}")
        if row["released_at"] is not None:
            raise DecisionError("RELEASED_ALREADY", f"{place} does not wait any more")
        if row["earlier"] is not None:
            first = place._replace(position=row["earlier"])
            raise DecisionError("PARKED_BEHIND_ANOTHER", f"{place} waits behind {first}, which has the same key")
        if row["decision"] is not None:
            raise DecisionError("DECIDED_ALREADY", f"{place} was decided already ({row['decision']}) and is under way")
        await connection.execute(_DECIDE, *place, decision, by.actor.strip(), by.reason.strip())
        await note_decision(connection, DecisionKind(decision), str(place), by, f"the key is {row['key']}")
        found = await get_parked(connection, place)
    assert found is not None
    return found[0]


def _event(row: Mapping[str, Any]) -> ParkedEvent:
    decision = row["decision"]
    return ParkedEvent(
        **{
            **row,
            "reason": ParkedReason(row["reason"]),
            "decision": None if decision is None else ParkedDecision(decision),
        }
    )


@dataclass(frozen=True, slots=True)
class First:
    """The first parked event of a key, its row locked."""

    stored: LogEntry
    reason: ParkedReason
    decision: ParkedDecision | None


class Parking:
    """The parked events of one partition, for the consumer that owns it."""

    def __init__(self, consumer: str, topic: str, partition: int) -> None:
        self._place = (consumer, topic, partition)
        self.blocked: set[str] = set()
        """The keys of which an event is parked."""

    async def load(self, connection: Any) -> None:
        """Read which keys are blocked. Only the owner changes that, so it is read when the owner is not sure."""
        self.blocked = {row["key"] for row in await connection.fetch(_BLOCKED, *self._place)}

    async def park(self, connection: Any, events: Sequence[tuple[LogEntry, ParkedReason, str, int]]) -> None:
        """Park events, each with why, the details and the attempts made, in the transaction of `connection`."""
        topic = self._place[1]
        rows = []
        for stored, reason, detail, attempts in events:
            event_id, key, kind = _identity(topic, stored)
            attributes = json.dumps({_text(name): _text(value) for name, value in stored.record.attributes.items()})
            identity = (*self._place, stored.position, event_id, key, kind)
            rows.append((*identity, attributes, stored.record.payload, reason, _text(detail), attempts))
        taken = ([row[column] for row in rows] for column in (3, 4, 8))  # position, event_id, payload
        if await connection.fetchval(_TAKEN, *self._place, *taken):
            await connection.execute(_MAKE_ROOM, *self._place)
        await connection.executemany(_PARK, rows)

    async def decided(self, connection: Any) -> list[str]:
        """Return the keys whose first event may go on, by its position."""
        return [row["key"] for row in await connection.fetch(_DECIDED, *self._place)]

    async def first(self, connection: Any, key: str) -> First | None:
        """Lock and return the first parked event of a key."""
        row = await connection.fetchrow(_FIRST, *self._place, key)
        if row is None:
            return None
        stored = LogEntry(row["position"], EventRecord(json.loads(row["attributes"]), row["payload"]))
        return First(
            stored, ParkedReason(row["reason"]), None if row["decision"] is None else ParkedDecision(row["decision"])
        )

    async def release(self, connection: Any, position: int, attempts: int) -> None:
        """Note that a parked event was handled, or is left out."""
        await connection.execute(_RELEASE, *self._place, position, attempts)

    async def park_again(
        self, connection: Any, position: int, reason: ParkedReason, detail: str, attempts: int
    ) -> None:
        """Note that a parked event has failed again; it waits for another decision."""
        await connection.execute(_AGAIN, *self._place, position, reason, _text(detail), attempts)


def key_of(topic: str, stored: LogEntry) -> str:
    """Return the key of a record, as far as its envelope says one, as it is kept: what else Postgres refuses."""
    return _identity(topic, stored)[1]


def _identity(topic: str, stored: LogEntry) -> tuple[UUID | None, str, str]:
    attributes = stored.record.attributes
    try:
        event = event_from(topic, attributes, b"")
    except EnvelopeError:
        return None, _text(attributes.get("subject", "")), _text(attributes.get("type", ""))
    return event.event_id, _text(event.key), _text(event.type)


def _text(value: str) -> str:
    """Return what Postgres can keep of a text that anybody may have written."""
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}")[:MAX_TEXT]
