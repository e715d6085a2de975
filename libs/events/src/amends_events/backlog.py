"""The outbox as who is on call sees it: what waits, what nobody shall be told of, and what is published once more.

What was published is in `outbox_sent` for as long as the relay is told to keep it.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from google.protobuf.message import Message

from amends_events.decisions import DecidedBy, DecisionError, DecisionKind, note_decision
from amends_events.envelope import CloudEvent, attributes
from amends_events.relay import COLUMNS
from amends_events.topics import event_type

_WAITING = """
SELECT seq, event_id, topic, partition, key, type, version, occurred_at, octet_length(payload) AS size
FROM outbox WHERE ($1 = '' OR topic = $1) AND seq > $2 ORDER BY seq LIMIT $3
"""
_COUNT = "SELECT count(*) FROM (SELECT FROM outbox WHERE $1 = '' OR topic = $1 LIMIT $2) AS counted"
_TAKE = f"""
DELETE FROM outbox WHERE event_id = $1 RETURNING {COLUMNS}, octet_length(payload) AS size
"""  # noqa: S608 - no values
_SENT = "FROM outbox_sent WHERE topic = $1 AND occurred_at >= $2 AND ($3 = '' OR key = $3)"
_SENT_COUNT = f"SELECT count(*) AS events, min(occurred_at) AS first_at, max(occurred_at) AS last_at {_SENT}"
# With the numbers that they had: what is published for the first time comes after them.
_PUT_BACK = f"""
INSERT INTO outbox ({COLUMNS}) OVERRIDING SYSTEM VALUE SELECT {COLUMNS} {_SENT} ORDER BY seq ON CONFLICT DO NOTHING
"""
_EXPIRE = """
WITH old AS (SELECT seq FROM outbox_sent WHERE sent_at < now() - $1::interval LIMIT $2)
DELETE FROM outbox_sent AS s USING old WHERE s.seq = old.seq
"""
_FORGET = """
WITH waiting AS (DELETE FROM outbox WHERE type = $1 AND key = $2),
     sent AS (DELETE FROM outbox_sent WHERE type = $1 AND key = $2)
UPDATE event_decision SET payload = NULL WHERE attributes ->> 'type' = $1 AND attributes ->> 'subject' = $2
"""
COUNTED = 10_000


@dataclass(frozen=True, slots=True)
class WaitingEvent:
    """An event that the broker does not have yet."""

    seq: int
    event_id: UUID
    topic: str
    partition: int
    key: str
    type: str
    version: int
    occurred_at: datetime
    size: int
    """Of its payload, in bytes."""


@dataclass(frozen=True, slots=True)
class SentEvents:
    """Events that were published before: how many, and when they occurred."""

    events: int
    first_at: datetime | None
    last_at: datetime | None


async def list_waiting(connection: Any, topic: str = "", limit: int = 100, after: int = 0) -> list[WaitingEvent]:
    """Return the oldest events that wait, at most `limit`, after the one with the number `after`."""
    return [WaitingEvent(**row) for row in await connection.fetch(_WAITING, topic, after, limit)]


async def count_waiting(connection: Any, topic: str = "") -> int:
    """Return how many events wait, counted up to COUNTED."""
    found: int = await connection.fetchval(_COUNT, topic, COUNTED)
    return found


async def skip_waiting(connection: Any, source: str, event_id: UUID, by: DecidedBy) -> WaitingEvent:
    """Take an event out of the outbox that no broker will ever take; it is kept with the decision.

    If the relay is about to publish it, the broker may have it nevertheless. Raises DecisionError.
    """
    async with connection.transaction():
        row = await connection.fetchrow(_TAKE, event_id)
        if row is None:
            raise DecisionError("OUTBOX_EVENT_UNKNOWN", f"no event {event_id} waits in the outbox")
        event = CloudEvent(
            event_id=event_id,
            source=source,
            type=row["type"],
            topic=row["topic"],
            key=row["key"],
            version=row["version"],
            occurred_at=row["occurred_at"],
            headers=json.loads(row["headers"]),
            payload=row["payload"],
        )
        kept = (attributes(event, row["dataschema"]), event.payload)
        effect = f"{event.type} of {event.key} is not published"
        await note_decision(connection, DecisionKind.SKIP_OUTBOX, str(event_id), by, effect, kept)
    return WaitingEvent(**{name: row[name] for name in WaitingEvent.__slots__})


async def count_sent(connection: Any, topic: str, since: datetime, keep: timedelta, key: str = "") -> SentEvents:
    """Return what `republish` would publish once more. Raises DecisionError when that is not kept any more."""
    if not keep:
        raise DecisionError("NOT_KEPT", "this service does not keep what it has published (AMENDS_OUTBOX_KEEP)")
    if since < (oldest := datetime.now(UTC) - keep):
        raise DecisionError("NOT_KEPT", f"what was published is kept since {oldest:%Y-%m-%dT%H:%M:%SZ}")
    return SentEvents(**await connection.fetchrow(_SENT_COUNT, topic, since, key))


async def republish(
    connection: Any, topic: str, since: datetime, keep: timedelta, by: DecidedBy, key: str = ""
) -> SentEvents:
    """Put events that were published, and occurred from a moment on, into the outbox once more.

    They keep their ids, so that consumers drop what they know, and their order, before all that waits. Raises
    DecisionError.
    """
    async with connection.transaction():
        found = await count_sent(connection, topic, since, keep, key)
        await connection.execute(_PUT_BACK, topic, since, key)
        about = topic if not key else f"{topic} {key}"
        effect = f"{found.events} events from {since.astimezone(UTC).isoformat()} on"
        await note_decision(connection, DecisionKind.REPUBLISH, about, by, effect)
    return found


async def forget_events(connection: Any, message: type[Message], key: str) -> None:
    """Delete what the database still has of events of one type that happened to `key`, because of what is in them.

    Those that wait are not published. The broker has what it has until its retention ends.
    """
    await connection.execute(_FORGET, event_type(message).name, key)


async def expire_sent(connection: Any, keep: timedelta, limit: int) -> int:
    """Forget at most `limit` events that were published longer ago than `keep`; return how many."""
    tag: str = await connection.execute(_EXPIRE, keep, limit)
    return int(tag.rpartition(" ")[2])
