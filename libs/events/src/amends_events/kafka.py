"""The broker port over Kafka: one idempotent producer, and readers that assign and seek. No groups, no transactions.

A group's consumer of aiokafka can hang after a restart of the broker without a sign, and its first message comes after
seconds; assigned partitions have neither fault. Made by `open_broker`.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition  # type: ignore[import-untyped]
from aiokafka.admin import AIOKafkaAdminClient, NewTopic  # type: ignore[import-untyped]
from aiokafka.errors import (  # type: ignore[import-untyped]
    KafkaError,
    MessageSizeTooLargeError,
    OffsetOutOfRangeError,
    PolicyViolationError,
    RecordListTooLargeError,
    TopicAlreadyExistsError,
)

from amends_events.broker import (
    AppendRefusedError,
    Ends,
    EventRecord,
    LogEntry,
    PositionLostError,
    TopicError,
    UnknownError,
    no_topic,
    other_partitions,
)
from amends_events.topics import Topic

CALL_TIMEOUT = timedelta(seconds=5)
REQUEST_TIMEOUT = timedelta(seconds=4)
STOP_TIMEOUT = timedelta(seconds=2)
REPLICAS = 3
"""Fewer in a cluster of fewer brokers. The admin client cannot ask for the cluster's own default."""
MAX_BATCH_BYTES = 512 * 1024
"""One batch of the log: stored whole or not at all, below the broker's default for one message of 1 MiB."""

_PREFIX = "ce_"
_CONTENT_TYPE = "content-type"
_REFUSED = (MessageSizeTooLargeError, RecordListTooLargeError, PolicyViolationError)
_AWAY = (KafkaError, OSError, TimeoutError)

T = TypeVar("T")


