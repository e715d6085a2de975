"""The resources in Postgres. Every change bumps one version and tells the other replicas to read again.

Called by `apply`, the registry and the refresher.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from amends_orchestrator.journal.requests import RESOURCES

Queries = Any  # an asyncpg pool or connection

_CHANGED = f"WITH bumped AS (UPDATE resources_version SET version = version + 1) SELECT pg_notify('{RESOURCES}', '')"  # noqa: S608
_SAGA = """
INSERT INTO saga (namespace, name, digest, manifest, source) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (namespace, name) DO UPDATE SET digest = excluded.digest, manifest = excluded.manifest,
    source = excluded.source, ready = true, message = '', applied_at = clock_timestamp()
"""
_PARTICIPANT = """
INSERT INTO participant (namespace, name, manifest, source, given, descriptors, ready, message)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (namespace, name) DO UPDATE SET manifest = excluded.manifest, source = excluded.source,
    given = excluded.given, descriptors = excluded.descriptors, ready = excluded.ready, message = excluded.message,
    applied_at = clock_timestamp()
"""
_POLICY = """
INSERT INTO retry_policy (namespace, name, manifest, source) VALUES ($1, $2, $3, $4)
ON CONFLICT (namespace, name) DO UPDATE SET manifest = excluded.manifest, source = excluded.source,
    applied_at = clock_timestamp()
"""
_DELETE = {
    "saga": "DELETE FROM saga WHERE namespace = $1 AND name = $2",
    "participant": "DELETE FROM participant WHERE namespace = $1 AND name = $2",
    "retry_policy": "DELETE FROM retry_policy WHERE namespace = $1 AND name = $2",
}
# How many runs are on which version, from the three partial indexes of runs that have not ended.
_USES = """
SELECT namespace, saga, digest, count(*) AS running, count(*) FILTER (WHERE state = 3) AS parked
FROM (
    SELECT namespace, saga, digest, state FROM run WHERE owner IS NOT NULL
    UNION ALL SELECT namespace, saga, digest, state FROM run WHERE owner IS NULL AND due_at IS NOT NULL
    UNION ALL SELECT namespace, saga, digest, state FROM run WHERE state = 3 AND owner IS NULL AND due_at IS NULL
) AS open
GROUP BY namespace, saga, digest
"""


@dataclass(frozen=True, slots=True)
class SagaRow:
    """A Saga in force."""

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
    """A Participant in force. `given` came with the resource, `descriptors` are those in use; None: unknown."""

    namespace: str
    name: str
    manifest: str
    source: str
    given: bytes | None
    descriptors: bytes | None
    ready: bool
    message: str


@dataclass(frozen=True, slots=True)
class PolicyRow:
    """A RetryPolicy in force."""

    namespace: str
    name: str
    manifest: str
    source: str


@dataclass(frozen=True, slots=True)
class Use:
    """How many runs that have not ended are pinned to one version of a saga."""

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


async def version(database: Queries) -> int:
    """Grows with every change of a resource."""
    value: int = await database.fetchval("SELECT version FROM resources_version")
    return value


async def read_all(connection: Any) -> Stored:
    """Everything in force. `connection` is an asyncpg connection, because it is read in one snapshot."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        sagas = await connection.fetch(
            "SELECT namespace, name, digest, manifest, source, ready, message, applied_at FROM saga ORDER BY 1, 2"
        )
        participants = await connection.fetch(
            "SELECT namespace, name, manifest, source, given, descriptors, ready, message "
            "FROM participant ORDER BY 1, 2"
        )
        policies = await connection.fetch("SELECT namespace, name, manifest, source FROM retry_policy ORDER BY 1, 2")
        return Stored(
            await version(connection),
            [SagaRow(*row) for row in sagas],
            [ParticipantRow(*row) for row in participants],
            [PolicyRow(*row) for row in policies],
        )


async def put_definition(database: Queries, digest: bytes, bundle: bytes) -> None:
    """Keeps a version of a saga; the same digest is the same bytes."""
    await database.execute(
        "INSERT INTO definition (digest, bundle) VALUES ($1, $2) ON CONFLICT DO NOTHING", digest, bundle
    )


async def read_definition(database: Queries, digest: bytes) -> bytes | None:
    """The bundle with that digest, None when there is none."""
    value: bytes | None = await database.fetchval("SELECT bundle FROM definition WHERE digest = $1", digest)
    return value


async def put_saga(connection: Any, row: SagaRow, bundle: bytes) -> None:
    """Puts a saga in force for new runs."""
    async with connection.transaction():
        await put_definition(connection, row.digest, bundle)
        await connection.execute(_SAGA, row.namespace, row.name, row.digest, row.manifest, row.source)
        await connection.execute(_CHANGED)


async def mark_saga(connection: Any, namespace: str, name: str, *, ready: bool, message: str) -> None:
    """Notes whether the version in force still fits its participants' contracts."""
    await connection.execute(
        "UPDATE saga SET ready = $3, message = $4 WHERE namespace = $1 AND name = $2", namespace, name, ready, message
    )
    await connection.execute(_CHANGED)


async def put_participant(connection: Any, row: ParticipantRow) -> None:
    """Puts a Participant in force."""
    values = (row.namespace, row.name, row.manifest, row.source, row.given, row.descriptors, row.ready, row.message)
    async with connection.transaction():
        await connection.execute(_PARTICIPANT, *values)
        await connection.execute(_CHANGED)


async def put_policy(connection: Any, row: PolicyRow) -> None:
    """Puts a RetryPolicy in force."""
    async with connection.transaction():
        await connection.execute(_POLICY, row.namespace, row.name, row.manifest, row.source)
        await connection.execute(_CHANGED)


async def delete(connection: Any, table: str, namespace: str, name: str) -> bool:
    """Takes a resource out of force; False when there was none. `table`: saga, participant or retry_policy."""
    async with connection.transaction():
        tag: str = await connection.execute(_DELETE[table], namespace, name)
        await connection.execute(_CHANGED)
    return tag != "DELETE 0"


async def uses(database: Queries) -> dict[tuple[str, str], list[Use]]:
    """How many open runs are on which version, by namespace and name of the saga."""
    found: dict[tuple[str, str], list[Use]] = {}
    for row in await database.fetch(_USES):
        found.setdefault((row[0], row[1]), []).append(Use(row[2], row[3], row[4]))
    return found
