"""Finds out what was written by a statement that was interrupted, or that has a bad row.

Only the writer calls this, and only after a failure. It compares its rows with the journal: the same row under the same
fence is ours; a different row under that number is not.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import asyncpg

from amends_orchestrator.journal.batch import Batch
from amends_orchestrator.journal.statements import PRESENT

Present = dict[tuple[UUID, int], tuple[int, bytes]]


async def present(connection: asyncpg.Connection[Any], batch: Batch) -> Present:
    """Return which of the batch's rows exist: (run, seq) to (fence, record)."""
    if not batch.rows:
        return {}
    runs, seqs = [row.tail.id for row in batch.rows], [row.seq for row in batch.rows]
    found = await connection.fetch(PRESENT, runs, seqs)
    return {(row["run_id"], row["seq"]): (row["fence"], bytes(row["record"])) for row in found}


def compare(batch: Batch, there: Present) -> tuple[set[UUID], set[UUID]]:
    """Return the runs whose rows are all there, and the runs where another owner has written rows with these numbers.

    A statement is atomic, so a run with only some of its rows counts as held by somebody else too.
    """
    collided: set[UUID] = set()
    found: set[UUID] = set()
    missing: set[UUID] = set()
    for row in batch.rows:
        stored = there.get((row.tail.id, row.seq))
        if stored is None:
            missing.add(row.tail.id)
        elif stored == (row.tail.fence, row.record):
            found.add(row.tail.id)
        else:
            collided.add(row.tail.id)
    collided |= found & missing
    return found - collided, collided
