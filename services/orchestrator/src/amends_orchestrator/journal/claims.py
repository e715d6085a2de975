"""Claims: taking runs that are due, have never had an owner, or whose owner's lease has run out.

A claim takes up to 64 runs with SKIP LOCKED: replicas never wait for each other, and a run whose old owner is writing
now is left for the next claim. The journals are read by a second statement after the claim has committed: it sees all
that the old owner committed, and the fence refuses anything later.
"""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from amends_chassis.database import Executes

from amends_orchestrator.journal.reader import COLUMNS, read_journals, run_row
from amends_orchestrator.journal.records import Claimed, RunRow, State
from amends_orchestrator.journal.telling import Announcement, and_tell

BATCH = 64
BATCH_BYTES = 8 * 1024 * 1024

# The statement looks only at runs that are due. It compares with the time at which it began, because an index can be
# searched for that; clock_timestamp() changes while it runs. It then finds the locked rows through an array of keys,
# because the plan of a join might read all rows. It takes as many runs as there is room for: the process that claims a
# run reads its whole journal into memory.
_CLAIM = f"""
WITH due AS (
    SELECT id FROM run
    WHERE owner IS NULL AND due_at <= statement_timestamp() AND rules <= $3
    ORDER BY due_at LIMIT $2 FOR UPDATE SKIP LOCKED
), orphaned AS (
    SELECT run.id FROM run
    WHERE run.owner IN (SELECT id FROM process WHERE expires_at < clock_timestamp() AND id <> $1) AND rules <= $3
    LIMIT greatest($2 - (SELECT count(*) FROM due), 0) FOR UPDATE OF run SKIP LOCKED
), sized AS (
    SELECT id, row_number() OVER () AS place, (
        SELECT coalesce(sum(octet_length(record)), 0) FROM journal WHERE journal.run_id = wanted.id
    ) AS size
    FROM (SELECT id FROM due UNION ALL SELECT id FROM orphaned) AS wanted
), fitting AS (
    SELECT id, sum(size) OVER (ORDER BY place) - size AS before FROM sized
)
UPDATE run SET owner = $1, fence = fence + 1, due_at = NULL
WHERE id = ANY (ARRAY(SELECT id FROM fitting WHERE before < $4))
RETURNING {COLUMNS}
"""  # noqa: S608 - column names of ours

# One run, due or not, but only if nobody owns it or its owner's lease has run out.
_CLAIM_ONE = f"""
UPDATE run SET owner = $2, fence = run.fence + 1, due_at = NULL
WHERE id = $1 AND state < {State.PARKED:d} AND rules <= $3 AND (
    owner IS NULL OR owner IN (SELECT id FROM process WHERE expires_at < clock_timestamp()))
RETURNING {COLUMNS}
"""  # noqa: S608 - column names of ours

_NEXT_DUE = "SELECT min(due_at) - clock_timestamp() FROM run WHERE owner IS NULL AND due_at IS NOT NULL"

# Releases a run that cannot be driven here; the fence proves that it is still ours. Without a reason the row shows
# what it showed before.
_RELEASE = f"""
UPDATE run SET owner = NULL, due_at = clock_timestamp() + $3,
    reason = CASE WHEN $4 = '' THEN reason ELSE $4 END, message = CASE WHEN $4 = '' THEN message ELSE $5 END,
    stalled_since = CASE WHEN $4 = '' THEN stalled_since ELSE coalesce(stalled_since, clock_timestamp()) END,
    next_attempt_at = CASE WHEN $4 = '' THEN next_attempt_at ELSE clock_timestamp() + $3 END
WHERE id = $1 AND fence = $2 AND state < {State.PARKED:d}
"""  # noqa: S608 - a number of ours

# A run that shows as stalled has told so before. The event has the number of the last record, having none of its own.
_RELEASED = """
RETURNING (SELECT before.stalled_since IS NULL FROM run AS before WHERE before.id = run.id) AS fresh,
    (SELECT coalesce(max(seq), 1) FROM journal WHERE run_id = run.id) AS version
"""
_RELEASE_AND_TELL = and_tell(_RELEASE + _RELEASED, 5, when="fresh")

_OWNED = "SELECT id, fence FROM run WHERE owner = $1"


async def claim(
    connection: Executes, process: UUID, *, rules: int, limit: int = BATCH, room: int = BATCH_BYTES
) -> list[RunRow]:
    """Take up to `limit` runs; `rules` is the newest version of the journal's rules known here.

    The claim stops when the journals of the runs taken have `room` bytes. A single run that is larger is taken alone.
    """
    rows = await connection.fetch(_CLAIM, process, limit, rules, room)
    return [run_row(row) for row in rows]


async def claim_one(connection: Executes, process: UUID, run_id: UUID, *, rules: int) -> RunRow | None:
    """Take one waiting run; None when it has ended, is parked, or another process owns it."""
    row = await connection.fetchrow(_CLAIM_ONE, run_id, process, rules)
    return run_row(row) if row is not None else None


async def load(connection: Executes, runs: list[RunRow]) -> list[Claimed]:
    """Read the journals of runs whose claim has committed."""
    journals = await read_journals(connection, [run.id for run in runs])
    return [Claimed(run, journals[run.id]) for run in runs]


async def next_due(connection: Executes) -> timedelta | None:
    """Return the time until the next waiting run is due; negative if it is overdue, None if no run waits."""
    value: timedelta | None = await connection.fetchval(_NEXT_DUE)
    return value


async def release(
    connection: Executes,
    run_id: UUID,
    fence: int,
    after: timedelta,
    reason: str,
    message: str,
    event: Announcement | None = None,
) -> None:
    """Release a run that this process cannot drive: it shows as stalled, and is due again after `after`.

    `event` tells of it, unless the run showed as stalled before.
    """
    if event is None:
        await connection.execute(_RELEASE, run_id, fence, after, reason, message)
    else:
        await connection.execute(_RELEASE_AND_TELL, run_id, fence, after, reason, message, *event.values)


async def owned(connection: Executes, process: UUID) -> dict[UUID, int]:
    """Return the runs that the database says a process owns, with their fences."""
    rows = await connection.fetch(_OWNED, process)
    return {row[0]: row[1] for row in rows}