class KafkaBroker:
    """The log in a Kafka cluster."""

    def __init__(self, servers: str) -> None:
        """Take HOST:PORT[,HOST:PORT]; connections are made at the first use."""
        self._servers = servers.split(",")
        self._producer: AIOKafkaProducer | None = None
        self._asking: AIOKafkaConsumer | None = None
        self._topics: dict[str, set[int]] = {}
        """Topics that were seen, with their partitions: whoever names another one could make Kafka create it."""
        self._lock = asyncio.Lock()

    async def ensure(self, topics: Sequence[Topic], retention: timedelta) -> None:
        """Make the topics that are not there, with up to REPLICAS replicas."""
        there = await self._look()
        for topic in topics:
            partitions = there.get(topic.name)
            if partitions is not None and len(partitions) != topic.partitions:
                raise other_partitions(topic, len(partitions))
        missing = [topic for topic in topics if topic.name not in there]
        if missing:
            await self._make(missing, retention)
            await self._settled({topic.name for topic in missing})

    async def _make(self, topics: Sequence[Topic], retention: timedelta) -> None:
        config = {
            "retention.ms": str(round(retention / timedelta(milliseconds=1))),
            "cleanup.policy": "delete",
            "message.timestamp.type": "CreateTime",
        }
        replicas = min(REPLICAS, len((await self._asked())._client.cluster.brokers()))
        wanted = [NewTopic(topic.name, topic.partitions, replicas, topic_configs=config) for topic in topics]
        admin = AIOKafkaAdminClient(bootstrap_servers=self._servers)
        try:
            await _within(admin.start())
            answer = await _within(admin.create_topics(wanted))
        finally:
            with suppress(*_AWAY):
                await _within(admin.close())
        for name, code, *said in answer.topic_errors:
            if code not in (0, TopicAlreadyExistsError.errno):
                raise TopicError(f"the topic {name} cannot be made: {said[0] if said else code}")

    async def _settled(self, names: set[str]) -> None:
        """Wait until the cluster shows new topics, with a leader for each partition."""
        end = asyncio.get_running_loop().time() + CALL_TIMEOUT.total_seconds()
        while not names <= (await self._look()).keys():
            if asyncio.get_running_loop().time() > end:
                raise UnknownError(f"the cluster does not show {', '.join(sorted(names))} yet")
            await asyncio.sleep(0.05)

    async def _look(self) -> dict[str, set[int]]:
        """Ask for all topics and their partitions. A question about one that is not there could make it."""
        consumer = await self._asked()
        await _within(consumer._client.force_metadata_update())
        cluster = consumer._client.cluster
        names = cluster.topics(exclude_internal_topics=False)
        self._topics = {name: set(cluster.partitions_for_topic(name) or ()) for name in names}
        return self._topics

    async def append(self, topic: str, partition: int, records: Sequence[EventRecord]) -> int:
        """Store the records as one batch of the log, or several when they are large. Kafka tells of no repetitions."""
        await self._known(topic)
        producer = await self._produced()
        batches = self._batches(producer, records)
        try:
            async with asyncio.timeout(CALL_TIMEOUT.total_seconds()):
                sent = [await producer.send_batch(batch, topic, partition=partition) for batch in batches]
                await asyncio.gather(*sent)
        except _REFUSED as error:
            if len(batches) > 1:
                raise UnknownError(f"{type(error).__name__}: {error}") from error
            raise AppendRefusedError(f"{type(error).__name__}: {error}") from error
        except _AWAY as error:
            await self._renew(producer)
            raise UnknownError(f"{type(error).__name__}: {error}") from error
        return 0

    def _batches(self, producer: AIOKafkaProducer, records: Iterable[EventRecord]) -> list[Any]:
        batches: list[Any] = []
        for record in records:
            if not batches or not _put(batches[-1], record):
                batches.append(producer.create_batch())
                if not _put(batches[-1], record):
                    raise AppendRefusedError(
                        f"the event {record.attributes['id']} is larger than {MAX_BATCH_BYTES} bytes"
                    )
        for batch in batches:
            batch.close()
        return batches

    async def _produced(self) -> AIOKafkaProducer:
        async with self._lock:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    bootstrap_servers=self._servers,
                    enable_idempotence=True,
                    max_batch_size=MAX_BATCH_BYTES,
                    request_timeout_ms=round(REQUEST_TIMEOUT / timedelta(milliseconds=1)),
                )
                await _started(producer)
                self._producer = producer
            return self._producer

    async def _renew(self, producer: AIOKafkaProducer) -> None:
        """Let a producer go that has failed: some of its errors are for good, and it does not say which.

        What it has in flight may still be stored. That is a repetition of what the next one sends first.
        """
        async with self._lock:
            if self._producer is producer:
                self._producer = None
        await _stopped(producer)

    async def read(
        self, topic: str, partition: int, after: int, *, limit: int = 100, wait: timedelta = timedelta(seconds=1)
    ) -> AsyncGenerator[list[LogEntry], None]:
        """Read through a consumer of its own that has one partition assigned."""
        await self._known(topic)
        place = TopicPartition(topic, partition)
        consumer = self._consumer()
        milliseconds = round(wait / timedelta(milliseconds=1))
        try:
            await _started(consumer)
            consumer.assign([place])
            consumer.seek(place, after)
            while True:
                found = await consumer.getmany(place, timeout_ms=milliseconds, max_records=limit)
                yield [_stored(message) for message in found.get(place, ())]
        except OffsetOutOfRangeError as error:
            raise PositionLostError(f"{topic}.{partition} does not go on after {after}") from error
        except _AWAY as error:
            raise UnknownError(f"{type(error).__name__}: {error}") from error
        finally:
            await _stopped(consumer)

    def _consumer(self) -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            bootstrap_servers=self._servers,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            request_timeout_ms=round(REQUEST_TIMEOUT / timedelta(milliseconds=1)),
        )

    async def ends(self, topic: str) -> dict[int, Ends]:
        """Return the offsets of each partition, counted from 1."""
        partitions = await self._known(topic)
        places = [TopicPartition(topic, partition) for partition in sorted(partitions)]
        consumer = await self._asked()
        first = await _within(consumer.beginning_offsets(places))
        after = await _within(consumer.end_offsets(places))
        return {place.partition: Ends(first[place] + 1, after[place]) for place in places}

    async def _known(self, topic: str) -> set[int]:
        partitions = self._topics.get(topic) or (await self._look()).get(topic)
        if not partitions:
            raise no_topic(topic)
        return partitions

    async def _asked(self) -> AIOKafkaConsumer:
        async with self._lock:
            if self._asking is None:
                consumer = self._consumer()
                await _started(consumer)
                self._asking = consumer
            return self._asking

    async def close(self) -> None:
        """Stop the producer and whoever asks."""
        producer, self._producer = self._producer, None
        asking, self._asking = self._asking, None
        for one in (producer, asking):
            if one is not None:
                await _stopped(one)


async def _within(call: Awaitable[T]) -> T:
    try:
        async with asyncio.timeout(CALL_TIMEOUT.total_seconds()):
            return await call
    except _AWAY as error:
        raise UnknownError(f"{type(error).__name__}: {error}") from error


async def _started(client: Any) -> None:
    try:
        await _within(client.start())
    except (UnknownError, asyncio.CancelledError):
        await _stopped(client)
        raise


async def _stopped(client: Any) -> None:
    with suppress(*_AWAY):
        async with asyncio.timeout(STOP_TIMEOUT.total_seconds()):
            await client.stop()


def _put(batch: Any, record: EventRecord) -> bool:
    headers = [(_CONTENT_TYPE, record.attributes.get("datacontenttype", "").encode())]
    headers += [
        (f"{_PREFIX}{name}", value.encode()) for name, value in record.attributes.items() if name != "datacontenttype"
    ]
    key = record.attributes["subject"].encode()
    return batch.append(key=key, value=record.payload, timestamp=None, headers=headers) is not None


def _stored(message: Any) -> LogEntry:
    headers = {name: (value or b"").decode("utf-8", "replace") for name, value in message.headers}
    attributes = {name.removeprefix(_PREFIX): value for name, value in headers.items() if name.startswith(_PREFIX)}
    if _CONTENT_TYPE in headers:
        attributes["datacontenttype"] = headers[_CONTENT_TYPE]
    return LogEntry(message.offset + 1, EventRecord(attributes, message.value or b""))
