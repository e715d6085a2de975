"""The orchestrator's database in memory, behind connections that fail like real ones.

It executes the orchestrator's own statements, told apart by their text, so that the real writer, claimer, heartbeat
and resolution run over it. A statement takes time, may stall, and may commit although its answer is lost. Called by
the simulation.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

import asyncpg
from amends_orchestrator.journal import claims, decisions, leases, reader, statements
from amends_orchestrator.journal.records import State

from amends_simulation.carried import carried, is_batch
from amends_simulation.virtual import database_now

TableRow = dict[str, Any]
StatementGate = Callable[[], Any]


@dataclass
class DatabaseFaults:
    """The faults of the database, each as a chance. With all off it answers at once and always."""

    lost: float = 0.0
    """How often a statement's connection breaks: before it arrives, or after it has committed."""
    slow: float = 0.0
    """How often a statement takes seconds."""
    away: bool = False
    """Nothing is answered."""
    fenced: bool = True
    """The statement of the writer compares fences. A test may break it."""


@dataclass
class SimulatedDatabase:
    """Tables run, journal and process."""

    chance: Random
    faults: DatabaseFaults = field(default_factory=DatabaseFaults)
    runs: dict[UUID, TableRow] = field(default_factory=dict)
    keys: dict[tuple[str, str], UUID] = field(default_factory=dict)
    journal: dict[UUID, list[tuple[int, int, bytes]]] = field(default_factory=dict)
    """Sequence number, fence and record, in the order of commits."""
    leases: dict[UUID, datetime] = field(default_factory=dict)
    outbox: list[tuple[UUID, int, str]] = field(default_factory=list)
    """Run, version and type of each event for the broker, in the order of commits."""
    deliveries: list[tuple[str, UUID, int, str]] = field(default_factory=list)
    """The same for webhooks, each after the webhook's name."""
    outdated: list[str] = field(default_factory=list)
    """Records that were taken under a fence that was not the run's any more."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by transactions of several statements."""
    now: Callable[[], datetime] = database_now
    """What its clock says."""

    # ------------------------------------------------------------ statements

    def execute(self, sql: str, values: list[Any]) -> list[Any]:
        """Execute one statement. Raises what Postgres would."""
        if is_batch(sql):
            return self._batch(sql, values)
        handler = STATEMENTS.get(sql)
        if handler is None:
            raise LookupError(f"the simulation does not know this statement: {sql[:80]}")
        result: list[Any] = handler(self, *values)
        return result

    def _batch(self, sql: str, values: list[Any]) -> list[Any]:
        held, new, changes, starts, events = carried(sql, values)
        owned = {run for run, fence in held if self._holds(run, fence)}
        new = [row for row in new if row[0] in owned]
        taken = [(run, seq) for run in owned for seq, _, _ in self.journal[run]]
        taken += [(run, seq) for run, seq, _, _ in new]
        if len(set(taken)) < len(taken):
            raise _taken()
        for run, seq, fence, record in new:
            self.journal[run].append((seq, fence, record))
            if fence < self.runs[run]["fence"]:
                self.outdated.append(f"record {seq} of run {str(run)[:8]} under fence {fence}")
        for change in changes:
            if change[0] in owned:
                self._change(*change)
        refused = [(run,) for run, _ in held if run not in owned]
        known = self._starts(starts)
        self._tell(events, {*owned, *(start[0] for start in starts)}.difference(*known))
        return refused + known

    def _tell(self, events: list[tuple[Any, ...]], written: set[UUID]) -> None:
        for run, version, *event, publish, webhooks in events:
            if run in written:
                self._told(run, version, [*event, publish, webhooks.split()])

    def _told(self, run: UUID, version: int, event: Sequence[Any]) -> None:
        *_, publish, webhooks = event
        kind = event[4]
        if publish:
            self.outbox.append((run, version, kind))
        self.deliveries += [(webhook, run, version, kind) for webhook in webhooks]

    def _holds(self, run: UUID, fence: int) -> bool:
        return run in self.runs and (not self.faults.fenced or self.runs[run]["fence"] == fence)

    def _starts(self, starts: list[tuple[Any, ...]]) -> list[Any]:
        refused: list[Any] = []
        for start in starts:
            run, record, namespace, saga, key, payload, digest, rules, owner, traceparent = start
            if (namespace, key) in self.keys:
                refused.append((run,))
                continue
            now = self.now()
            self.keys[namespace, key] = run
            self.journal[run] = [(1, 1, record)]
            self.runs[run] = {
                "id": run,
                "namespace": namespace,
                "saga": saga,
                "idempotency_key": key,
                "payload": payload,
                "digest": digest,
                "rules": rules,
                "owner": owner,
                "fence": 1,
                "state": 1,
                "started_at": now,
                "ended_at": None,
                "due_at": None if owner else now,
                "traceparent": traceparent,
                "step": "",
                "reason": "",
                "message": "",
                "skipped_by_person": 0,
                "stalled_since": None,
                "next_attempt_at": None,
            }
        return refused

    def _change(
        self,
        run: UUID,
        state: int,
        release: bool,
        due: timedelta | None,
        step: str,
        reason: str,
        message: str,
        skipped: int,
        stalled: timedelta | None,
        next_attempt: timedelta | None,
    ) -> None:
        now, row = self.now(), self.runs[run]
        row.update(state=state, step=step, reason=reason, message=message, skipped_by_person=skipped)
        row["due_at"] = now + due if due is not None else None
        row["ended_at"] = now if State(state).ended else None
        row["stalled_since"] = now - stalled if stalled is not None else None
        row["next_attempt_at"] = now + next_attempt if next_attempt is not None else None
        if release:
            row["owner"] = None

    def _claim(self, process: UUID, limit: int, rules: int, room: int) -> list[TableRow]:
        now = self.now()
        known = [row for row in self.runs.values() if row["rules"] <= rules]
        due = [row for row in known if row["owner"] is None and row["due_at"] is not None and row["due_at"] <= now]
        gone = {owner for owner, until in self.leases.items() if until < now and owner != process}
        orphaned = [row for row in known if row["owner"] in gone]
        mine = sorted(due, key=lambda row: row["due_at"])[:limit]
        mine += orphaned[: limit - len(mine)]
        mine = [row for at, row in enumerate(mine) if sum(map(self._size, mine[:at])) < room]
        return [self._take(row, process) for row in mine]

    def _size(self, row: TableRow) -> int:
        return sum(len(record) for _, _, record in self.journal[row["id"]])

    def _claim_one(self, run: UUID, process: UUID, rules: int) -> list[TableRow]:
        row = self.runs.get(run)
        if row is None or row["state"] >= 3 or row["rules"] > rules:
            return []
        owner, now = row["owner"], self.now()
        free = owner is None or (owner in self.leases and self.leases[owner] < now)
        return [self._take(row, process)] if free else []

    def _take(self, row: TableRow, process: UUID) -> TableRow:
        row.update(owner=process, fence=row["fence"] + 1, due_at=None)
        return dict(row)

    def _next_due(self) -> list[Any]:
        due = [row["due_at"] for row in self.runs.values() if row["owner"] is None and row["due_at"] is not None]
        return [(min(due) - self.now() if due else None,)]

    def _release(self, run: UUID, fence: int, after: timedelta, reason: str, message: str) -> list[Any]:
        row = self.runs.get(run)
        if row is not None and row["fence"] == fence and row["state"] < 3:
            row.update(owner=None, due_at=self.now() + after)
            if reason:
                row.update(reason=reason, message=message, next_attempt_at=row["due_at"])
                row["stalled_since"] = row["stalled_since"] or self.now()
        return []

    def _release_and_tell(
        self, run: UUID, fence: int, after: timedelta, reason: str, message: str, *event: Any
    ) -> list[Any]:
        row = self.runs.get(run)
        if row is None or row["fence"] != fence or row["state"] >= 3:
            return []
        fresh, version = row["stalled_since"] is None, max(seq for seq, _, _ in self.journal[run])
        self._release(run, fence, after, reason, message)
        if fresh:
            self._told(run, version, event)
        return [(fresh, version)]

    def _owned(self, process: UUID) -> list[Any]:
        return [(row["id"], row["fence"]) for row in self.runs.values() if row["owner"] == process]

    def _present(self, runs: list[UUID], seqs: list[int]) -> list[TableRow]:
        found = []
        for run, seq in zip(runs, seqs, strict=True):
            for number, fence, record in self.journal.get(run, ()):
                if number == seq:
                    found.append({"run_id": run, "seq": seq, "fence": fence, "record": record})
        return found

    def _holders(self, namespaces: list[str], keys: list[str]) -> list[TableRow]:
        held = [self.keys.get(pair) for pair in zip(namespaces, keys, strict=True)]
        columns = "id", "namespace", "idempotency_key", "payload"
        return [{column: self.runs[run][column] for column in columns} for run in held if run is not None]

    def _renew(self, process: UUID, name: str, lease: timedelta) -> list[Any]:
        now = self.now()
        before = self.leases.get(process)
        self.leases[process] = now + lease
        return [(now, None if before is None else before < now)]

    def _end_lease(self, process: UUID) -> list[Any]:
        if process in self.leases:
            self.leases[process] = self.now() - timedelta(milliseconds=1)
        return []

    def _run(self, run: UUID) -> list[TableRow]:
        return [dict(self.runs[run])] if run in self.runs else []

    def _journal_of(self, run: UUID, after: int, limit: int) -> list[Any]:
        return [entry for entry in sorted(self.journal.get(run, ())) if entry[0] > after][:limit]

    def _journals(self, runs: list[UUID]) -> list[Any]:
        return [(run, *entry) for run in sorted(set(runs)) for entry in sorted(self.journal.get(run, ()))]

    def _record(self, run: UUID, seq: int, fence: int, record: bytes) -> list[Any]:
        if self._present([run], [seq]):
            raise _taken()
        self.journal[run].append((seq, fence, record))
        return []

    def _record_and_tell(self, run: UUID, seq: int, fence: int, record: bytes, *event: Any) -> list[Any]:
        self._record(run, seq, fence, record)
        self._told(run, seq, event)
        return [(seq,)]

    def _resolved(self, run: UUID, owner: UUID, fence: int, state: int, message: str) -> list[Any]:
        if run in self.runs:
            self.runs[run].update(owner=owner, fence=fence, state=state, step="", reason="", message=message)
            self.runs[run].update(due_at=None, stalled_since=None, next_attempt_at=None)
        return []

    def _locked(self, run: UUID) -> list[Any]:
        return [(self.runs[run]["fence"],)] if run in self.runs else []


