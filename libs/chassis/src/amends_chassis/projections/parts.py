"""The parts that a service with a projection and its command `rebuild` have in common. Called by both."""

from functools import partial
from typing import Any

from amends_chassis.projections.exports import ExportClient
from amends_chassis.projections.projection import F, Projection, ProjectionKind
from amends_chassis.projections.rebuild import Rebuild
from amends_chassis.service import Runtime


def rebuild_with(runtime: Runtime, kind: ProjectionKind[F], exports: ExportClient[F]) -> Rebuild[F]:
    """Return what builds a projection, with the database and the broker of a process."""
    return Rebuild(runtime.database, runtime.events.broker, exports, partial(_consume, runtime, kind.batch), kind)


async def _consume(runtime: Runtime, batch: int, projection: Projection[Any]) -> None:
    await runtime.events.consume(projection.consumer, projection.batches, batch)
