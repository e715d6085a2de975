"""Keeps the journal's partitions: creates those of the coming days, drops those that are no longer needed.

A partition is dropped as a whole when every run of its day ended longer ago than callers' keys are kept. Its runs' rows
in table run are deleted too, which frees the keys. The retention job of every replica calls this; an advisory lock lets
one work at a time.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from amends_chassis.database import Executes, Transacts

AHEAD_DAYS = 7
_LOCK = "amends.journal.retention"
_NAME = re.compile(r"journal_(\d{8})")

_OPEN = """
SELECT EXISTS (
    SELECT FROM run WHERE id >= run_id_floor($1) AND id < run_id_floor($2)
        AND (ended_at IS NULL OR ended_at > clock_timestamp() - $3::interval)
)
"""
_DELETE_RUNS = """
DELETE FROM run WHERE id IN (
    SELECT id FROM run WHERE id >= run_id_floor($1) AND id < run_id_floor($2) LIMIT 5000
)
"""
_DELETE_DEFINITIONS = """
DELETE FROM definition WHERE made_at < clock_timestamp() - interval '1 hour'
    AND NOT EXISTS (SELECT FROM saga WHERE saga.digest = definition.digest)
    AND NOT EXISTS (SELECT FROM run WHERE run.digest = definition.digest)
"""
_DELETE_REQUESTS = "DELETE FROM run_request WHERE asked_at < clock_timestamp() - interval '7 days'"


async def make_partitions(connection: Executes) -> int:
    """Create the partitions of the coming week; return how many were missing."""
    made: int = await connection.fetchval("SELECT make_journal_partitions($1)", AHEAD_DAYS)
    return made


async def drop_old(connection: Transacts, retention: timedelta) -> list[str]:
    """Drop partitions whose runs all ended more than `retention` ago, and these runs; return their names."""
    if not await connection.fetchval("SELECT pg_try_advisory_lock(hashtext($1))", _LOCK):
        return []
    dropped: list[str] = []
    try:
        now: datetime = await connection.fetchval("SELECT clock_timestamp()")
        for name, day in await _partitions(connection):
            if day + timedelta(days=1) > now - retention:
                continue
            if not await connection.fetchval(_OPEN, day, day + timedelta(days=1), retention):
                await _drop(connection, day)
                dropped.append(name)
        await connection.execute(_DELETE_DEFINITIONS)
        await connection.execute(_DELETE_REQUESTS)
    finally:
        await connection.execute("SELECT pg_advisory_unlock(hashtext($1))", _LOCK)
    return dropped


async def _partitions(connection: Executes) -> list[tuple[str, datetime]]:
    rows = await connection.fetch(
        "SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = 'journal'::regclass ORDER BY 1"
    )
    found = [(row["name"], _NAME.fullmatch(row["name"])) for row in rows]
    return [(name, datetime.strptime(match[1], "%Y%m%d").replace(tzinfo=UTC)) for name, match in found if match]


async def _drop(connection: Transacts, day: datetime) -> None:
    """Drop the partition of a day, then its runs: a crash in between leaves ended runs without a journal."""
    async with connection.transaction():
        await connection.execute("SET LOCAL lock_timeout = '2s'")
        await connection.execute("SELECT drop_journal_partition($1)", day.date())
    while (await connection.execute(_DELETE_RUNS, day, day + timedelta(days=1))) != "DELETE 0":
        continue
