"""Reads runs and their journals, for claims and for the API.

Nothing here changes anything. A run that this process takes is read after its claim has committed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
from amends_chassis.database import Executes

from amends_orchestrator.journal.records import RunRow, State, StoredRecord

COLUMNS = (
    "id, namespace, saga, idempotency_key, payload, digest, rules, owner, fence, state, started_at, ended_at, due_at, "
    "traceparent, step, reason, message, skipped_by_person, stalled_since, next_attempt_at"
)

_RUN = f"SELECT {COLUMNS} FROM run WHERE id = $1"  # noqa: S608 - column names of ours
_RUN_BY_KEY = f"SELECT {COLUMNS} FROM run WHERE namespace = $1 AND idempotency_key = $2"  # noqa: S608
_JOURNAL = "SELECT seq, fence, record FROM journal WHERE run_id = $1 AND seq > $2 ORDER BY seq LIMIT $3"
_JOURNALS = "SELECT run_id, seq, fence, record FROM journal WHERE run_id = ANY($1) ORDER BY run_id, seq"
_INSTALLATION = "SELECT secret FROM installation"
_LAST = """
SELECT asked.id, last.seq FROM unnest($1::uuid[]) AS asked (id),
    LATERAL (SELECT seq FROM journal WHERE run_id = asked.id ORDER BY seq DESC LIMIT 1) AS last
"""


def run_row(row: asyncpg.Record) -> RunRow:
    """Return one row of table run as a value; it was selected with COLUMNS."""
    return RunRow(
        id=row["id"],
        namespace=row["namespace"],
        saga=row["saga"],
        key=row["idempotency_key"],
        payload=row["payload"],
        digest=row["digest"],
        rules=row["rules"],
        owner=row["owner"],
        fence=row["fence"],
        state=State(row["state"]),
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        due_at=row["due_at"],
        traceparent=row["traceparent"],
        step=row["step"],
        reason=row["reason"],
        message=row["message"],
        skipped_by_person=row["skipped_by_person"],
        stalled_since=row["stalled_since"],
        next_attempt_at=row["next_attempt_at"],
    )


async def read_secret(database: Executes) -> bytes:
    """Return the secret that this installation's idempotency keys are made with; a migration created it."""
    return bytes(await database.fetchval(_INSTALLATION))


async def read_run(database: Executes, run_id: UUID) -> RunRow | None:
    """Return the run's row, or None if there is none."""
    row = await database.fetchrow(_RUN, run_id)
    return run_row(row) if row is not None else None


async def read_run_by_key(database: Executes, namespace: str, key: str) -> RunRow | None:
    """Return the run that was started with a caller's key, or None."""
    row = await database.fetchrow(_RUN_BY_KEY, namespace, key)
    return run_row(row) if row is not None else None


async def read_journal(
    database: Executes, run_id: UUID, after: int = 0, limit: int = 1_000_000
) -> tuple[StoredRecord, ...]:
    """Return the records of one run after sequence number `after`, in order."""
    rows = await database.fetch(_JOURNAL, run_id, after, limit)
    return tuple(StoredRecord(row[0], row[1], row[2]) for row in rows)


async def read_journals(database: Executes, runs: Iterable[UUID]) -> dict[UUID, tuple[StoredRecord, ...]]:
    """Return the whole journals of several runs with one statement."""
    found: dict[UUID, list[StoredRecord]] = {run: [] for run in runs}
    for row in await database.fetch(_JOURNALS, list(found)):
        found[row[0]].append(StoredRecord(row[1], row[2], row[3]))
    return {run: tuple(records) for run, records in found.items()}


async def last_records(database: Executes, runs: Iterable[UUID]) -> dict[UUID, int]:
    """Return the last sequence number of each of these runs; runs without records are left out."""
    return {row[0]: row[1] for row in await database.fetch(_LAST, list(runs))}


async def list_runs(
    database: Executes,
    *,
    namespace: str = "",
    namespaces: Sequence[str] | None = None,
    saga: str = "",
    states: Sequence[State] = (),
    stalled: bool = False,
    before: UUID | None = None,
    within: tuple[UUID, UUID] | None = None,
    started_before: datetime | None = None,
    limit: int = 50,
) -> list[RunRow]:
    """Return runs, newest first: those before the id `before`, with ids from `within[0]` to `within[1]`.

    `namespaces` are those that the caller may read, None for all.

    Run ids are ordered by start, so `before` (the last id of a page) is all that the next page needs. The partial
    indexes hold only open runs, so that listing open runs stays cheap however long the history is.
    """
    conditions: list[str] = []
    values: list[Any] = []

    def add(condition: str, value: Any) -> None:
        values.append(value)
        conditions.append(condition.format(f"${len(values)}"))

    if namespace:
        add("namespace = {}", namespace)
    if namespaces is not None:
        add("namespace = ANY({}::text[])", list(namespaces))
    if saga:
        add("saga = {}", saga)
    if states:
        add("state = ANY({}::smallint[])", [int(state) for state in states])
        if all(not state.ended for state in states):
            waiting = "(owner IS NULL AND due_at IS NOT NULL)"
            conditions.append(f"(owner IS NOT NULL OR {waiting} OR state = {State.PARKED:d})")
    if stalled:
        conditions.append("stalled_since IS NOT NULL")
    if before is not None:
        add("id < {}", before)
    if within is not None:
        add("id >= {}", within[0])
        add("id <= {}", within[1])
    if started_before is not None:
        add("started_at < {}", started_before)
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    values.append(limit)
    statement = f"SELECT {COLUMNS} FROM run {where} ORDER BY id DESC LIMIT ${len(values)}"  # noqa: S608
    return [run_row(row) for row in await database.fetch(statement, *values)]
