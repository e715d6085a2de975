"""Reads the databases of a running installation for `amends audit`, and has every run checked.

The orchestrator's database is read first and in one snapshot, the participants' afterwards: what a participant
remembers only grows, so runs that go on meanwhile are no contradictions. Nothing is written, and nobody is asked.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
from amends_saga.audit import Audited, AuditFinding, Remembered, RunFacts, audit_run, run_keys
from amends_saga.bundle import BundleError
from amends_saga.compiled import load_bundle
from amends_saga.invariants import Invariant
from amends_saga.journal import RULES_VERSION, secret_for
from amends_saga.plan import Plan

from amends.saga.v1 import run_pb2

PAGE = 500
STATES = {int(number): name.removeprefix("RUN_STATE_") for name, number in run_pb2.RunState.items()}
CONNECT = timedelta(seconds=10)
EVER = datetime(2000, 1, 1, tzinfo=UTC)

_RUNS = """
SELECT run.id, namespace, saga, idempotency_key, digest, rules, owner, fence, state, due_at, ended_at,
    stalled_since, skipped_by_person, process.expires_at AS lease_ends
FROM run LEFT JOIN process ON process.id = run.owner
WHERE run.id > $1 AND run.started_at >= $2 ORDER BY run.id LIMIT $3
"""
_JOURNALS = "SELECT run_id, seq, fence, record FROM journal WHERE run_id = ANY($1) ORDER BY run_id, seq"
_PARTITIONS = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'journal'::regclass"
_DEFINITION = "SELECT bundle FROM definition WHERE digest = $1"
_TWICE = """
SELECT namespace, idempotency_key, array_agg(id) AS runs FROM run
GROUP BY namespace, idempotency_key HAVING count(*) > 1
"""
_INSTALLATION = "SELECT secret FROM installation"
_STARTED_SINCE = "SELECT id, digest, rules FROM run WHERE started_at >= $1"
_BARRIER = """
SELECT idempotency_key, operation, request_digest IS NULL AS void, response FROM barrier WHERE idempotency_key = ANY($1)
"""
# Keys of the orchestrator's form; others belong to callers that are no orchestrator, `amends probe` for example.
_ACTED = """
SELECT idempotency_key FROM barrier
WHERE operation = 'action' AND request_digest IS NOT NULL AND created_at >= $1 AND created_at < $2
    AND idempotency_key ~ '^[0-9a-f]{64}$'
