"""Where consumers are: how far behind, who reads for them, and whether the log goes on there. For who is on call."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from amends_events.broker import AppendRefusedError, Broker, Ends, PositionLostError
from amends_events.positions import check_event, read_after, topic_ends

_PLACES = """
SELECT consumer, topic, partition, position, event_id, event_at,
    CASE WHEN lease_until > now() THEN owner END AS owner,
    (SELECT count(DISTINCT key) FROM inbox_parked AS parked
     WHERE parked.consumer = p.consumer AND parked.topic = p.topic AND parked.partition = p.partition
       AND parked.released_at IS NULL) AS blocked_keys
FROM inbox_position AS p WHERE ($1 = '' OR consumer = $1) AND ($2 = '' OR topic = $2)
ORDER BY consumer, topic, partition
"""


class ReadingState(StrEnum):
    """How a partition is read."""

    READING = "reading"
    UNOWNED = "unowned"
    """No process has it."""
    POSITION_LOST = "position-lost"
    """The log does not go on at the position."""


@dataclass(frozen=True, slots=True)
class PartitionLag:
    """Where a consumer is in a partition."""

    consumer: str
    topic: str
    partition: int
    position: int
    ends: Ends
    """Of the log; from 1 to 0 where there is none."""
    lag: int
    """How many records are still to be read."""
    event_at: datetime | None
    owner: str | None
    blocked_keys: int
    state: ReadingState
    problem: str
    """Why the position is lost, or the log cannot be read; empty when it can."""


async def list_lag(connection: Any, broker: Broker, consumer: str = "", topic: str = "") -> list[PartitionLag]:
    """Return where consumers are in each partition; an empty text means all. Raises BrokerError."""
    rows = await connection.fetch(_PLACES, consumer, topic)
    topics: dict[str, int] = {}
    for row in rows:
        topics[row["topic"]] = max(row["position"], topics.get(row["topic"], 0))
    ends = {name: await _ends(broker, name, position) for name, position in topics.items()}
    return list(await asyncio.gather(*(_lag(broker, row, *ends[row["topic"]]) for row in rows)))


async def _ends(broker: Broker, topic: str, position: int) -> tuple[dict[int, Ends], str]:
    """Return the ends of a topic, and what is wrong with it when there is none."""
    try:
        return await topic_ends(broker, topic, position), ""
    except (AppendRefusedError, PositionLostError) as error:
        return {}, str(error)


async def _lag(broker: Broker, row: Mapping[str, Any], there: Mapping[int, Ends], problem: str) -> PartitionLag:
    topic, partition, position = row["topic"], row["partition"], row["position"]
    ends = there.get(partition)
    state = ReadingState.READING if row["owner"] else ReadingState.UNOWNED
    after = 0
    try:
        if there or position:
            after = read_after(topic, partition, position, ends)
        if ends is not None and row["event_id"] is not None and ends.first <= position:
            await check_event(broker, topic, partition, position, row["event_id"])
    except PositionLostError as error:
        state, problem = ReadingState.POSITION_LOST, problem or str(error)
    known = Ends(1, 0) if ends is None else ends
    return PartitionLag(
        consumer=row["consumer"],
        topic=topic,
        partition=partition,
        position=position,
        ends=known,
        lag=max(0, known.last - max(after, known.first - 1)),
        event_at=row["event_at"],
        owner=row["owner"],
        blocked_keys=row["blocked_keys"],
        state=state,
        problem=problem,
    )
