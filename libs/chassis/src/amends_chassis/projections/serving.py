"""Keeps the projection that serves up to date, follows it when another takes its place, and drops what is retired.

One of the replicas builds a projection when there is none of this code's layout: the first of all, and the next after a
release that has changed the tables. Until then the process is not ready, and replicas of the old release serve.
Made by `parts`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Generic

import structlog
from prometheus_client import CollectorRegistry, Gauge

from amends_chassis.database import Database
from amends_chassis.errors import Unavailable
from amends_chassis.projections import freshness, versions
from amends_chassis.projections.freshness import Freshness
from amends_chassis.projections.projection import F, Projection
from amends_chassis.projections.rebuild import Rebuild

LOOK_EVERY = timedelta(seconds=1)
DROP_EVERY = timedelta(minutes=10)

_log = structlog.get_logger(__name__)


class ProjectionMetrics:
    """The metric of projections in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register the metric; a registry takes it once."""
        self._age = Gauge(
            "projection_as_of_seconds", "How old the projection is that serves.", ("projection",), registry=registry
        )

    def age(self, version: int, age: timedelta) -> None:
        """Note how old the projection is that serves now; others are forgotten."""
        self._age.clear()
        self._age.labels(version).set(age.total_seconds())


@dataclass(frozen=True, slots=True)
class Serving(Generic[F]):
    """What a replica does beside answering."""

    database: Database
    rebuild: Rebuild[F]
    fresh: Freshness
    metrics: ProjectionMetrics
    report: Callable[[bool], Awaitable[None]]
    """Is told whether there is a projection that this code can show."""
    keep_retired: timedelta
    """How long a projection is kept after another has taken its place."""
    beside: Callable[[Projection[F]], Awaitable[None]] | None = None
    """What is done for the projection that serves beside consuming, until cancelled."""

    async def run(self) -> None:
        """Follow the projection that serves, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.fresh.run())
            group.create_task(self._drop())
            following: asyncio.Task[None] | None = None
            version = 0
            while True:
                found = await versions.serving(self.database.pool)
                if found is None or found.layout != self.rebuild.kind.layout:
                    await self._build()
                elif found.version != version or following is None:
                    await _stopped(following)
                    version = found.version
                    following = group.create_task(self._follow(self.rebuild.kind.open(version)))
                    await self.report(True)
                    _log.info("projection.serves", projection=version)
                if found is not None:
                    await self._tell_age(found.version)
                await asyncio.sleep(LOOK_EVERY.total_seconds())

    async def _build(self) -> None:
        await self.report(False)
        try:
            await self.rebuild.run(_no_progress)
        except Unavailable as error:
            _log.warning("projection.not_built", error=str(error))

    async def _follow(self, projection: Projection[F]) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(_done(self.rebuild.consume(projection)))
            if self.beside is not None:
                group.create_task(_done(self.beside(projection)))

    async def _tell_age(self, version: int) -> None:
        read = await freshness.places(self.database.pool, self.rebuild.kind.consumer_of(version))
        as_of = self.fresh.as_of(read)
        if as_of is not None:
            self.metrics.age(version, max(timedelta(0), datetime.now(UTC) - as_of))

    async def _drop(self) -> None:
        while True:
            async with versions.alone(self.database) as connection:
                if connection is not None:
                    for version in await versions.drop_retired(connection, self.keep_retired):
                        _log.info("projection.dropped", projection=version)
            await asyncio.sleep(DROP_EVERY.total_seconds())


async def _done(work: Awaitable[None]) -> None:
    await work


async def _stopped(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _no_progress(stage: str, done: int, total: int | None) -> None:
    """Show nothing: nobody watches."""
