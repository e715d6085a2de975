"""What to do after a statement of which nobody knows whether it committed, or that has a bad row.

Only the writer calls this, and only when something went wrong. Rows are compared with what the journal has: the same
row under the same fence was written by us; another one under that number was not.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import asyncpg

from amends_orchestrator.journal.batch import Batch
from amends_orchestrator.journal.statements import PRESENT

Present = dict[tuple[UUID, int], tuple[int, bytes]]


async def present(connection: asyncpg.Connection[Any], batch: Batch) -> Present:
    """Which of the batch's rows exist: (run, seq) to (fence, record)."""
    if not batch.rows:
        return {}
    runs, seqs = [row.tail.id for row in batch.rows], [row.seq for row in batch.rows]
    found = await connection.fetch(PRESENT, runs, seqs)
    return {(row["run_id"], row["seq"]): (row["fence"], bytes(row["record"])) for row in found}


def compare(batch: Batch, there: Present) -> tuple[set[UUID], set[UUID]]:
    """The runs whose rows are all there, and those that collide with somebody else's row.

    A statement is atomic, so a run of which only some rows are there collides too.
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
