"""Events that wait for a person: the one that could not be handled, and those of the same key that came after it.

The consumer that owns the partition parks and releases; a person's decision is a row's column that it looks for.
Lists and decisions are for the tools of who is on call.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from amends_events.broker import EventRecord, LogEntry
from amends_events.envelope import EnvelopeError, event_from


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


class DecisionError(Exception):
    """The event is not parked any more, is decided already, or is not the first of its key."""


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


_FIELDS = (
    "consumer, topic, partition, position, event_id, key, type, reason, detail, attempts, parked_at, decision,"
    " decided_by, decided_because"
)
_LIST = f"""
SELECT {_FIELDS} FROM inbox_parked
WHERE consumer = $1 AND released_at IS NULL ORDER BY topic, partition, position LIMIT $2
"""  # noqa: S608 - no values
# Only the first of a key can be decided: those behind it follow.
_DECIDE = """
UPDATE inbox_parked AS p SET decision = $5, decided_by = $6, decided_because = $7, decided_at = now()
WHERE consumer = $1 AND topic = $2 AND partition = $3 AND position = $4 AND released_at IS NULL AND decision IS NULL
  AND NOT EXISTS (
    SELECT FROM inbox_parked AS earlier
    WHERE earlier.consumer = p.consumer AND earlier.topic = p.topic AND earlier.partition = p.partition
      AND earlier.key = p.key AND earlier.position < p.position AND earlier.released_at IS NULL)
RETURNING true
"""
_PARK = """
INSERT INTO inbox_parked
    (consumer, topic, partition, position, event_id, key, type, attributes, payload, reason, detail, attempts)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
ON CONFLICT (consumer, topic, partition, position) DO NOTHING
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
# What a person decided stands in the log of the consumer; the event waits for the next decision.
_AGAIN = """
UPDATE inbox_parked SET reason = $5, detail = $6, attempts = attempts + $7,
    decision = NULL, decided_by = NULL, decided_because = NULL, decided_at = NULL
WHERE consumer = $1 AND topic = $2 AND partition = $3 AND position = $4
"""
MAX_TEXT = 2000


async def list_parked(connection: Any, consumer: str, limit: int = 100) -> list[ParkedEvent]:
    """Return the oldest events of a consumer that wait, at most `limit`."""
    rows = await connection.fetch(_LIST, consumer, limit)
    return [
        ParkedEvent(
            **{
                **row,
                "reason": ParkedReason(row["reason"]),
                "decision": None if row["decision"] is None else ParkedDecision(row["decision"]),
            }
        )
        for row in rows
    ]


async def decide(connection: Any, parked: ParkedEvent, decision: ParkedDecision, actor: str, because: str) -> None:
    """Decide about the first parked event of a key: have it handled again, or left out.

    Those behind it follow by themselves, in order, until one fails. `actor` and `because` are kept with the event.
    Raises DecisionError, ValueError.
    """
    if not actor.strip() or not because.strip():
        raise ValueError("a decision needs an actor and a reason")
    decided = await connection.fetchval(
        _DECIDE, parked.consumer, parked.topic, parked.partition, parked.position, decision, actor, because
    )
    if not decided:
        raise DecisionError(
            f"{parked.topic}.{parked.partition} {parked.position} is not the first undecided event of {parked.key}"
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
        """Read which keys are blocked. Only the owner changes that, so it is read once."""
        self.blocked = {row["key"] for row in await connection.fetch(_BLOCKED, *self._place)}

    async def park(self, connection: Any, events: Sequence[tuple[LogEntry, ParkedReason, str, int]]) -> None:
        """Park events, each with why, the details and the attempts made, in the transaction of `connection`."""
        topic = self._place[1]
        rows = []
        for stored, reason, detail, attempts in events:
            event_id, key, kind = _identity(topic, stored)
            attributes = json.dumps({name: _text(value) for name, value in stored.record.attributes.items()})
            identity = (*self._place, stored.position, event_id, key, kind)
            rows.append((*identity, attributes, stored.record.payload, reason, _text(detail), attempts))
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
    """Return the key of a record, as far as its envelope says one."""
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
