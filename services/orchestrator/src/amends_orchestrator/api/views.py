"""Reads runs for people: from the database, replayed by the engine that also drives them.

Called by GetRun, ListRuns, WatchRun, and by every method that answers with a run that this process does not hold.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from amends_chassis.errors import FailedPrecondition, InvalidArgument, NotFound
from amends_saga.compiled import CompiledSaga
from amends_saga.engine import RunState, initial
from amends_saga.engine.events import Recorded
from amends_saga.engine.ledger import Ledger, UnreadableJournalError, append, owned
from amends_saga.journal import RULES_VERSION, decode

from amends.saga.v1 import run_pb2 as pb
from amends_orchestrator.api.convert import (
    RunView,
    add_requests,
    bare_message,
    event_message,
    newer_message,
    run_message,
)
from amends_orchestrator.api.payloads import ROOM, Form, Payloads
from amends_orchestrator.definitions.registry import Registry
from amends_orchestrator.journal import requests
from amends_orchestrator.journal.reader import read_journal, read_journals, read_run, read_run_by_key
from amends_orchestrator.journal.records import RunRow, StoredRecord
from amends_orchestrator.runner.fleet import Fleet
from amends_orchestrator.runner.host import RunHost
from amends_orchestrator.runner.ports import DefinitionError

if TYPE_CHECKING:
    from amends_chassis.database import Pool

CHUNK = 50
LONGEST_TIMELINE = 100
AT_ONCE = 16 * 1024
"""Payloads of more bytes than this become JSON in a thread, so that other work goes on meanwhile."""
THREADS = 2


def parse_run_id(text: str) -> UUID:
    """Return the id that a caller's text means. Raises NotFound: we made every id, so other texts name no run."""
    try:
        return UUID(text)
    except ValueError:
        raise NotFound("RUN_UNKNOWN", "There is no such run.") from None


def check_timeline(length: int) -> None:
    """Refuse to show more records than one answer holds. Raises InvalidArgument."""
    if not 0 <= length <= LONGEST_TIMELINE:
        raise InvalidArgument("TIMELINE_INVALID", f"timeline is from 0 to {LONGEST_TIMELINE}.")


def replay_steps(
    definition: CompiledSaga, run_id: UUID, records: Sequence[StoredRecord]
) -> Iterator[tuple[Recorded, Ledger]]:
    """Yield each record with the ledger up to it. Raises UnreadableJournalError."""
    ledger = Ledger(initial(definition.plan, str(run_id)))
    for record in records:
        entry = decode(definition.plan, record.seq, record.fence, record.record)
        ledger = append(definition.plan, ledger, entry)
        yield entry, ledger


def folded(definition: CompiledSaga, row: RunRow, records: Sequence[StoredRecord]) -> RunState:
    """Return the state that the durable journal says. Raises UnreadableJournalError."""
    return _state(row, deque(replay_steps(definition, row.id, records), maxlen=1))


def _state(row: RunRow, last: deque[tuple[Recorded, Ledger]]) -> RunState:
    if not last:
        raise UnreadableJournalError("the journal is empty")
    return owned(last[-1][1], row.fence)


def _events(definition: CompiledSaga, run_id: UUID, last: deque[tuple[Recorded, Ledger]]) -> list[pb.RunEvent]:
    return [event_message(definition.plan, str(run_id), entry, ledger.state) for entry, ledger in last]


