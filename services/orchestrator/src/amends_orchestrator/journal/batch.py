"""The rows that one statement of the writer carries, and the statement's parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from uuid import UUID

from amends_orchestrator.journal.records import NewRun, RunChange
from amends_orchestrator.journal.statements import WEBHOOKS_ARE_JOINED_BY, batch_statement
from amends_orchestrator.journal.tail import Tail
from amends_orchestrator.journal.telling import Announcement


@dataclass(slots=True)
class JournalRow:
    """One journal row to be written, with its change of the run's row and the event that tells of it."""

    tail: Tail
    seq: int
    record: bytes
    change: RunChange | None
    event: Announcement | None = None


@dataclass(frozen=True, slots=True)
class StartAnswer:
    """The result of a start: `created`, or the run that has the key and the payload that run was started with."""

    created: bool
    run_id: UUID
    payload: bytes


OnWritten = Callable[[StartAnswer | Exception], None]
"""Called with the result of a start, between two statements; an exception when the database refuses the row."""


@dataclass(frozen=True, slots=True)
class PendingStart:
    """A run to be inserted into the database."""

    new: NewRun
    answered: OnWritten
    until: float | None = None
    """When its caller stops waiting, by the loop's clock; after that it is not sent any more."""
    event: Announcement | None = None


statement = lru_cache(maxsize=64)(batch_statement)


@dataclass(slots=True)
class Batch:
    """Rows in the order in which they were queued. `changes` holds the last change of each run.

    `events` holds the run and the record's number of each event.
    """

    starts: list[PendingStart] = field(default_factory=list)
    rows: list[JournalRow] = field(default_factory=list)
    tails: dict[UUID, Tail] = field(default_factory=dict)
    changes: dict[UUID, RunChange] = field(default_factory=dict)
    events: list[tuple[UUID, int, Announcement]] = field(default_factory=list)

    @classmethod
    def of(cls, entries: Iterable[JournalRow | PendingStart]) -> Batch:
        """Sort entries into a batch, without rows of closed tails: those were refused already."""
        batch = cls()
        for entry in entries:
            if isinstance(entry, PendingStart):
                batch.starts.append(entry)
                if entry.event is not None:
                    batch.events.append((entry.new.id, 1, entry.event))
            elif entry.tail.refusal is None:
                batch.rows.append(entry)
                batch.tails[entry.tail.id] = entry.tail
                if entry.change is not None:
                    batch.changes[entry.tail.id] = entry.change
                if entry.event is not None:
                    batch.events.append((entry.tail.id, entry.seq, entry.event))
        return batch

    def __len__(self) -> int:
        return len(self.starts) + len(self.rows)

    def without(self, closed: Iterable[UUID]) -> Batch:
        """Return the same batch without these runs."""
        gone = set(closed)
        return Batch.of(
            [
                *(start for start in self.starts if start.new.id not in gone),
                *(row for row in self.rows if row.tail.id not in gone),
            ]
        )

    def late(self, now: float) -> list[PendingStart]:
        """Return the starts whose callers no longer wait; `now` is the loop's clock."""
        return [start for start in self.starts if start.until is not None and start.until <= now]

    def halves(self) -> tuple[Batch, Batch]:
        """Return two batches with about half of the runs each; a run is never split."""
        ids = [*self.tails]
        first = set(ids[: len(ids) // 2]) if len(ids) > 1 or self.starts else set(ids)
        middle = len(self.starts) // 2 if len(self.starts) > 1 or not self.tails else 0
        left: list[JournalRow | PendingStart] = [
            *self.starts[:middle],
            *(row for row in self.rows if row.tail.id in first),
        ]
        right: list[JournalRow | PendingStart] = [
            *self.starts[middle:],
            *(row for row in self.rows if row.tail.id not in first),
        ]
        return Batch.of(left), Batch.of(right)

    @property
    def single(self) -> bool:
        """Return whether the batch is about one run only: then a failure is that run's own."""
        return len(self.starts) + len(self.tails) <= 1

    def sql(self) -> str:
        """Return the SQL statement that writes this batch."""
        return statement(
            starts=bool(self.starts),
            rows=bool(self.rows),
            changes=bool(self.changes),
            events=bool(self.events),
            webhooks=any(told.webhooks for _, _, told in self.events),
            one=self.single,
        )

    def parameters(self) -> list[Any]:
        """Return the statement's parameters in its order: one value or one array for each column."""
        values: list[Any] = []
        one = self.single
        if self.rows:
            _add(values, [(tail.id, tail.fence) for tail in self.tails.values()], plain=one)
            rows = [(row.tail.id, row.seq, row.tail.fence, row.record) for row in self.rows]
            _add(values, rows, plain=False)
        if self.changes:
            _add(values, [_change(run_id, change) for run_id, change in self.changes.items()], plain=one)
        if self.starts:
            _add(values, [_start(start.new) for start in self.starts], plain=one)
        if self.events:
            _add(values, [_event(*event) for event in self.events], plain=False)
        return values


def _add(values: list[Any], rows: Sequence[tuple[Any, ...]], *, plain: bool) -> None:
    values.extend(rows[0] if plain else zip(*rows, strict=True))


def _start(new: NewRun) -> tuple[Any, ...]:
    """Return the values of the columns of `statements.START`."""
    return (
        new.id,
        new.record,
        new.namespace,
        new.saga,
        new.key,
        new.payload,
        new.digest,
        new.rules,
        new.owner,
        new.traceparent,
    )


def _event(run_id: UUID, seq: int, told: Announcement) -> tuple[Any, ...]:
    """Return the values of the columns of `statements.EVENT`."""
    return (run_id, seq, *told.row.values, told.publish, WEBHOOKS_ARE_JOINED_BY.join(told.webhooks))


def _change(run_id: UUID, change: RunChange) -> tuple[Any, ...]:
    """Return the values of the columns of `statements.CHANGE`."""
    return (
        run_id,
        int(change.state),
        change.release,
        change.due,
        change.step,
        change.reason,
        change.message,
        change.skipped_by_person,
        change.stalled,
        change.next_attempt,
    )
