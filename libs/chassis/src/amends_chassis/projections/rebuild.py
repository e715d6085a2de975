"""A projection is built beside the one that serves, and takes its place when it has caught up.

It begins with the logs if they have everything since the first event, and what was read before; else with what the
services export, after the ends of the logs were noted: there it goes on. What is known of the progress is in the
database, in the transaction of what was done: a process that is killed is followed by one that goes on where it was.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import structlog
from amends_events import Broker, BrokerError
from amends_events.positions import is_event
from amends_events.replay import begin

from amends_chassis.database import Database
from amends_chassis.projections import freshness, versions
from amends_chassis.projections.exports import ExportClient
from amends_chassis.projections.freshness import Freshness
from amends_chassis.projections.projection import F, Projection, ProjectionKind
from amends_chassis.projections.versions import Version

if TYPE_CHECKING:
    from amends_chassis.database import Connection

T = TypeVar("T")

SWITCH_BELOW = timedelta(seconds=1)
"""A projection that is less than this behind takes the place of the one that serves."""
LOOK_EVERY = timedelta(milliseconds=200)
_AGAIN = timedelta(seconds=1)

# The new consumer meets in the log what a person has left out for an earlier one, and parks it too.
_DECIDE_AS_BEFORE = """
UPDATE inbox_parked AS p SET decision = before.decision, decided_by = before.decided_by,
    decided_because = before.decided_because, decided_at = before.decided_at
FROM inbox_parked AS before
WHERE p.consumer = $1 AND p.released_at IS NULL AND p.decision IS NULL
    AND before.consumer LIKE $2 || '@%' AND before.decision = 'skip' AND before.released_at IS NOT NULL
    AND (before.topic, before.partition, before.position) = (p.topic, p.partition, p.position)
    AND before.event_id IS NOT DISTINCT FROM p.event_id
