"""The resources in Postgres. Every change increments one version and tells the other replicas to read again.

Called by `apply`, the registry and the refresher.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from amends_chassis.database import Executes, Transacts

from amends_orchestrator.journal.records import State
from amends_orchestrator.journal.requests import RESOURCES
from amends_orchestrator.journal.telling import Announcement, and_tell
from amends_orchestrator.worker.client import MethodFacts

_REFRESH_LOCK = "amends.contracts.refresh"

_CHANGED = f"WITH bumped AS (UPDATE resources_version SET version = version + 1) SELECT pg_notify('{RESOURCES}', '')"  # noqa: S608
_CHANGED_AND_TOLD = and_tell("UPDATE resources_version SET version = version + 1 RETURNING version", 0)
_NOTIFY = f"SELECT pg_notify('{RESOURCES}', '')"
_SAGA = """
INSERT INTO saga (namespace, name, digest, manifest, source) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (namespace, name) DO UPDATE SET digest = excluded.digest, manifest = excluded.manifest,
    source = excluded.source, ready = true, message = '', applied_at = clock_timestamp()
"""
_PARTICIPANT = """
INSERT INTO participant (namespace, name, manifest, source, ready, message, methods, given, descriptors)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (namespace, name) DO UPDATE SET manifest = excluded.manifest, source = excluded.source,
    ready = excluded.ready, message = excluded.message, methods = excluded.methods, given = excluded.given,
    descriptors = excluded.descriptors, applied_at = clock_timestamp()
"""
# Only if the resource is still the one for which the contract was read.
_CONTRACT = """
UPDATE participant SET ready = $4, message = $5, methods = $6, descriptors = $7
WHERE namespace = $1 AND name = $2 AND manifest = $3
"""
_ROUTE = """
INSERT INTO route (namespace, service, participant, named_by) VALUES ($1, $2, $3, $4)
ON CONFLICT (namespace, service) DO UPDATE SET participant = excluded.participant, named_by = excluded.named_by,
    pinned_at = clock_timestamp()
WHERE (route.participant, route.named_by) <> (excluded.participant, excluded.named_by)
"""
_POLICY = """
INSERT INTO retry_policy (namespace, name, manifest, source) VALUES ($1, $2, $3, $4)
ON CONFLICT (namespace, name) DO UPDATE SET manifest = excluded.manifest, source = excluded.source,
    applied_at = clock_timestamp()
"""
_MARK = "UPDATE saga SET ready = $3, message = $4 WHERE namespace = $1 AND name = $2"
_DELETE = {
    "saga": "DELETE FROM saga WHERE namespace = $1 AND name = $2",
    "participant": "DELETE FROM participant WHERE namespace = $1 AND name = $2",
    "retry_policy": "DELETE FROM retry_policy WHERE namespace = $1 AND name = $2",
}
# How many runs are on which version, from the three partial indexes of runs that have not ended.
_USES = f"""
SELECT namespace, saga, digest, count(*) AS running, count(*) FILTER (WHERE state = {State.PARKED:d}) AS parked
FROM (
    SELECT namespace, saga, digest, state FROM run WHERE owner IS NOT NULL
    UNION ALL SELECT namespace, saga, digest, state FROM run WHERE owner IS NULL AND due_at IS NOT NULL
    UNION ALL SELECT namespace, saga, digest, state FROM run
        WHERE state = {State.PARKED:d} AND owner IS NULL AND due_at IS NULL
) AS open
GROUP BY namespace, saga, digest
"""  # noqa: S608 - a number of ours


@dataclass(frozen=True, slots=True)
class SagaRow:
    """A Saga in force, as stored."""

    namespace: str
    name: str
    digest: bytes
    manifest: str
    source: str
    ready: bool
    message: str
    applied_at: datetime


@dataclass(frozen=True, slots=True)
class ParticipantRow:
    """A Participant in force, without its contract, which may be large."""

    namespace: str
    name: str
    manifest: str
    source: str
    ready: bool
    message: str
    methods: tuple[MethodFacts, ...] | None = None
    """None when they are not known, or not stored yet."""
    is_given: bool = False
    """Whether its descriptors came with the resource."""
    is_known: bool = False
    """Whether there are descriptors in use."""

    @property
    def full_name(self) -> str:
        """Return namespace and name, joined by a slash."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class StoredRoute:
    """The Participant (namespace/name) through which the sagas of a namespace reach a service."""

    namespace: str
    service: str
    participant: str
    named_by: str = ""
    """The saga of the namespace that names the Participant; empty if no saga does."""


@dataclass(frozen=True, slots=True)
class PolicyRow:
    """A RetryPolicy in force, as stored."""

    namespace: str
    name: str
    manifest: str
    source: str


@dataclass(frozen=True, slots=True)
class VersionUse:
    """The number of open runs that are pinned to one version of a saga."""

    digest: bytes
    running: int
    parked: int


@dataclass(frozen=True, slots=True)
class Stored:
    """Everything in force, as of one version."""

    version: int
    sagas: list[SagaRow]
    participants: list[ParticipantRow]
    policies: list[PolicyRow]
    routes: list[StoredRoute]


async def version(database: Executes) -> int:
    """Return the version of the resources; it grows with every change."""
    value: int = await database.fetchval("SELECT version FROM resources_version")
    return value


async def lock_refresh(connection: Transacts) -> bool:
    """Take the lock of refreshing until the connection closes; return False when another replica has it."""
    taken: bool = await connection.fetchval("SELECT pg_try_advisory_lock(hashtext($1))", _REFRESH_LOCK)
    return taken


