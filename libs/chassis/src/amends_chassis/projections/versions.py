"""The projections that there are: which one serves, which one is being built, and how one takes another's place.

What takes an owner's rights is a function of the database (see the migrations): the role that serves may call it.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

import asyncpg

from amends_chassis.database import Database, Executes

if TYPE_CHECKING:
    from amends_chassis.database import Connection

_LOCK = 0x7265706F7274  # "report": one process builds at a time
_SWITCH_AGAIN = timedelta(milliseconds=100)


class ProjectionState(StrEnum):
    """Where a projection stands."""

    BUILDING = "building"
    SERVING = "serving"
    RETIRED = "retired"


@dataclass(frozen=True, slots=True)
class Version:
    """A projection as the database knows it."""

    version: int
    layout: int
    state: ProjectionState
    from_export: bool | None
    """Whether it was begun with what the services export; None until that is known."""


_VERSIONS = "SELECT version, layout, state, from_export FROM projection"


async def serving(connection: Executes) -> Version | None:
    """Return the projection that the views show; None before the first."""
    return _version(await connection.fetchrow(f"{_VERSIONS} WHERE state = 'serving'"))


async def unfinished(connection: Executes, layout: int) -> Version | None:
    """Return the newest projection of a layout whose building was begun and not ended."""
    query = f"{_VERSIONS} WHERE state = 'building' AND layout = $1 ORDER BY version DESC LIMIT 1"
    return _version(await connection.fetchrow(query, layout))


async def make(connection: "Connection", layout: int) -> Version:
    """Make the schema of a new projection, empty."""
    async with connection.transaction():
        number: int = await connection.fetchval("SELECT coalesce(max(version), 0) + 1 FROM projection")
        await connection.execute("SELECT make_projection($1, $2)", number, layout)
    return Version(number, layout, ProjectionState.BUILDING, None)


async def switch(connection: Executes, version: int) -> None:
    """Let the views show a projection. While readers stand in the way it comes again, and holds up nobody."""
    while True:
        try:
            await connection.execute("SELECT switch_projection($1)", version)
            return
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            await asyncio.sleep(_SWITCH_AGAIN.total_seconds())


async def drop(connection: Executes, version: int) -> None:
    """Drop a projection that does not serve."""
    await connection.execute("SELECT drop_projection($1)", version)


async def drop_retired(connection: Executes, keep: timedelta) -> list[int]:
    """Drop the projections that were retired longer ago than `keep`; return their numbers."""
    rows = await connection.fetch(
        "SELECT version FROM projection WHERE state = 'retired' AND retired_at <= now() - $1::interval"
        " ORDER BY version",
        keep,
    )
    for row in rows:
        await drop(connection, row["version"])
    return [row["version"] for row in rows]


@asynccontextmanager
async def alone(database: Database) -> AsyncIterator["Connection | None"]:
    """Yield a connection that lets nobody else build or drop projections; None while somebody does.

    The server ends it when this process dies.
    """
    connection = await database.open_connection()
    try:
        held = await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK)
        yield connection if held else None
    finally:
        await connection.close(timeout=5)


def _version(row: "asyncpg.Record | None") -> Version | None:
    if row is None:
        return None
    return Version(row["version"], row["layout"], ProjectionState(row["state"]), row["from_export"])