"""
_TO_RELEASE = """
SELECT EXISTS (SELECT FROM inbox_parked WHERE consumer = $1 AND decision IS NOT NULL AND released_at IS NULL)
"""

_log = structlog.get_logger(__name__)

Consume = Callable[[Projection[Any]], Awaitable[None]]
"""Consumes for a projection, until cancelled."""


class RebuildProgress(Protocol):
    """Is told how far a rebuild is."""

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """Show that `done` events of `total` are in it; `total` is None when nobody knows."""
        ...


@dataclass(frozen=True, slots=True)
class Rebuild(Generic[F]):
    """What building a projection takes."""

    database: Database
    broker: Broker | None
    exports: ExportClient[F]
    consume: Consume
    kind: ProjectionKind[F]

    async def run(self, progress: RebuildProgress, *, export: bool = False) -> int | None:
        """Build a projection, or go on with one, let it serve and return its number; None while somebody else builds.

        `export` begins with what the services export, even if the logs have everything. Raises Unavailable when a
        service does not export, BrokerError while the broker is away in the middle of the decision.
        """
        async with versions.alone(self.database) as connection:
            if connection is None:
                return None
            version = await self._unfinished(connection) or await versions.make(connection, self.kind.layout)
            projection = self.kind.open(version.version)
            await self._let_go(connection, projection)
            if await self._from_export(connection, projection, version, export):
                await self._take_exports(projection, progress)
            await self._catch_up(connection, projection, progress)
            return version.version

    def look_at_ends(self) -> Freshness:
        """Return what looks at the ends of the logs."""
        return Freshness(self.broker, self.kind.sources.values())

    async def _unfinished(self, connection: "Connection") -> Version | None:
        """Return the projection to go on with; one of which a log has forgotten what comes next is dropped."""
        found = await versions.unfinished(connection, self.kind.layout)
        if found is None or self.broker is None or found.from_export is None:
            return found
        fresh = self.look_at_ends()
        await self._until_possible(fresh.look)
        if not fresh.has_lost(await freshness.places(connection, self.kind.consumer_of(found.version))):
            return found
        await versions.drop(connection, found.version)
        return None

    async def _let_go(self, connection: "Connection", projection: Projection[F]) -> None:
        """Take over from a builder that died: its leases need not run out, because nobody else builds."""
        await connection.execute(
            "UPDATE inbox_position SET owner = NULL, lease_until = NULL WHERE consumer = $1", projection.consumer
        )
        await connection.execute("DELETE FROM inbox_member WHERE consumer = $1", projection.consumer)

    async def _from_export(
        self, connection: "Connection", projection: Projection[F], version: Version, export: bool
    ) -> bool:
        """Return whether to begin with the exports; decided once, with the positions that the export is to cover."""
        if version.from_export is not None:
            return version.from_export
        from_export = export or await self._until_possible(partial(self._log_is_not_whole, connection))
        async with connection.transaction():
            if from_export and self.broker is not None:
                for topic in self.kind.sources.values():
                    await begin(connection, self.broker, projection.consumer, topic)
            await connection.execute(
                "UPDATE projection SET from_export = $2 WHERE version = $1", projection.version, from_export
            )
        return from_export

    async def _log_is_not_whole(self, connection: "Connection") -> bool:
        """Return whether the logs lack events: the first ones, or those that the projection that serves has read.

        Raises BrokerError.
        """
        if self.broker is None:
            return False
        fresh = self.look_at_ends()
        await fresh.look()
        serving = await versions.serving(connection)
        read = [] if serving is None else await freshness.places(connection, self.kind.consumer_of(serving.version))
        if fresh.has_lost(()) or (read and fresh.has_lost(read)):
            return True
        known = [place for place in read if place["event_id"] is not None]
        return not all(await asyncio.gather(*(self._has(self.broker, place) for place in known)))

    async def _has(self, broker: Broker, place: Any) -> bool:
        """Return whether a log has the event that was read at a place, and is not another log by now."""
        reading = broker.read(place["topic"], place["partition"], place["position"] - 1, limit=1)
        async with aclosing(reading) as batches:
            async for batch in batches:
                if batch:  # else nothing has come yet
                    return is_event(batch[0].record, place["event_id"])
        raise AssertionError("reading a log never ends")

    async def _take_exports(self, projection: Projection[F], progress: RebuildProgress) -> None:
        for source in self.kind.sources:
            await self._take_export(projection, source, progress)

    async def _take_export(self, projection: Projection[F], source: str, progress: RebuildProgress) -> None:
        known = await self.database.pool.fetchrow(
            "SELECT page_token, events, done FROM projection_export WHERE version = $1 AND source = $2",
            projection.version,
            source,
        )
        token, events, done = known or ("", 0, False)
        while not done:
            told, token = await self.exports.page(source, token)
            events, done = events + len(told), not token
            async with self.database.transaction() as transaction:
                await projection.take(transaction, told)
                await transaction.execute(
                    "INSERT INTO projection_export (version, source, page_token, events, done)"
                    " VALUES ($1, $2, $3, $4, $5) ON CONFLICT (version, source) DO UPDATE SET"
                    " page_token = excluded.page_token, events = excluded.events, done = excluded.done",
                    projection.version,
                    source,
                    token,
                    events,
                    done,
                )
            progress(f"export of {source}", events, None)

    async def _catch_up(self, connection: "Connection", projection: Projection[F], progress: RebuildProgress) -> None:
        """Consume until the projection is hardly behind; then let it serve."""
        fresh, total = self.look_at_ends(), 0
        consuming = asyncio.ensure_future(self.consume(projection))
        try:
            while True:
                if consuming.done() and self.broker is not None:
                    consuming.result()
                await self._until_possible(fresh.look)
                read = await freshness.places(connection, projection.consumer)
                left = fresh.left(read)
                total = max(total, left)
                progress("events", total - left, total)
                as_of = fresh.as_of(read)
                await connection.execute(_DECIDE_AS_BEFORE, projection.consumer, self.kind.name)
                released = not await connection.fetchval(_TO_RELEASE, projection.consumer)
                if released and as_of is not None and datetime.now(UTC) - as_of < SWITCH_BELOW:
                    break
                await asyncio.sleep(LOOK_EVERY.total_seconds())
            await versions.switch(connection, projection.version)
        finally:
            consuming.cancel()
            await asyncio.wait([consuming])

    async def _until_possible(self, look: Callable[[], Awaitable[T]]) -> T:
        """Ask the broker as soon as it is there, with all topics."""
        while True:
            try:
                return await look()
            except BrokerError as error:
                _log.warning("rebuild.broker_away", error=f"{type(error).__name__}: {error}")
                await asyncio.sleep(_AGAIN.total_seconds())
