"""Whether a log goes on where a consumer is: it may have forgotten too early, or be another log by now.

The partition that is read asks this before it reads, and the tools of who is on call before they say where it is.
"""

from contextlib import aclosing
from datetime import timedelta
from uuid import UUID

from amends_events.broker import AppendRefusedError, Broker, Ends, EventRecord, PositionLostError
from amends_events.envelope import EnvelopeError, id_of

_WAIT = timedelta(seconds=1)


async def topic_ends(broker: Broker, topic: str, position: int) -> dict[int, Ends]:
    """Return the ends of a topic's partitions for a consumer that is at `position` in one of them.

    Raises PositionLostError when there is no such topic any more; AppendRefusedError when there was never one.
    """
    try:
        return await broker.ends(topic)
    except AppendRefusedError as error:
        if position:
            raise PositionLostError(f"{error}; up to {position} was read") from error
        raise


def read_after(topic: str, partition: int, position: int, ends: Ends | None) -> int:
    """Return the position after which a consumer reads on. Raises PositionLostError when it is outside of the log."""
    if ends is None:
        raise PositionLostError(f"{topic} has no partition {partition}")
    if position <= 0:
        return ends.first - 1
    if position > ends.last or position + 1 < ends.first:
        raise PositionLostError(f"{topic}.{partition} has {ends.first} to {ends.last}, and up to {position} was read")
    return position


def is_event(record: EventRecord, known: UUID) -> bool:
    """Return whether a record is the event with this id."""
    try:
        return id_of(record.attributes) == known
    except EnvelopeError:
        return False


def another_event(topic: str, partition: int, position: int) -> PositionLostError:
    """Return the error for a log that has another event at a position than was read there."""
    return PositionLostError(f"{topic}.{partition} has another event at {position} than was read there")


async def check_event(broker: Broker, topic: str, partition: int, position: int, known: UUID) -> None:
    """Look whether the log has the event that a consumer read at its position.

    Raises PositionLostError when it has another one, UnknownError when the broker does not say.
    """
    async with aclosing(broker.read(topic, partition, position - 1, limit=1, wait=_WAIT)) as batches:
        async for batch in batches:
            if batch and not is_event(batch[0].record, known):
                raise another_event(topic, partition, position)
            return
