"""The relay: moves events from the outbox to the broker, in the order of each key, at least once.

One runs in every replica of a publishing service. A partition is published by one of them at a time: the one that
holds its advisory lock, on a session of its own that also deletes what was published. When the process dies, or stands
still for LEASE, the session ends, the locks are free, and nothing that the former owner still does can delete a row:
it can only publish again what the next one publishes in the same order. Whoever reads the log drops repetitions.
"""

import asyncio
import json
import logging
import zlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import groupby
from typing import TypeAlias

import asyncpg
from amends_barrier import BROKEN, database_away
from amends_barrier.transaction import Connection

from amends_events.backoff import BACKOFF, now_of_loop
from amends_events.broker import MAX_BATCH, Broker, BrokerError, EventRecord
from amends_events.envelope import CloudEvent, attributes
from amends_events.meter import Meter, Silent
from amends_events.outbox import Outbox

TopicPlace: TypeAlias = tuple[str, int]
"""A topic and a partition."""

LEASE = timedelta(seconds=10)
"""After so long without a word from the relay the database ends its session, and the locks with it."""
POLL_MIN = timedelta(milliseconds=2)
POLL_MAX = timedelta(milliseconds=50)
CLAIM_EVERY = timedelta(seconds=1)
BACKLOG_EVERY = timedelta(seconds=5)
TRAIL = timedelta(seconds=60)
"""A row may be committed so long after its number was given: longer than a transaction may stand idle."""
MAX_BYTES = 1024 * 1024
"""One batch is cut at this size of payloads."""
_LOCKS = 0x616D6556  # beside the numbers of the locks of others
_BACKLOG_COUNTED = 10_000

_log = logging.getLogger(__name__)

COLUMNS = "seq, event_id, topic, partition, key, version, type, dataschema, headers, payload, occurred_at"
"""All that the outbox knows of an event."""
_READ = f"""
SELECT {", ".join(f"o.{name}" for name in COLUMNS.split(", "))}
FROM unnest($1::text[], $2::smallint[], $3::bigint[]) AS place (topic, partition, low)
CROSS JOIN LATERAL (
    SELECT * FROM outbox WHERE topic = place.topic AND partition = place.partition AND seq > place.low
    ORDER BY seq LIMIT $4
) AS o
"""  # noqa: S608 - no values
_DELETE = "DELETE FROM outbox WHERE seq = ANY($1::bigint[])"
_KEEP = f"""
WITH published AS (DELETE FROM outbox WHERE seq = ANY($1::bigint[]) RETURNING {COLUMNS})
INSERT INTO outbox_sent ({COLUMNS}) SELECT {COLUMNS} FROM published ON CONFLICT (seq) DO UPDATE SET sent_at = now()
"""  # noqa: S608 - no values
_BACKLOG = """
SELECT count(*) AS rows, coalesce(now() - min(occurred_at), interval '0') AS oldest
FROM (SELECT occurred_at FROM outbox ORDER BY seq LIMIT $1) AS first
"""


@dataclass(slots=True)
class _Partition:
    """One partition that this relay publishes."""

    failures: int = 0
    not_before: float = 0.0
    """The time of the loop before which it is not tried again."""
    published: deque[tuple[float, int]] = field(default_factory=deque)
    """When which row was the last that was published, for `low`."""
    low: int = 0
    """No row up to this number can appear any more."""
    scanned_at: float = float("-inf")

    def low_at(self, now: float) -> int:
        """Return from where to scan, so that the dead entries of the index are not walked each time.

        Once in TRAIL the whole index is scanned: a transaction that is busy for longer is late, never lost.
        """
        while self.published and self.published[0][0] <= now - TRAIL.total_seconds():
            self.low = self.published.popleft()[1]
        if now - self.scanned_at >= TRAIL.total_seconds():
            self.scanned_at = now
            return 0
        return self.low

    def succeeded(self, now: float, seq: int) -> None:
        """Note that the broker has everything up to a row."""
        self.failures, self.not_before = 0, 0.0
        if not self.published or now - self.published[-1][0] >= 1.0:
            self.published.append((now, seq))

    def failed(self, now: float) -> None:
        """Note that the broker did not take the oldest rows: they are tried again first, and later."""
        self.failures += 1
        self.scanned_at = float("-inf")  # what a person has put back for a broker that lost it comes first
        self.not_before = now + BACKOFF.pause(self.failures).total_seconds()


