"""Leases of orchestrator processes: one row each, renewed together for all of a process's runs.

Only the database's clock decides whether a lease is valid. A process whose lease has run out may have lost runs; the
journal tells it which ones by refusing their next rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from amends_chassis.database import Executes

_RENEW = """
INSERT INTO process (id, name, expires_at) VALUES ($1, $2, clock_timestamp() + $3)
ON CONFLICT (id) DO UPDATE SET expires_at = excluded.expires_at
RETURNING clock_timestamp(), (SELECT old.expires_at < clock_timestamp() FROM process AS old WHERE old.id = $1)
"""
_END = "UPDATE process SET expires_at = clock_timestamp() WHERE id = $1"
# Rows of processes that ended long ago, if they own no run that must be taken over.
_FORGET = """
DELETE FROM process WHERE expires_at < clock_timestamp() - interval '1 hour'
    AND NOT EXISTS (SELECT FROM run WHERE run.owner = process.id)
"""


@dataclass(frozen=True, slots=True)
class Renewal:
    """An accepted heartbeat: the database's time, and whether the lease had run out before."""

    now: datetime
    late: bool


async def renew(connection: Executes, process: UUID, name: str, lease: timedelta) -> Renewal:
    """Create or renew the lease of a process for `lease` from now on, by the database's clock."""
    row = await connection.fetchrow(_RENEW, process, name, lease)
    assert row is not None
    return Renewal(row[0], bool(row[1]))


async def end(connection: Executes, process: UUID) -> None:
    """End a lease at once, after a drain: others can claim the runs that are still owned."""
    await connection.execute(_END, process)


async def forget(connection: Executes) -> None:
    """Delete the rows of processes that ended long ago and own nothing."""
    await connection.execute(_FORGET)