class Views:
    """Runs as callers see them."""

    def __init__(self, pool: Pool, registry: Registry, host: RunHost, fleet: Fleet, max_message_bytes: int) -> None:
        self.pool = pool
        self.registry = registry
        self.threads = asyncio.Semaphore(THREADS)
        """Limits how many threads make JSON of large payloads at the same time."""
        self._host = host
        self._fleet = fleet
        self._room = min(ROOM, max_message_bytes // 2)

    def now(self) -> datetime:
        """Return the database's time."""
        return self._host.now()

    async def row(self, run_id: UUID) -> RunRow:
        """Return one run's row. Raises NotFound."""
        row = await read_run(self.pool, run_id)
        if row is None:
            raise NotFound("RUN_UNKNOWN", "There is no such run.", run_id=str(run_id))
        return row

    async def row_by_key(self, namespace: str, key: str) -> RunRow:
        """Return the row of the run that was started with a key. Raises NotFound, InvalidArgument."""
        if not key:
            raise InvalidArgument("RUN_UNNAMED", "Give run_id, or namespace and idempotency_key.")
        row = await read_run_by_key(self.pool, namespace or "default", key)
        if row is None:
            raise NotFound("RUN_UNKNOWN", "No run was started with this key.")
        return row

    async def run(self, row: RunRow, form: Form = Form.NONE) -> pb.Run:
        """Return one durable run, with the requests that its owner has not answered."""
        return (await self.with_timeline(row, 0, form))[0]

    async def with_timeline(self, row: RunRow, length: int, form: Form = Form.NONE) -> tuple[pb.Run, list[pb.RunEvent]]:
        """Return one durable run and the last `length` records of its journal."""
        run, timeline = await self._shown(row, await read_journal(self.pool, row.id), length, form)
        if not row.state.ended:
            add_requests(run, await requests.open_of(self.pool, row.id))
        return run, timeline

    async def state(self, row: RunRow) -> tuple[CompiledSaga, RunState]:
        """Return the definition and the durable state. Raises FailedPrecondition when they cannot be read here."""
        if row.rules > RULES_VERSION:
            raise FailedPrecondition("RUN_UNREADABLE", "A newer orchestrator wrote this run's journal; ask that one.")
        try:
            definition = await self.registry.pinned(row.digest)
            return definition, folded(definition, row, await read_journal(self.pool, row.id))
        except (DefinitionError, UnreadableJournalError) as error:
            raise FailedPrecondition("RUN_UNREADABLE", f"The run cannot be read here: {error}.") from None

    async def events(
        self, run_id: UUID, digest: bytes, records: Sequence[StoredRecord], length: int
    ) -> list[pb.RunEvent]:
        """Return the last `length` records of a run for people; none when they cannot be read here."""
        if not length:
            return []
        try:
            definition = await self.registry.pinned(digest)
            last = deque(replay_steps(definition, run_id, records), maxlen=length)
        except (DefinitionError, UnreadableJournalError):
            return []
        return _events(definition, run_id, last)

    async def runs(self, rows: Sequence[RunRow]) -> list[pb.Run]:
        """Return the runs of a page without payloads; a long page lets other work run in between."""
        shown: list[pb.Run] = []
        for at in range(0, len(rows), CHUNK):
            chunk = rows[at : at + CHUNK]
            journals = await read_journals(self.pool, [row.id for row in chunk])
            shown += [await self.message(row, journals[row.id]) for row in chunk]
            await asyncio.sleep(0)
        return shown

    async def message(self, row: RunRow, records: Sequence[StoredRecord], form: Form = Form.NONE) -> pb.Run:
        """Return a run from its row and journal; from the row alone if the journal cannot be read here."""
        return (await self._shown(row, records, 0, form))[0]

    async def _shown(
        self, row: RunRow, records: Sequence[StoredRecord], length: int, form: Form
    ) -> tuple[pb.Run, list[pb.RunEvent]]:
        if row.rules > RULES_VERSION:
            return newer_message(row), []
        try:
            definition = await self.registry.pinned(row.digest)
            last = deque(replay_steps(definition, row.id, records), maxlen=max(length, 1))
            state = _state(row, last)
        except DefinitionError as error:
            return bare_message(row, str(error) if not row.message else ""), []
        except UnreadableJournalError as error:
            ended = row.state.ended
            return bare_message(row, "" if ended else f"its journal cannot be read here: {error}"), []
        payloads = Payloads(form, self._room)
        view = RunView.of_row(row)
        if form is not Form.NONE and sum(len(record.record) for record in records) > AT_ONCE:
            async with self.threads:
                run = await asyncio.to_thread(run_message, definition, view, state, self.now(), payloads)
        else:
            run = run_message(definition, view, state, self.now(), payloads)
        live = self._fleet.get(row.id)
        if live is not None and live.next_attempt is not None and run.HasField("stalled"):
            run.stalled.next_attempt.FromDatetime(live.next_attempt)
        return run, _events(definition, row.id, last) if length else []
