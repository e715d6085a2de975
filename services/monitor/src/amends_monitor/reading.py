"""Reads the events of every choreography that is watched, each under a consumer name of its own.

So a new choreography begins with the oldest event that the broker has, whatever others have read. The handler only
writes down what came: several partitions bring events of one flow at the same time, and would wait for each other's
rows if they judged it. Started by `assemble`.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import structlog
from amends_chassis.events import ServiceEvents
from amends_events import Batches, BrokerError, CloudEvent
from google.protobuf.message import Message

from amends_monitor.definitions import Definitions, WatchedChoreography

if TYPE_CHECKING:
    from amends_chassis.database import Connection

LONGEST_KEY = 500
LOOK_EVERY = timedelta(seconds=5)
READS = "choreography.reads"
ENDED = "choreography.reading_ended"
NO_KEY = "event.no_key"
_log = structlog.get_logger(__name__)

# An event that is there already is judged anew only if the condition of the choreography says otherwise by now.
_PUT = """
WITH watched AS (
    SELECT FROM choreography WHERE choreography_id = $1 FOR KEY SHARE
), put AS (
    INSERT INTO flow_event (choreography_id, key, event_id, type, source, occurred_at, wanted)
    SELECT $1, came.* FROM unnest($2::text[], $3::uuid[], $4::text[], $5::text[], $6::timestamptz[], $7::boolean[])
        AS came (key, event_id, type, source, occurred_at, wanted), watched
    ON CONFLICT (choreography_id, key, event_id) DO UPDATE SET wanted = excluded.wanted
        WHERE flow_event.wanted <> excluded.wanted
    RETURNING key
)
INSERT INTO flow_changed (choreography_id, key) SELECT DISTINCT $1::bigint, key FROM put
"""


class FlowReading:
    """The consumers of this process, one for each choreography."""

    def __init__(self, events: ServiceEvents, definitions: Definitions, changed: asyncio.Event) -> None:
        """Take what is set when events were written down."""
        self._events = events
        self._definitions = definitions
        self._changed = changed
        self._running: dict[str, asyncio.Task[None]] = {}
        self._unread: frozenset[str] = frozenset()

    def unread(self, watched: WatchedChoreography) -> list[str]:
        """Return the topics of a choreography that cannot be read: nobody has made them, or the broker is away."""
        return [topic for topic in watched.topics if self._events.broker is None or topic in self._unread]

    async def run(self) -> None:
        """Read for every choreography that is known, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look_at_topics())
            while True:
                self._definitions.changed.clear()
                await self._adjust(group)
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_EVERY.total_seconds()):
                        await self._definitions.changed.wait()

    async def _adjust(self, group: asyncio.TaskGroup) -> None:
        """Begin what is not read yet, and end what is watched no more."""
        wanted = {one.consumer: one for one in self._definitions.known.values()}
        for name, task in list(self._running.items()):
            if name not in wanted:
                task.cancel()
                await asyncio.wait([task])
            if task.done():
                del self._running[name]
        for name, watched in wanted.items():
            if name not in self._running:
                self._running[name] = group.create_task(self._read(watched))
                _log.info(READS, consumer=name, topics=watched.topics)

    async def _read(self, watched: WatchedChoreography) -> None:
        try:
            batches = Batches(watched.types, Writer(watched, self._changed).write, remembers=False)
            await self._events.consume(watched.consumer, batches)
        except Exception as error:  # the others go on; this one is begun again
            _log.error(ENDED, consumer=watched.consumer, error=f"{type(error).__name__}: {error}")

    async def _look_at_topics(self) -> None:
        while True:
            topics = {topic for one in self._definitions.known.values() for topic in one.topics}
            self._unread = frozenset({topic for topic in sorted(topics) if not await self._readable(topic)})
            await asyncio.sleep(LOOK_EVERY.total_seconds())

    async def _readable(self, topic: str) -> bool:
        if self._events.broker is None:
            return False
        try:
            await self._events.broker.ends(topic)
        except BrokerError:
            return False
        return True


class Writer:
    """Writes down the events of one choreography."""

    def __init__(self, watched: WatchedChoreography, changed: asyncio.Event) -> None:
        """Take what is set when something was written."""
        self._watched = watched
        self._changed = changed

    async def write(self, connection: "Connection", batch: Sequence[tuple[CloudEvent, Any]]) -> None:
        """Write down a batch; what is there already, and what has no key, changes nothing."""
        rows = {event.event_id: row for event, message in batch if (row := self._row(event, message)) is not None}
        if rows:
            await connection.execute(_PUT, self._watched.choreography_id, *map(list, zip(*rows.values(), strict=True)))
            self._changed.set()

    def _row(self, event: CloudEvent, message: Message) -> tuple[Any, ...] | None:
        plan = self._watched.plan
        key = str(getattr(message, plan.key))
        if not 0 < len(key) <= LONGEST_KEY or "\0" in key:
            _log.warning(NO_KEY, choreography=plan.name, type=event.type, event_id=str(event.event_id))
            return None
        wanted = event.type != plan.start or all(_text(message, name) == value for name, value in plan.where.items())
        return key, event.event_id, event.type, event.source.replace("\0", ""), event.occurred_at, wanted


def _text(message: Message, name: str) -> str:
    """Return the value of a text, a boolean or an enum as JSON of protobuf has it."""
    value, field = getattr(message, name), message.DESCRIPTOR.fields_by_name[name]
    if isinstance(value, bool):
        return "true" if value else "false"
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known is not None else str(value)
    return str(value)
