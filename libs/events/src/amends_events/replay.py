"""Replay: a consumer goes back in the log and reads on from there.

What it has handled is in its inbox and is dropped again, so a replay onto a live consumer has no second effect. It is
for a consumer whose database was restored, or whose inbox lacks something. For the tools of who is on call.
"""

from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from amends_events.broker import Broker, Ends
from amends_events.envelope import EnvelopeError, event_from
from amends_events.topics import Topic

_POSITIONS = "SELECT partition, position FROM inbox_position WHERE consumer = $1 AND topic = $2"
# The fence ends whoever reads the partition now; the event at the position is unknown until the next commit.
_MOVE = """
UPDATE inbox_position SET position = $4, event_id = NULL, owner = NULL, lease_until = NULL, fence = fence + 1
WHERE consumer = $1 AND topic = $2 AND partition = $3
"""


_BEGIN = """
INSERT INTO inbox_position (consumer, topic, partition, position)
SELECT $1, $2, place.partition, place.position FROM unnest($3::smallint[], $4::bigint[]) AS place (partition, position)
ON CONFLICT DO NOTHING
"""


@dataclass(frozen=True, slots=True)
class Rewind:
    """What a replay does to one partition."""

    partition: int
    position: int
    """Where the consumer is."""
    back_to: int
    """Where it goes on after."""


async def begin(connection: Any, broker: Broker, consumer: str, topic: Topic) -> None:
    """Let a consumer that has never read the topic begin behind what the log has now.

    For one that takes what was before from elsewhere, such as an export: the position is taken first, so that whatever
    comes between is in both. Raises BrokerError.
    """
    ends = await broker.ends(topic.name)
    await connection.execute(_BEGIN, consumer, topic.name, list(ends), [one.last for one in ends.values()])


async def plan_replay(
    connection: Any, broker: Broker, consumer: str, topic: Topic, since: datetime | int, key: str | None = None
) -> list[Rewind]:
    """Return what a replay from a time, or from a position, would move. With `key`: the partition of that key alone.

    A time is that of the events; the log is in the order in which they were published, which differs by moments.
    Raises BrokerError.
    """
    ends = await broker.ends(topic.name)
    moves = []
    for row in await connection.fetch(_POSITIONS, consumer, topic.name):
        partition = row["partition"]
        if partition not in ends or (key is not None and partition != topic.partition_of(key)):
            continue
        if isinstance(since, int):
            back_to = max(since - 1, 0)
        else:
            back_to = await _before(broker, topic.name, partition, ends[partition], since)
        if back_to < row["position"]:
            moves.append(Rewind(partition, row["position"], back_to))
    return moves


async def replay(connection: Any, consumer: str, topic: Topic, moves: list[Rewind]) -> None:
    """Move a consumer back. Whoever reads the partitions now stops without a commit, and goes on from there."""
    for move in moves:
        await connection.execute(_MOVE, consumer, topic.name, move.partition, move.back_to)


async def _before(broker: Broker, topic: str, partition: int, ends: Ends, since: datetime) -> int:
    """Return the position before the first event that is not older than `since`, found by halving."""
    low, high = ends.first, ends.last + 1
    while low < high:
        middle = (low + high) // 2
        if await _occurred_at(broker, topic, partition, middle) < since:
            low = middle + 1
        else:
            high = middle
    return low - 1


async def _occurred_at(broker: Broker, topic: str, partition: int, position: int) -> datetime:
    """Return when the event at a position, or the next one that can be read, occurred."""
    async with aclosing(broker.read(topic, partition, position - 1)) as batches:
        async for batch in batches:
            for stored in batch:
                try:
                    return event_from(topic, stored.record.attributes, b"").occurred_at
                except EnvelopeError:
                    continue
    raise AssertionError("reading a log never ends")