async def read_all(connection: Transacts) -> Stored:
    """Return everything in force. `connection` is an asyncpg connection, because one snapshot is read."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        sagas = await connection.fetch(
            "SELECT namespace, name, digest, manifest, source, ready, message, applied_at FROM saga ORDER BY 1, 2"
        )
        participants = await connection.fetch(
            "SELECT namespace, name, manifest, source, ready, message, methods, given IS NOT NULL, "
            "descriptors IS NOT NULL FROM participant ORDER BY 1, 2"
        )
        policies = await connection.fetch("SELECT namespace, name, manifest, source FROM retry_policy ORDER BY 1, 2")
        routes = await connection.fetch("SELECT namespace, service, participant, named_by FROM route")
        return Stored(
            await version(connection),
            [SagaRow(*row) for row in sagas],
            [_participant_row(row) for row in participants],
            [PolicyRow(*row) for row in policies],
            [StoredRoute(*row) for row in routes],
        )


def _participant_row(row: Any) -> ParticipantRow:
    namespace, name, manifest, source, ready, message, methods, is_given, is_known = row
    return ParticipantRow(namespace, name, manifest, source, ready, message, _read_methods(methods), is_given, is_known)


async def read_contract(database: Executes, namespace: str, name: str) -> bytes | None:
    """Return the descriptors that a Participant uses, None when they are not known."""
    value: bytes | None = await database.fetchval(
        "SELECT descriptors FROM participant WHERE namespace = $1 AND name = $2", namespace, name
    )
    return value


async def put_definition(database: Executes, digest: bytes, bundle: bytes) -> None:
    """Store a version of a saga; the same digest is the same bytes."""
    await database.execute(
        "INSERT INTO definition (digest, bundle) VALUES ($1, $2) ON CONFLICT DO NOTHING", digest, bundle
    )


async def read_definition(database: Executes, digest: bytes) -> bytes | None:
    """Return the bundle with that digest, None when there is none."""
    value: bytes | None = await database.fetchval("SELECT bundle FROM definition WHERE digest = $1", digest)
    return value


async def _changed(connection: Transacts, told: Announcement | None = None) -> None:
    """Let the other replicas know of the change that this transaction makes, and tell whoever wants to be told."""
    if told is None:
        await connection.execute(_CHANGED)
    else:
        await connection.execute(_CHANGED_AND_TOLD, *told.values)
        await connection.execute(_NOTIFY)


async def put_saga(
    connection: Transacts, row: SagaRow, bundle: bytes, routes: Iterable[StoredRoute], told: Announcement | None
) -> None:
    """Put a saga in force for new runs, and pin the routes with which it was checked."""
    async with connection.transaction():
        await put_definition(connection, row.digest, bundle)
        await connection.execute(_SAGA, row.namespace, row.name, row.digest, row.manifest, row.source)
        await _put_routes(connection, routes)
        await _changed(connection, told)


async def put_routes(connection: Transacts, routes: Iterable[StoredRoute]) -> None:
    """Pin routes: later checks of the namespace's sagas use the same Participants."""
    async with connection.transaction():
        await _put_routes(connection, routes)
        await _changed(connection)


async def _put_routes(connection: Transacts, routes: Iterable[StoredRoute]) -> None:
    rows = [(route.namespace, route.service, route.participant, route.named_by) for route in routes]
    await connection.executemany(_ROUTE, sorted(rows))


async def mark_saga(
    connection: Transacts, namespace: str, name: str, *, ready: bool, message: str, told: Announcement | None
) -> None:
    """Record whether the version in force still fits its participants' contracts."""
    async with connection.transaction():
        await connection.execute(_MARK, namespace, name, ready, message)
        await _changed(connection, told)


async def put_participant(
    connection: Transacts, row: ParticipantRow, given: bytes | None, contract: bytes | None, told: Announcement | None
) -> None:
    """Put a Participant in force. `given` are descriptors that came with it, `contract` those in use."""
    values = (row.namespace, row.name, row.manifest, row.source, row.ready, row.message, _write_methods(row.methods))
    async with connection.transaction():
        await connection.execute(_PARTICIPANT, *values, given, contract)
        await _changed(connection, told)


async def put_contract(
    connection: Transacts, row: ParticipantRow, contract: bytes | None, told: Announcement | None = None
) -> None:
    """Replace the contract that a Participant uses, and record whether it is ready."""
    values = (row.namespace, row.name, row.manifest, row.ready, row.message, _write_methods(row.methods), contract)
    async with connection.transaction():
        await connection.execute(_CONTRACT, *values)
        await _changed(connection, told)


def _write_methods(methods: tuple[MethodFacts, ...] | None) -> str | None:
    return None if methods is None else json.dumps([asdict(method) for method in methods])


def _read_methods(text: str | None) -> tuple[MethodFacts, ...] | None:
    return None if text is None else tuple(MethodFacts(**row) for row in json.loads(text))


async def put_policy(connection: Transacts, row: PolicyRow, told: Announcement | None) -> None:
    """Put a RetryPolicy in force."""
    async with connection.transaction():
        await connection.execute(_POLICY, row.namespace, row.name, row.manifest, row.source)
        await _changed(connection, told)


async def delete(connection: Transacts, table: str, namespace: str, name: str, told: Announcement | None) -> bool:
    """Take a resource out of force; return False if there was none. `table`: saga, participant or retry_policy."""
    async with connection.transaction():
        tag: str = await connection.execute(_DELETE[table], namespace, name)
        deleted = tag != "DELETE 0"
        await _changed(connection, told if deleted else None)
    return deleted


async def uses(database: Executes) -> dict[tuple[str, str], list[VersionUse]]:
    """Return how many open runs are pinned to each version, by namespace and name of the saga."""
    found: dict[tuple[str, str], list[VersionUse]] = {}
    for row in await database.fetch(_USES):
        found.setdefault((row[0], row[1]), []).append(VersionUse(row[2], row[3], row[4]))
    return found
