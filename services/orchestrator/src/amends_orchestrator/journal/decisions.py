"""The statements of a person's decision about a parked run; the caller has one transaction around them.

They write the journal beside the writer, which is safe because nobody owns a parked run: the lock keeps other
decisions away, and the fence of the claim is higher than that of every former owner.
"""

from __future__ import annotations

from uuid import UUID

from amends_chassis.database import Executes

from amends_orchestrator.journal.records import State
from amends_orchestrator.journal.telling import Announcement, and_tell

_LOCK = "SELECT fence FROM run WHERE id = $1 FOR NO KEY UPDATE"
_RECORD = "INSERT INTO journal (run_id, seq, fence, record) VALUES ($1, $2, $3, $4)"
_RECORD_AND_TELL = and_tell(_RECORD + " RETURNING seq AS version", 4)
_CLAIM = """
UPDATE run SET owner = $2, fence = $3, state = $4, due_at = NULL, step = '', reason = '', message = $5,
    stalled_since = NULL, next_attempt_at = NULL
WHERE id = $1
"""


async def lock_run(connection: Executes, run_id: UUID) -> bool:
    """Lock the run's row until the transaction ends; return False when there is no such run."""
    return await connection.fetchrow(_LOCK, run_id) is not None


async def record_decision(
    connection: Executes, run_id: UUID, seq: int, fence: int, record: bytes, event: Announcement | None
) -> None:
    """Append the decision to the journal of a locked run, with the event that tells of it."""
    if event is None:
        await connection.execute(_RECORD, run_id, seq, fence, record)
    else:
        await connection.execute(_RECORD_AND_TELL, run_id, seq, fence, record, *event.values)


async def claim_decided(
    connection: Executes, run_id: UUID, owner: UUID, fence: int, state: State, message: str
) -> None:
    """Make a process the owner of a locked run, and show what its row says after the decision."""
    await connection.execute(_CLAIM, run_id, owner, fence, int(state), message)
