"""The events of a service: what it publishes and consumes, its broker, and the metrics of both.

Made by `service.Runtime`, when a service says that it publishes or consumes something. The work is done by
`amends_events`; here it is started, counted, and tied to traces and logs.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import structlog
from amends_barrier.transaction import Pool
from amends_events import (
    Batches,
    Broker,
    BrokerError,
    Consumer,
    EventHandler,
    Outbox,
    Relay,
    Result,
    Topic,
    open_broker,
)
from amends_events.backlog import expire_sent
from amends_events.topics import event_types
from google.protobuf.message import Message
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from amends_chassis.context import traceparent
from amends_chassis.database import Database
from amends_chassis.settings import ServiceSettings

_log = structlog.get_logger(__name__)

NO_BROKER = "events.no_broker"
NO_TOPICS = "events.topics_missing"
_AGAIN = timedelta(seconds=1)
_EXPIRE_EVERY = timedelta(minutes=10)
_EXPIRED_AT_ONCE = 1000
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)


class EventMetrics:
    """The metrics of relay and consumers in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register the metrics; a registry takes them once."""
        place = ("consumer", "topic", "partition")
        self._published = Counter(
            "outbox_published", "Events that the broker has taken.", ("topic",), registry=registry
        )
        self._duplicates = Counter("outbox_duplicates", "Events that it had already.", ("topic",), registry=registry)
        self._seconds = Histogram(
            "outbox_publish_seconds", "How long batches took.", ("topic",), buckets=_SECONDS, registry=registry
        )
        self._retries = Counter(
            "outbox_retries", "Batches that are tried again.", ("topic", "reason"), registry=registry
        )
        self._rows = Gauge("outbox_rows", "Events that wait in the outbox, counted up to 10,000.", registry=registry)
        self._oldest = Gauge("outbox_oldest_seconds", "How long the oldest of them has waited.", registry=registry)
        self._handled = Counter(
            "inbox_handled", "What became of events.", ("consumer", "type", "result"), registry=registry
        )
        self._handle_seconds = Histogram(
            "inbox_handle_seconds", "How long batches took.", ("consumer", "topic"), buckets=_SECONDS, registry=registry
        )
        self._end_to_end = Histogram(
            "event_end_to_end_seconds",
            "From an event to the commit of its effect.",
            ("consumer", "topic"),
            buckets=_SECONDS,
            registry=registry,
        )
        self._lag = Gauge("inbox_lag_events", "Events that are still to be read.", place, registry=registry)
        self._blocked = Gauge("inbox_keys_blocked", "Keys behind a parked event.", place, registry=registry)
        self._fences = Counter("inbox_fence_lost", "Partitions taken by another.", ("consumer",), registry=registry)
        self._lost = Gauge("inbox_position_lost", "1: the log does not go on there.", place, registry=registry)

    def published(self, topic: str, events: int, duplicates: int, took: timedelta) -> None:
        """Count a batch that the broker has acknowledged."""
        self._published.labels(topic).inc(events)
        self._duplicates.labels(topic).inc(duplicates)
        self._seconds.labels(topic).observe(took.total_seconds())

    def publish_failed(self, topic: str, reason: str) -> None:
        """Count a batch that will be tried again."""
        self._retries.labels(topic, reason).inc()

    def backlog(self, rows: int, oldest: timedelta) -> None:
        """Note what waits in the outbox."""
        self._rows.set(rows)
        self._oldest.set(oldest.total_seconds())

    def handled(self, consumer: str, event_type: str, result: Result, events: int = 1) -> None:
        """Count what became of events of one type."""
        self._handled.labels(consumer, event_type, result).inc(events)

    def took(self, consumer: str, topic: str, batch: timedelta, since_occurred: timedelta) -> None:
        """Note how long a batch took, and how old its last event was when it was committed."""
        self._handle_seconds.labels(consumer, topic).observe(batch.total_seconds())
        self._end_to_end.labels(consumer, topic).observe(max(0.0, since_occurred.total_seconds()))

    def lag(self, consumer: str, topic: str, partition: int, events: int) -> None:
        """Note how many records of a partition are still to be read."""
        self._lag.labels(consumer, topic, partition).set(events)

    def keys_blocked(self, consumer: str, topic: str, partition: int, keys: int) -> None:
        """Note how many keys of a partition wait behind a parked event."""
        self._blocked.labels(consumer, topic, partition).set(keys)

    def fence_lost(self, consumer: str) -> None:
        """Count a partition that another process has taken over."""
        self._fences.labels(consumer).inc()

    def position_lost(self, consumer: str, topic: str, partition: int, lost: bool) -> None:
        """Note whether a partition stands still because its log does not go on at its position."""
        self._lost.labels(consumer, topic, partition).set(lost)


@dataclass(frozen=True, slots=True)
class Consumed:
    """What a consumer reads, and what may be done with it."""

    topics: tuple[Topic, ...]
    repeatable: bool
    """Whether its handlers may handle an event again."""
    remembers: bool
    """Whether its inbox has what it has handled."""


class ServiceEvents:
    """The events of one process."""

    def __init__(self, settings: ServiceSettings, database: Database, registry: CollectorRegistry) -> None:
        """Prepare; the broker is reached when there is something to publish or to read."""
        self._database = database
        self._retention = settings.broker_retention
        self._outboxes: list[Outbox] = []
        self.keep = settings.outbox_keep
        """How long what was published is kept."""
        self.consumed: dict[str, Consumed] = {}
        """What is consumed under which name, also by those that have ended."""
        self._metrics = EventMetrics(registry)
        url = settings.broker
        self.broker: Broker | None = None if url is None else open_broker(url.get_secret_value())
        """None without AMENDS_BROKER: events wait in the outbox until there is one."""

    def outbox(self, source: str, *types: type[Message]) -> Outbox:
        """Return the outbox for events of these types, which carry the trace they belong to."""
        made = Outbox(source, types, headers=_place_in_trace)
        self._outboxes.append(made)
        return made

    @property
    def pool(self) -> Pool:
        """Return the pool of the service's database."""
        return self._database.pool

    @property
    def source(self) -> str:
        """Return the name under which the service publishes; empty when it does not."""
        return next((outbox.source for outbox in self._outboxes), "")

    def topics(self) -> list[Topic]:
        """Return all topics that the service publishes to or consumes, by name."""
        written = (topic for outbox in self._outboxes for topic in outbox.topics)
        read = (topic for consumed in self.consumed.values() for topic in consumed.topics)
        return sorted({*written, *read}, key=lambda topic: topic.name)

    def published(self, topic: str) -> list[str]:
        """Return the types of events that the service publishes to a topic."""
        types = (one for outbox in self._outboxes for one in outbox.types.values())
        return sorted(one.name for one in types if one.topic.name == topic)

    def consumers_of(self, topic: str) -> list[str]:
        """Return the names under which the service consumes a topic."""
        return sorted(
            name for name, consumed in self.consumed.items() if topic in [one.name for one in consumed.topics]
        )

    def wake(self) -> None:
        """Let the relays look at once: something was put into the outbox."""
        for outbox in self._outboxes:
            outbox.written.set()

    async def publish(self, outbox: Outbox) -> None:
        """Publish what is in the outbox, for ever. The topics are made first, as the contracts say."""
        if self.broker is None:
            _log.warning(NO_BROKER, source=outbox.source)
            return
        await self._ensure(self.broker, outbox)
        keeps = bool(self.keep)
        relay = Relay(self._database.open_connection, outbox, self.broker, self._metrics, keeps=keeps)
        async with asyncio.TaskGroup() as group:
            group.create_task(relay.run())
            group.create_task(_expire(self._forget_sent))

    async def _forget_sent(self) -> int:
        return await expire_sent(self._database.pool, self.keep, _EXPIRED_AT_ONCE)

    async def _ensure(self, broker: Broker, outbox: Outbox) -> None:
        while True:
            try:
                return await broker.ensure(outbox.topics, self._retention)
            except BrokerError as error:
                _log.warning(NO_TOPICS, source=outbox.source, error=f"{type(error).__name__}: {error}")
                await asyncio.sleep(_AGAIN.total_seconds())

    def declare(self, name: str, handlers: Mapping[type[Message], EventHandler] | Batches, repeatable: bool) -> None:
        """Note what is consumed under a name, for who is on call. Raises ContractError."""
        remembers = handlers.remembers if isinstance(handlers, Batches) else True
        types = handlers.types if isinstance(handlers, Batches) else tuple(handlers)
        topics = {one.topic for one in event_types(types).values()}
        self.consumed[name] = Consumed(tuple(topics), repeatable or not remembers, remembers)

    async def consume(
        self,
        name: str,
        handlers: Mapping[type[Message], EventHandler] | Batches,
        batch: int = 100,
        *,
        repeatable: bool = False,
    ) -> None:
        """Handle events under a name, until cancelled, up to `batch` of them in a transaction."""
        self.declare(name, handlers, repeatable)
        if self.broker is None:
            _log.warning(NO_BROKER, consumer=name)
            return
        consumer = Consumer(name, self._database.pool, self.broker, handlers, self._metrics, batch=batch)
        async with asyncio.TaskGroup() as group:
            group.create_task(consumer.run())
            group.create_task(_expire(partial(consumer.expire, limit=_EXPIRED_AT_ONCE)))

    async def close(self) -> None:
        """Let the broker go."""
        if self.broker is not None:
            await self.broker.close()


async def _expire(forget: Callable[[], Awaitable[int]]) -> None:
    """Have what is too old forgotten, up to _EXPIRED_AT_ONCE at a time."""
    while True:
        removed = await forget()
        if removed < _EXPIRED_AT_ONCE:
            await asyncio.sleep(_EXPIRE_EVERY.total_seconds())


def _place_in_trace() -> Mapping[str, str]:
    place = traceparent()
    return {} if place is None else {"traceparent": place}