class Relay:
    """Publishes the outbox of one database."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[Connection]],
        outbox: Outbox,
        broker: Broker,
        meter: Meter | None = None,
        *,
        lease: timedelta = LEASE,
        keeps: bool = False,
    ) -> None:
        """Publish what `outbox` declares. `connect` opens a session beside the pool, which the relay keeps.

        With `keeps` what was published stays in `outbox_sent`, until `backlog.expire_sent` is called.
        """
        self._connect = connect
        self._outbox = outbox
        self._broker = broker
        self._meter = meter or Silent()
        self._lease = lease
        self._keeps = keeps
        self._owned: dict[TopicPlace, _Partition] = {}
        self._turn: deque[TopicPlace] = deque()
        self._claim_at = self._backlog_at = float("-inf")

    @property
    def owned(self) -> frozenset[TopicPlace]:
        """Return the partitions that this relay publishes now."""
        return frozenset(self._owned)

    async def run(self) -> None:
        """Publish for ever. A database that is away is awaited; every other error of it is raised."""
        failures = 0
        while True:
            try:
                async with self._session() as connection:
                    failures = 0
                    await self._publish_for_ever(connection)
            except BROKEN as error:
                if not (database_away(error) or isinstance(error, OSError)):
                    raise
                failures += 1
                _log.warning("relay.database_away", extra={"error": f"{type(error).__name__}: {error}"})
                await asyncio.sleep(BACKOFF.longest(failures + 1).total_seconds())

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[Connection]:
        connection = await self._connect()
        try:
            milliseconds = round(self._lease / timedelta(milliseconds=1))
            await connection.execute(f"SET idle_session_timeout = {milliseconds}")
            yield connection
        finally:
            self._owned.clear()
            self._turn.clear()
            self._claim_at = float("-inf")
            connection.terminate()

    async def _publish_for_ever(self, connection: Connection) -> None:
        pause = POLL_MIN
        while True:
            self._outbox.written.clear()
            published = await self.publish_once(connection)
            if published:
                pause = POLL_MIN
                continue
            try:
                async with asyncio.timeout(pause.total_seconds()):
                    await self._outbox.written.wait()
            except TimeoutError:
                pause = min(pause * 2, POLL_MAX)
            else:
                # The row was made and may not be committed yet: look often for a while.
                pause = POLL_MIN

    async def publish_once(self, connection: Connection) -> int:
        """Publish one batch of each partition that is due and return how many events the broker took."""
        now = now_of_loop()
        if now - self._claim_at >= CLAIM_EVERY.total_seconds():
            self._claim_at = now
            await self._claim(connection)
        await self._tell_backlog(connection, now)
        due = [place for place in self._turn if self._owned[place].not_before <= now]
        self._turn.rotate(-1)
        if not due:
            return 0
        rows = await connection.fetch(
            _READ,
            [topic for topic, _ in due],
            [partition for _, partition in due],
            [self._owned[place].low_at(now) for place in due],
            MAX_BATCH,
        )
        batches = [
            (place, _cut(list(batch))) for place, batch in groupby(rows, lambda row: (row["topic"], row["partition"]))
        ]
        done = [
            seq
            for sent in await asyncio.gather(*(self._send(place, batch) for place, batch in batches))
            for seq in sent
        ]
        if done:
            await connection.execute(_KEEP if self._keeps else _DELETE, done)
        return len(done)

    async def _send(self, place: TopicPlace, rows: Sequence[asyncpg.Record]) -> list[int]:
        """Publish a batch; return the numbers of its rows, or none when it has to be tried again."""
        topic, partition = place
        owned = self._owned[place]
        began = now_of_loop()
        try:
            duplicates = await self._broker.append(topic, partition, [self._record(row) for row in rows])
        except BrokerError as error:
            owned.failed(now_of_loop())
            self._meter.publish_failed(topic, type(error).__name__)
            _log.warning(
                "relay.not_published",
                extra={"topic": topic, "partition": partition, "failures": owned.failures, "error": str(error)},
            )
            return []
        now = now_of_loop()
        owned.succeeded(now, rows[-1]["seq"])
        self._meter.published(topic, len(rows), duplicates, timedelta(seconds=now - began))
        return [row["seq"] for row in rows]

    def _record(self, row: asyncpg.Record) -> EventRecord:
        event = CloudEvent(
            event_id=row["event_id"],
            source=self._outbox.source,
            type=row["type"],
            topic=row["topic"],
            key=row["key"],
            version=row["version"],
            occurred_at=row["occurred_at"],
            headers=_headers(row),
            payload=row["payload"],
        )
        return EventRecord(attributes(event, row["dataschema"]), event.payload)

    async def _claim(self, connection: Connection) -> None:
        """Take the partitions that nobody publishes."""
        wanted = {(topic.name, partition) for topic in self._outbox.topics for partition in range(topic.partitions)}
        for place in sorted(wanted - self._owned.keys()):
            if await connection.fetchval("SELECT pg_try_advisory_lock($1, $2)", _LOCKS, _lock_of(place)):
                self._owned[place] = _Partition()
                self._turn.append(place)

    async def _tell_backlog(self, connection: Connection, now: float) -> None:
        if now - self._backlog_at >= BACKLOG_EVERY.total_seconds():
            self._backlog_at = now
            row = await connection.fetchrow(_BACKLOG, _BACKLOG_COUNTED)
            assert row is not None
            self._meter.backlog(row["rows"], row["oldest"])


def _lock_of(place: TopicPlace) -> int:
    """Return the number of a partition's lock, of 31 bits. Two that share one are published by one relay."""
    topic, partition = place
    return zlib.crc32(f"{topic}.{partition}".encode()) & 0x7FFFFFFF


def _cut(rows: list[asyncpg.Record]) -> list[asyncpg.Record]:
    size = 0
    for number, row in enumerate(rows):
        size += len(row["payload"])
        if size > MAX_BYTES and number:
            return rows[:number]
    return rows


def _headers(row: asyncpg.Record) -> dict[str, str]:
    found: dict[str, str] = json.loads(row["headers"])
    return found
