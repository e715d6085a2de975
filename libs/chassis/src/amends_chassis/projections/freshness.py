"""As of when a projection is: everything that was published before that moment is in it.

A partition that was read to its end is as fresh as the moment at which its end was asked for; any other is as old as
the last event that was handled. A projection is as old as the oldest of its partitions.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import asyncpg
import structlog
from amends_events import Broker, BrokerError, Ends, Topic
from google.protobuf.timestamp_pb2 import Timestamp

from amends_chassis.database import Database, Executes
from amends_chassis.errors import Unavailable
from amends_chassis.timestamps import timestamp

if TYPE_CHECKING:
    from amends_chassis.database import Connection

LOOK_EVERY = timedelta(seconds=1)

_log = structlog.get_logger(__name__)

_PLACES = "SELECT topic, partition, position, event_id, event_at FROM inbox_position WHERE consumer = $1"
_OF_SERVING = """
SELECT topic, partition, position, event_at FROM inbox_position
WHERE consumer = (SELECT $1 || '@' || version FROM projection WHERE state = 'serving')
"""
_AT_MOMENT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"


async def places(connection: Executes, consumer: str) -> Sequence[Any]:
    """Return where a consumer is: topic, partition, position, event_id and event_at."""
    return await connection.fetch(_PLACES, consumer)


async def begin_reading(connection: Executes, name: str) -> Sequence[Any]:
    """Let the transaction see one moment, and return where the consumer of what is shown is in that moment.

    `name` is that of the kind of projection.
    """
    await connection.execute(_AT_MOMENT)
    return await connection.fetch(_OF_SERVING, name)


class Freshness:
    """Knows the ends of the logs, as they were a moment ago."""

    def __init__(self, broker: Broker | None, topics: Collection[Topic]) -> None:
        """Look at these topics. Without a broker nothing is ever published, so everything is there."""
        self._broker = broker
        self._topics = tuple(topics)
        self._partitions = sum(topic.partitions for topic in self._topics)
        self._asked_at: datetime | None = None
        self._ends: dict[tuple[str, int], Ends] = {}

    async def run(self) -> None:
        """Keep looking, for ever."""
        while True:
            try:
                await self.look()
            except BrokerError as error:
                _log.warning("freshness.broker_away", error=f"{type(error).__name__}: {error}")
            await asyncio.sleep(LOOK_EVERY.total_seconds())

    async def look(self) -> None:
        """Ask for the ends of all logs. Raises BrokerError."""
        asked_at = datetime.now(UTC)
        found: dict[tuple[str, int], Ends] = {}
        if self._broker is not None:
            answers = await asyncio.gather(*(self._broker.ends(topic.name) for topic in self._topics))
            for topic, answer in zip(self._topics, answers, strict=True):
                found |= {(topic.name, partition): ends for partition, ends in answer.items()}
        self._asked_at, self._ends = asked_at, found

    @asynccontextmanager
    async def moment(
        self, database: Database, name: str, what: str
    ) -> "AsyncIterator[tuple[Connection, Timestamp | None]]":
        """Yield a transaction that sees one moment of what serves, and as of when that is; None while nobody knows.

        `name` is that of the kind of projection, `what` what people call one. Raises Unavailable before there is one.
        """
        try:
            async with database.transaction() as transaction:
                as_of = self.as_of(await begin_reading(transaction, name))
                yield transaction, None if as_of is None else timestamp(as_of)
        except asyncpg.UndefinedTableError as error:
            raise Unavailable("PROJECTION_MISSING", f"The first {what} is still being built.") from error

    def as_of(self, read: Sequence[Any]) -> datetime | None:
        """Return as of when is what a consumer has read that is at these `places`; None while that is not known."""
        if self._broker is None:
            return self._asked_at
        moments = [self._moment(place) for place in read]
        if len(moments) < self._partitions or None in moments:
            return None
        return min(moment for moment in moments if moment is not None)

    def _moment(self, place: Any) -> datetime | None:
        event_at: datetime | None = place["event_at"]
        ends = self._ends.get((place["topic"], place["partition"]))
        if ends is None or self._asked_at is None or place["position"] < ends.last:
            return event_at
        return self._asked_at if event_at is None else max(self._asked_at, event_at)

    def left(self, read: Sequence[Any]) -> int:
        """Return how many records of the logs a consumer that is at these `places` has not read."""
        position = _positions(read)
        return sum(max(0, ends.last - position.get(place, 0)) for place, ends in self._ends.items())

    def has_lost(self, read: Sequence[Any]) -> bool:
        """Return whether a log does not have any more what a consumer that is at these `places` would read next."""
        position = _positions(read)
        return any(
            position.get(place, 0) + 1 < ends.first or position.get(place, 0) > ends.last
            for place, ends in self._ends.items()
        )


def _positions(read: Sequence[Any]) -> dict[tuple[str, int], int]:
    return {(place["topic"], place["partition"]): place["position"] for place in read}