def _taken() -> Exception:
    return asyncpg.UniqueViolationError("duplicate key value violates unique constraint journal_pkey")


STATEMENTS: dict[str, Callable[..., list[Any]]] = {
    claims._CLAIM: SimulatedDatabase._claim,
    claims._CLAIM_ONE: SimulatedDatabase._claim_one,
    claims._NEXT_DUE: SimulatedDatabase._next_due,
    claims._RELEASE: SimulatedDatabase._release,
    claims._RELEASE_AND_TELL: SimulatedDatabase._release_and_tell,
    claims._OWNED: SimulatedDatabase._owned,
    statements.PRESENT: SimulatedDatabase._present,
    statements.HOLDERS: SimulatedDatabase._holders,
    leases._RENEW: SimulatedDatabase._renew,
    leases._END: SimulatedDatabase._end_lease,
    reader._RUN: SimulatedDatabase._run,
    reader._JOURNAL: SimulatedDatabase._journal_of,
    reader._JOURNALS: SimulatedDatabase._journals,
    decisions._LOCK: SimulatedDatabase._locked,
    decisions._RECORD: SimulatedDatabase._record,
    decisions._RECORD_AND_TELL: SimulatedDatabase._record_and_tell,
    decisions._CLAIM: SimulatedDatabase._resolved,
}


