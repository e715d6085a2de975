"""Replay: a consumer moves in the log and reads on from there.

What it has handled is in its inbox and is dropped again, so a replay onto a live consumer has no second effect. It is
for a consumer whose inbox lacks something, and for one whose position is lost. For the tools of who is on call.
"""

from collections.abc import Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from amends_events.broker import Broker, Ends
from amends_events.decisions import DecidedBy, DecisionError, DecisionKind, note_decision
from amends_events.envelope import EnvelopeError, event_from
from amends_events.topics import Topic

_POSITIONS = """
SELECT partition, position FROM inbox_position
WHERE consumer = $1 AND topic = $2 AND ($3::smallint IS NULL OR partition = $3) ORDER BY partition
"""
# The fence ends whoever reads the partition now; the event at the position is unknown until the next commit.
_MOVE = """
UPDATE inbox_position SET position = $5, event_id = NULL, owner = NULL, lease_until = NULL, fence = fence + 1
WHERE consumer = $1 AND topic = $2 AND partition = $3 AND (position = $4 OR position > $5) RETURNING true
"""
_FORGET = "DELETE FROM inbox WHERE consumer = $1 AND event_id = ANY($2::uuid[])"
_BEGIN = """
INSERT INTO inbox_position (consumer, topic, partition, position)
SELECT $1, $2, place.partition, place.position FROM unnest($3::smallint[], $4::bigint[]) AS place (partition, position)
ON CONFLICT DO NOTHING
"""


@dataclass(frozen=True, slots=True)
class ReplayStart:
    """Where a replay begins, and what it is for."""

    since: datetime | int
    """The moment from which on events occurred, or the position of the first; 1 or less is the oldest that there is."""
    key: str | None = None
    """Only the partition of this key."""
    partition: int | None = None
    """Only this partition."""


@dataclass(frozen=True, slots=True)
class ReplayMove:
    """What a replay does to one partition."""

    partition: int
    position: int
    """Where the consumer is."""
    back_to: int
    """Where it goes on after."""
    events: int
    """How many records it reads from there to where it was, or to the end of a log that is shorter."""
    lost: int
    """How many records it has not read and never will, because the log has forgotten them."""


async def begin(connection: Any, broker: Broker, consumer: str, topic: Topic) -> None:
    """Let a consumer that has never read the topic begin behind what the log has now.

    For one that takes what was before from elsewhere, such as an export: the position is taken first, so that whatever
    comes between is in both. Raises BrokerError.
    """
    ends = await broker.ends(topic.name)
    await connection.execute(_BEGIN, consumer, topic.name, list(ends), [one.last for one in ends.values()])


async def plan_replay(
    connection: Any, broker: Broker, consumer: str, topic: Topic, start: ReplayStart
) -> list[ReplayMove]:
    """Return what a replay from a time, or from a position, would move.

    A time is that of the events; the log is in the order in which they were published, which differs by moments.
    A partition whose log has forgotten what comes next goes on at the oldest record. Raises BrokerError, and
    DecisionError for a consumer that has no place in the topic.
    """
    if start.key is not None and start.partition not in (None, topic.partition_of(start.key)):
        raise DecisionError("TOPIC_UNKNOWN", f"{start.key} is in partition {topic.partition_of(start.key)}")
    partition = start.partition if start.key is None else topic.partition_of(start.key)
    rows = await connection.fetch(_POSITIONS, consumer, topic.name, partition)
    if not rows:
        raise DecisionError("CONSUMER_UNKNOWN", f"{consumer} has no place in {topic.name}")
    ends = await broker.ends(topic.name)
    moves = [
        await _move(broker, topic.name, row["partition"], row["position"], ends[row["partition"]], start.since)
        for row in rows
        if row["partition"] in ends
    ]
    return [move for move in moves if move.back_to != move.position]


async def _move(
    broker: Broker, topic: str, partition: int, position: int, ends: Ends, since: datetime | int
) -> ReplayMove:
    """Return the move of one partition; to where it is when it need not move."""
    oldest = ends.first - 1
    if 0 < position < oldest:
        return ReplayMove(partition, position, oldest, 0, oldest - position)
    if isinstance(since, int):
        target = max(since - 1, oldest)
    else:
        target = await _before(broker, topic, partition, ends, since)
    back_to = min(position, max(target, 0))
    return ReplayMove(partition, position, back_to, max(0, min(position, ends.last) - max(back_to, oldest)), 0)


async def replay(
    connection: Any,
    consumer: str,
    topic: Topic,
    moves: Sequence[ReplayMove],
    by: DecidedBy,
    forget: Sequence[UUID] = (),
) -> None:
    """Move a consumer. Whoever reads the partitions now stops without a commit, and goes on from there.

    With `forget`, the ids of events, it handles these again. Raises DecisionError when somebody has moved it meanwhile.
    """
    async with connection.transaction():
        for move in moves:
            place = (consumer, topic.name, move.partition)
            if not await connection.fetchval(_MOVE, *place, move.position, move.back_to):
                raise DecisionError(
                    "MOVED_MEANWHILE", f"{consumer} was moved in {topic.name}.{move.partition} while this was decided"
                )
        if forget:
            await connection.execute(_FORGET, consumer, list(forget))
        events, lost = sum(move.events for move in moves), sum(move.lost for move in moves)
        effect = "; ".join(f"partition {one.partition}: from {one.position} to {one.back_to}" for one in moves)
        again = f", {len(forget)} events forgotten" if forget else ""
        summary = f"{effect} ({events} to be read again, {lost} lost{again})"
        await note_decision(connection, DecisionKind.REPLAY, f"{consumer} {topic.name}", by, summary)


async def ids_to_forget(
    broker: Broker, topic: Topic, moves: Sequence[ReplayMove], key: str | None = None
) -> list[UUID]:
    """Return the ids of the events that a replay reads again, with `key` of that key alone. Raises BrokerError."""
    found: list[UUID] = []
    for move in moves:
        left = move.events
        if not left:
            continue
        async with aclosing(broker.read(topic.name, move.partition, move.back_to)) as batches:
            async for batch in batches:
                for stored in batch[:left]:
                    try:
                        event = event_from(topic.name, stored.record.attributes, b"")
                    except EnvelopeError:
                        continue
                    if key is None or event.key == key:
                        found.append(event.event_id)
                left -= len(batch)
                if left <= 0:
                    break
    return found


async def _before(broker: Broker, topic: str, partition: int, ends: Ends, since: datetime) -> int:
    """Return the position before the first event that is not older than `since`, found by halving."""
    low, high = ends.first, ends.last + 1
    while low < high:
        middle = (low + high) // 2
        at = await _occurred_at(broker, topic, partition, middle, ends.last)
        if at is not None and at < since:
            low = middle + 1
        else:
            high = middle
    return low - 1


async def _occurred_at(broker: Broker, topic: str, partition: int, position: int, last: int) -> datetime | None:
    """Return when the event at a position, or the next one that can be read, occurred; None when there is none."""
    async with aclosing(broker.read(topic, partition, position - 1)) as batches:
        async for batch in batches:
            for stored in batch:
                with suppress(EnvelopeError):
                    return event_from(topic, stored.record.attributes, b"").occurred_at
                if stored.position >= last:
                    return None
    raise AssertionError("reading a log never ends")
