"""A log that a test has to itself on a server that tests share, and events that are put into it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from amends_events import Broker, CloudEvent, Ends, EventRecord, Topic, event_type
from amends_events.envelope import attributes, new_event_id
from google.protobuf.message import Message

RETENTION = timedelta(hours=1)
_AT_ONCE = 250


@dataclass(frozen=True)
class ToldEvent:
    """An event, with the version that it gives the row of the service that tells it."""

    message: Message
    version: int
    at: datetime

    @property
    def kind(self) -> str:
        """Return the full name of the message."""
        return str(self.message.DESCRIPTOR.full_name)

    @property
    def key(self) -> str:
        """Return the event's key."""
        return event_type(type(self.message)).key_of(self.message)

    @property
    def topic(self) -> Topic:
        """Return the topic that the event belongs to."""
        return event_type(type(self.message)).topic

    @property
    def record(self) -> EventRecord:
        """Return the event as a log has it, under a new id each time."""
        event = CloudEvent(
            event_id=new_event_id(),
            source="/shop",
            type=self.kind,
            topic=self.topic.name,
            key=self.key,
            version=self.version,
            occurred_at=self.at,
            headers={},
            payload=self.message.SerializeToString(),
        )
        return EventRecord(attributes(event, "urn:sha256:0"), event.payload)


class PrefixedBroker:
    """A broker whose topics have a prefix, so that tests share a server and no topic; with none, those of contracts."""

    def __init__(self, broker: Broker, topics: Iterable[Topic], prefix: str = "") -> None:
        self.broker = broker
        self._topics = list(topics)
        self._prefix = prefix

    def name(self, topic: str) -> str:
        """Return what a topic is called on the server."""
        return f"{self._prefix}.{topic}" if self._prefix else topic

    async def make_topics(self) -> None:
        """Make the topics on the server."""
        topics = [Topic(self.name(topic.name), topic.partitions) for topic in self._topics]
        await self.broker.ensure(topics, RETENTION)

    async def tell(self, told: Iterable[ToldEvent]) -> None:
        """Put events into the log, those of a partition in the order that they have here."""
        places: dict[tuple[str, int], list[EventRecord]] = {}
        for one in told:
            places.setdefault((one.topic.name, one.topic.partition_of(one.key)), []).append(one.record)
        for (topic, partition), records in places.items():
            for first in range(0, len(records), _AT_ONCE):
                await self.append(topic, partition, records[first : first + _AT_ONCE])

    async def ensure(self, topics: Sequence[Topic], retention: timedelta) -> None:
        """Do nothing: the topics are there."""

    async def append(self, topic: str, partition: int, records: Sequence[EventRecord]) -> int:
        """Append to the topic under its prefix."""
        return await self.broker.append(self.name(topic), partition, records)

    def read(self, topic: str, partition: int, after: int, **options: Any) -> Any:
        """Read the topic under its prefix."""
        return self.broker.read(self.name(topic), partition, after, **options)

    async def ends(self, topic: str) -> dict[int, Ends]:
        """Return the ends of the topic under its prefix."""
        return await self.broker.ends(self.name(topic))

    async def close(self) -> None:
        """Do nothing: who opened the broker closes it."""