class SimulatedConnection:
    """One connection of one process; what asyncpg's would do for the statements above."""

    def __init__(self, database: SimulatedDatabase, gate: StatementGate) -> None:
        self._database = database
        self._gate = gate
        self._closed = False
        self._later: list[tuple[str, list[Any]]] | None = None
        """Statements of a transaction, executed when it commits."""

    def is_closed(self) -> bool:
        """Return whether it broke or was closed."""
        return self._closed

    def terminate(self) -> None:
        """Close the connection at once."""
        self._closed = True

    async def close(self) -> None:
        """Close the connection."""
        self._closed = True

    async def fetch(self, sql: str, *values: Any) -> list[Any]:
        """Execute a statement and return its rows."""
        if self._later is not None:
            return self._inside(sql, list(values))
        async with self._database.lock:
            pass
        return await self._sent(lambda: self._database.execute(sql, list(values)))

    async def fetchrow(self, sql: str, *values: Any) -> Any:
        """Return the first row, or None."""
        rows = await self.fetch(sql, *values)
        return rows[0] if rows else None

    async def fetchval(self, sql: str, *values: Any) -> Any:
        """Return the first value of the first row, or None."""
        row = await self.fetchrow(sql, *values)
        return row[0] if row else None

    async def execute(self, sql: str, *values: Any) -> str:
        """Execute one SQL statement; its tag is empty, because no statement here asks for it."""
        await self.fetch(sql, *values)
        return ""

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """Several statements that commit together; no other connection writes meanwhile."""
        async with self._database.lock:
            self._later = []
            try:
                yield
                later = self._later
                self._later = None
                await self._sent(lambda: [self._database.execute(sql, values) for sql, values in later])
            finally:
                self._later = None

    def _inside(self, sql: str, values: list[Any]) -> list[Any]:
        if sql.lstrip().startswith("SELECT"):
            return self._database.execute(sql, values)
        assert self._later is not None
        self._later.append((sql, values))
        return []

    async def _sent(self, work: Callable[[], list[Any]]) -> list[Any]:
        """Execute `work` at one moment between now and the answer, unless something goes wrong."""
        await self._gate()
        database, chance = self._database, self._database.chance
        if self._closed:
            raise asyncpg.InterfaceError("connection is closed")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[Any]] = loop.create_future()
        seconds = chance.uniform(1, 4) if chance.random() < database.faults.slow else chance.uniform(0.0002, 0.003)
        broken = database.faults.away or chance.random() < database.faults.lost
        arrives = not broken or (chance.random() < 0.5 and not database.faults.away)

        def execute() -> None:
            # The server goes on even when its client has left.
            heard = not broken and not answer.done()
            try:
                found = work()
            except Exception as error:
                if heard:
                    answer.set_exception(error)
            else:
                if heard:
                    answer.set_result(found)

        if arrives:
            loop.call_later(seconds, execute)
        if broken:
            self._closed = True
            await asyncio.sleep(chance.uniform(0, 2 * seconds))  # the statement may still be under way
            await self._gate()
            raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
        try:
            found = await answer
        finally:
            await self._gate()
        return found


class SimulatedPool:
    """A pool that lends simulated connections."""

    def __init__(self, database: SimulatedDatabase, gate: StatementGate) -> None:
        self._database = database
        self._gate = gate

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[SimulatedConnection]:
        """Lend one connection for a block."""
        yield SimulatedConnection(self._database, self._gate)
