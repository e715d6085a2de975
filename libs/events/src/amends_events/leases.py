"""Which process of a consumer has which partition: leases and fences in the consumer's own Postgres.

A process renews its membership and its leases with every beat, takes its share of what nobody has, and gives up what
is more than its share. Taking a partition raises its fence; every transaction of an owner compares it, so a process
that stood still for too long cannot commit any more. Used by the consumer.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from amends_events.topics import Topic


@dataclass(frozen=True, slots=True)
class Claim:
    """A partition that this process has, and where the consumer is in it."""

    topic: str
    partition: int
    fence: int
    position: int
    event_id: UUID | None
    """The event at the position, if it is known: the log must still have it there, or it is another log."""


_MAKE = """
INSERT INTO inbox_position (consumer, topic, partition)
SELECT $1, place.topic, place.partition FROM unnest($2::text[], $3::smallint[]) AS place (topic, partition)
ON CONFLICT DO NOTHING
"""
_JOIN = """
INSERT INTO inbox_member (consumer, owner, lease_until) VALUES ($1, $2, now() + $3::interval)
ON CONFLICT (consumer, owner) DO UPDATE SET lease_until = excluded.lease_until
"""
_FORGET = "DELETE FROM inbox_member WHERE consumer = $1 AND lease_until < now() - interval '1 hour'"
_MEMBERS = "SELECT count(*) FROM inbox_member WHERE consumer = $1 AND lease_until > now()"
# Rows that a transaction has locked belong to somebody who works: their leases are renewed at the next beat.
_RENEW = """
WITH mine AS (
    SELECT topic, partition FROM inbox_position WHERE consumer = $1 AND owner = $2 FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE inbox_position AS p SET lease_until = now() + $3::interval FROM mine
WHERE p.consumer = $1 AND p.topic = mine.topic AND p.partition = mine.partition AND p.owner = $2
"""
_OWNED = "SELECT topic, partition, fence FROM inbox_position WHERE consumer = $1 AND owner = $2"
_CLAIM = """
WITH free AS (
    SELECT topic, partition FROM inbox_position
    WHERE consumer = $1 AND topic = ANY($5::text[]) AND (owner IS NULL OR lease_until < now())
    ORDER BY topic, partition LIMIT $4 FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE inbox_position AS p SET owner = $2, fence = fence + 1, lease_until = now() + $3::interval FROM free
WHERE p.consumer = $1 AND p.topic = free.topic AND p.partition = free.partition
RETURNING p.topic, p.partition, p.fence, p.position, p.event_id
"""
_RELEASE = """
UPDATE inbox_position SET owner = NULL, lease_until = NULL
WHERE consumer = $1 AND topic = $2 AND partition = $3 AND owner = $4 AND fence = $5
"""
_LEAVE = "DELETE FROM inbox_member WHERE consumer = $1 AND owner = $2"


class Leases:
    """The leases of one process for one consumer."""

    def __init__(self, consumer: str, owner: str, lease: timedelta) -> None:
        self._consumer = consumer
        self._owner = owner
        self._lease = lease

    async def make(self, connection: Any, topics: list[Topic]) -> None:
        """Make the rows of all partitions that have none; a new one begins at the oldest event that there is."""
        places = [(topic.name, partition) for topic in topics for partition in range(topic.partitions)]
        await connection.execute(
            _MAKE, self._consumer, [topic for topic, _ in places], [partition for _, partition in places]
        )
        await connection.execute(_FORGET, self._consumer)

    async def beat(self, connection: Any) -> dict[tuple[str, int], int]:
        """Renew what this process has; return the fences of its partitions."""
        await connection.execute(_JOIN, self._consumer, self._owner, self._lease)
        await connection.execute(_RENEW, self._consumer, self._owner, self._lease)
        rows = await connection.fetch(_OWNED, self._consumer, self._owner)
        return {(row["topic"], row["partition"]): row["fence"] for row in rows}

    async def share(self, connection: Any, partitions: int) -> int:
        """Return how many of the consumer's partitions each of its processes may have."""
        members: int = await connection.fetchval(_MEMBERS, self._consumer)
        return -(-partitions // max(1, members))

    async def claim(self, connection: Any, topics: list[Topic], limit: int) -> list[Claim]:
        """Take up to `limit` partitions of these topics that nobody has.

        An older or newer release under the same name may read others: what this one does not handle it would skip.
        """
        names = [topic.name for topic in topics]
        rows = await connection.fetch(_CLAIM, self._consumer, self._owner, self._lease, limit, names)
        return [Claim(**row) for row in rows]

    async def release(self, connection: Any, place: tuple[str, int], fence: int) -> None:
        """Give a partition of a topic back, so that another process need not wait for the lease to run out."""
        await connection.execute(_RELEASE, self._consumer, *place, self._owner, fence)

    async def leave(self, connection: Any) -> None:
        """End the membership of this process."""
        await connection.execute(_LEAVE, self._consumer, self._owner)