"""


@dataclass(frozen=True, slots=True)
class NamedFinding:
    """A finding with what people call the run by."""

    finding: AuditFinding
    namespace: str = ""
    saga: str = ""
    key: str = ""


@dataclass(slots=True)
class AuditReport:
    """The result of an audit: what was counted, and what is wrong."""

    states: Counter[str] = field(default_factory=Counter)
    """Runs by state."""
    found: list[NamedFinding] = field(default_factory=list)
    records: int = 0
    by_person: int = 0
    unread: Counter[str] = field(default_factory=Counter)
    """Guarded steps that were not compared, by service: its database was not given."""
    newer: int = 0
    """Runs of a newer version, which were not checked."""
    past: int = 0
    """Ended runs past their retention, whose part of the journal was dropped."""

    @property
    def runs(self) -> int:
        """Return how many runs were checked."""
        return sum(self.states.values())


@dataclass(frozen=True, slots=True)
class AuditRequest:
    """What an audit has to check. `participants` are database URLs by protobuf service."""

    database: str
    participants: Mapping[str, str]
    since: timedelta | None = None
    """Only runs started since; effects without a run are then not looked for."""
    lease: timedelta = timedelta(seconds=10)
    strangers: bool = False
    """Participants serve other orchestrators too, so effects without a run may belong to those."""


class UnreadableError(Exception):
    """A database that cannot be read; the text has no password."""


@asynccontextmanager
async def connected(name: str, url: str) -> AsyncIterator["asyncpg.Connection[Any]"]:
    """Give a connection to the database of a service. Raises UnreadableError, which has no password."""
    try:
        connection = await asyncpg.connect(url, timeout=CONNECT.total_seconds())
    except (OSError, ValueError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise UnreadableError(f"the database of {name} cannot be reached: {error}") from None
    try:
        yield connection
    except asyncpg.UndefinedTableError:
        raise UnreadableError(f"the database of {name} has no tables: {name} has never used it") from None
    except asyncpg.PostgresError as error:
        raise UnreadableError(f"the database of {name} cannot be read: {error}") from None
    finally:
        await connection.close()


class _Auditor:
    """The state of one audit: its report, and what it has read and not yet compared."""

    def __init__(self, wanted: AuditRequest) -> None:
        self.report = AuditReport()
        self._wanted = wanted
        self._plans: dict[bytes, Plan | None] = {}
        self._names: dict[str, tuple[str, str, str]] = {}
        self._partitions: set[str] = set()
        self._secret = b""
        self._keys: dict[str, set[bytes]] = {service: set() for service in wanted.participants}

    async def audit(self) -> AuditReport:
        async with connected("the orchestrator", self._wanted.database) as journal:
            async with journal.transaction(isolation="repeatable_read", readonly=True):
                now: datetime = await journal.fetchval("SELECT clock_timestamp()")
                since = EVER if self._wanted.since is None else now - self._wanted.since
                oldest = await journal.fetchval("SELECT min(started_at) FROM run") or EVER
                self._secret = bytes(await journal.fetchval(_INSTALLATION))
                await self._duplicate_keys(journal)
                self._partitions = {row[0] for row in await journal.fetch(_PARTITIONS)}
                last = UUID(int=0)
                while rows := await journal.fetch(_RUNS, last, since, PAGE):
                    await self._page(journal, rows, now)
                    last = rows[-1]["id"]
            if not self._wanted.strangers and self._wanted.since is None:
                await self._effects_without_run(journal, oldest, now)
        return self.report

    async def _duplicate_keys(self, journal: Any) -> None:
        for row in await journal.fetch(_TWICE):
            for run in row["runs"]:
                finding = AuditFinding(Invariant.START, str(run), "", "another run has the same key")
                self.report.found.append(NamedFinding(finding, row["namespace"], "", row["idempotency_key"]))

    async def _page(self, journal: Any, rows: Sequence[Any], now: datetime) -> None:
        records: dict[UUID, list[tuple[int, int, bytes]]] = {row["id"]: [] for row in rows}
        for record in await journal.fetch(_JOURNALS, list(records)):
            records[record["run_id"]].append((record["seq"], record["fence"], record["record"]))
        plans = {row["id"]: await self._plan(journal, row["digest"]) for row in rows}
        memory = await self._memory([(row["id"], plans[row["id"]], self._key_secret(row)) for row in rows])
        for row in rows:
            state = STATES.get(row["state"], str(row["state"]))
            plan = plans[row["id"]]
            if row["rules"] > RULES_VERSION:
                self.report.newer += 1
                continue
            partition = _partition(row["id"])
            if row["ended_at"] is not None and partition and partition not in self._partitions:
                self.report.past += 1
                continue
            self.report.states[state] += 1
            self.report.records += len(records[row["id"]])
            if plan is None:
                finding = AuditFinding(
                    Invariant.JOURNAL, str(row["id"]), "", "its definition is gone or cannot be read"
                )
                self._found(row, [finding])
                continue
            patience = self._wanted.lease * 2
            audited = audit_run(
                plan, _facts(row, state, self._key_secret(row)), records[row["id"]], memory, now, patience
            )
            self._found(row, audited.findings)
            self._count(plan, audited)

    def _key_secret(self, row: Any) -> bytes | None:
        return secret_for(row["rules"], self._secret)

    def _found(self, row: Any, findings: Sequence[AuditFinding]) -> None:
        names = row["namespace"], row["saga"], row["idempotency_key"]
        self.report.found += [NamedFinding(finding, *names) for finding in findings]

    def _count(self, plan: Plan, audited: Audited) -> None:
        self.report.by_person += audited.by_person
        for key, service in audited.keys.items():
            if service in self._keys:
                self._keys[service].add(bytes.fromhex(key))
            else:
                self.report.unread[service] += 1

    async def _plan(self, journal: Any, digest: bytes) -> Plan | None:
        if digest not in self._plans:
            bundle = await journal.fetchval(_DEFINITION, digest)
            try:
                self._plans[digest] = None if bundle is None else load_bundle(bytes(bundle)).plan
            except BundleError:
                self._plans[digest] = None
        return self._plans[digest]

    async def _memory(
        self, runs: Sequence[tuple[UUID, Plan | None, bytes | None]]
    ) -> dict[str, dict[tuple[str, str], Remembered]]:
        """Read what the participants remember of a page of runs, each with its plan and the secret of its keys."""
        asked: dict[str, list[str]] = {service: [] for service in self._wanted.participants}
        for run, plan, secret in runs:
            for key, service in run_keys(plan, str(run), secret).items() if plan is not None else ():
                if service in asked:
                    asked[service].append(key)

        async def read(service: str, keys: list[str]) -> dict[tuple[str, str], Remembered]:
            async with connected(service, self._wanted.participants[service]) as connection:
                rows = await connection.fetch(_BARRIER, keys)
            return {(r["idempotency_key"], r["operation"]): Remembered(r["void"], r["response"]) for r in rows}

        return dict(zip(asked, await asyncio.gather(*(read(*pair) for pair in asked.items())), strict=True))

    async def _effects_without_run(self, journal: Any, oldest: datetime, now: datetime) -> None:
        """Report effects under keys that no run has; those before the oldest run may be of runs past their retention.

        Runs that began meanwhile are looked up afterwards.
        """
        odd: list[tuple[str, str]] = []
        by_database: dict[str, set[str]] = {}
        for service, url in self._wanted.participants.items():
            by_database.setdefault(url, set()).add(service)
        for url, services in by_database.items():
            known = set().union(*(self._keys[service] for service in services))
            name = ", ".join(sorted(services))
            async with connected(name, url) as connection:
                rows = await connection.fetch(_ACTED, oldest, now)
            odd += [(name, row[0]) for row in rows if bytes.fromhex(row[0]) not in known]
        if not odd:
            return
        since_then: set[str] = set()
        for row in await journal.fetch(_STARTED_SINCE, now - timedelta(minutes=1)):
            plan = await self._plan(journal, row["digest"])
            if plan is not None:
                since_then |= run_keys(plan, str(row["id"]), self._key_secret(row)).keys()
        for name, key in odd:
            if key not in since_then:
                message = f"{name} has an effect under this key, and no run has it"
                finding = AuditFinding(Invariant.COMPLETENESS, "", "", message)
                self.report.found.append(NamedFinding(finding, key=key))


def _partition(run: UUID) -> str:
    """Return the part of the journal that has a run, whose id begins with its start's time; empty for an odd id."""
    try:
        return f"journal_{datetime.fromtimestamp((run.int >> 80) / 1000, UTC):%Y%m%d}"
    except (ValueError, OverflowError):  # not made by an orchestrator
        return ""


def _facts(row: Any, state: str, secret: bytes | None) -> RunFacts:
    return RunFacts(
        run_id=str(row["id"]),
        state=state,
        fence=row["fence"],
        owned=row["owner"] is not None,
        lease_ends=row["lease_ends"],
        due_at=row["due_at"],
        ended=row["ended_at"] is not None,
        stalled=row["stalled_since"] is not None,
        skipped_by_person=row["skipped_by_person"],
        secret=secret,
    )


async def audit(wanted: AuditRequest) -> AuditReport:
    """Check everything. Raises UnreadableError."""
    return await _Auditor(wanted).audit()
