"""The values that the journal's modules pass to each other, without SQL and engine.

The runner makes them; the writer, the claims and the reader carry them to and from Postgres.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from uuid import UUID


class State(IntEnum):
    """The state of a run; the numbers are those of amends.saga.v1.RunState and of column run.state."""

    RUNNING = 1
    COMPENSATING = 2
    PARKED = 3
    COMPLETED = 4
    COMPENSATED = 5

    @property
    def ended(self) -> bool:
        """Return whether the run has ended, so that its state can never change again."""
        return self >= State.COMPLETED


class JournalRefusal(StrEnum):
    """The reason why the journal takes no more rows of a run from this owner."""

    FENCED = "another owner has taken the run"
    COLLISION = "another owner has written the same sequence number"
    BAD_ROW = "the database refused a row"


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run to be started. `payload` is the sha256 of what the caller asked for, `digest` that of the definition.

    With `owner` None the run waits for the next claim.
    """

    id: UUID
    namespace: str
    saga: str
    key: str
    payload: bytes
    digest: bytes
    rules: int
    owner: UUID | None
    traceparent: str
    record: bytes


@dataclass(frozen=True, slots=True)
class RunChange:
    """The new column values of a run's row that are written with a journal row.

    With `release`, `due` None means that no process is to run it: it has ended, or waits for a person.
    """

    state: State
    release: bool = False
    due: timedelta | None = None
    step: str = ""
    reason: str = ""
    message: str = ""
    skipped_by_person: int = 0
    stalled: timedelta | None = None
    next_attempt: timedelta | None = None


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """One row of the journal, as read from the database."""

    seq: int
    fence: int
    record: bytes


@dataclass(frozen=True, slots=True)
class RunRow:
    """One row of table run, as read from the database."""

    id: UUID
    namespace: str
    saga: str
    key: str
    payload: bytes
    digest: bytes
    rules: int
    owner: UUID | None
    fence: int
    state: State
    started_at: datetime
    ended_at: datetime | None
    due_at: datetime | None
    traceparent: str
    step: str
    reason: str
    message: str
    skipped_by_person: int
    stalled_since: datetime | None
    next_attempt_at: datetime | None


@dataclass(frozen=True, slots=True)
class Claimed:
    """A run that this process owns now, with its whole journal, read after the claim was committed."""

    run: RunRow
    records: tuple[StoredRecord, ...]
