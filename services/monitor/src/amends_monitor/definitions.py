"""The choreographies that are watched: applied, deleted, and followed, because another replica may change them.

Called by the API; read by whatever reads and judges flows.
"""

import asyncio
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from amends_chassis.database import Database
from amends_chassis.errors import InvalidArgument
from amends_saga.check import ChoreographyCheck, check_choreography
from amends_saga.choreography import ChoreographyPlan, message_types, needed_files
from amends_saga.definition import Choreography, Document, read
from amends_saga.definition.nodes import to_json
from amends_saga.findings import Finding, has_errors, ordered
from google.protobuf.message import Message

LOOK_EVERY = timedelta(seconds=1)
UNREADABLE = "choreography.unreadable"
APPLIED = "choreography.applied"
_log = structlog.get_logger(__name__)

ALONE = 0x416D656E64734D6F
"""Whoever holds this lock judges flows, or changes a choreography: they would wait for each other's rows in circles."""

_ALL = """
SELECT choreography_id, namespace, name, digest, manifest, descriptors, reading, applied_at
FROM choreography WHERE choreography_id = ANY($1)
"""
_VERSIONS = "SELECT choreography_id, digest, reading, applied_at FROM choreography"
_BE_ALONE = "SELECT pg_advisory_xact_lock($1)"
_MAKE = """
INSERT INTO choreography (namespace, name, digest, manifest, descriptors) VALUES ($1, $2, '', '', ''::bytea)
ON CONFLICT DO NOTHING
"""
_ONE = "SELECT * FROM choreography WHERE namespace = $1 AND name = $2"
_CHANGE = """
UPDATE choreography SET digest = $2, manifest = $3, descriptors = $4, reading = reading + $5, applied_at = now()
WHERE choreography_id = $1
"""
_FORGET_FLOWS = """
WITH events AS (DELETE FROM flow_event WHERE choreography_id = $1) DELETE FROM flow WHERE choreography_id = $1
"""
_JUDGE_AGAIN = """
INSERT INTO flow_changed (choreography_id, key) SELECT DISTINCT choreography_id, key FROM flow_event
WHERE choreography_id = $1
"""
_FORGET_UNNAMED = "DELETE FROM flow_event WHERE choreography_id = $1 AND type <> ALL ($2::text[])"
_FORGET_CHANGES = "DELETE FROM flow_changed WHERE choreography_id = $1"
# First of all that is deleted: whoever reads has its position locked, and then its choreography and events.
_FORGET_READING = """
WITH position AS (DELETE FROM inbox_position WHERE consumer = $1),
     member AS (DELETE FROM inbox_member WHERE consumer = $1)
DELETE FROM inbox_parked WHERE consumer = $1
"""
_DELETE = "DELETE FROM choreography WHERE choreography_id = $1"


@dataclass(frozen=True, slots=True)
class WatchedChoreography:
    """A choreography that is watched."""

    choreography_id: int
    namespace: str
    name: str
    digest: str
    manifest: str
    reading: int
    applied_at: datetime
    plan: ChoreographyPlan
    types: Sequence[type[Message]]
    """The messages of its events."""

    @property
    def consumer(self) -> str:
        """Return the name under which its events are read; another one whenever they are read anew."""
        return consumer_of(self.namespace, self.name, self.choreography_id, self.reading)

    @property
    def topics(self) -> list[str]:
        """Return the topics of its events."""
        return sorted({str(message.DESCRIPTOR.file.package) for message in self.types})


def consumer_of(namespace: str, name: str, choreography_id: int, reading: int) -> str:
    """Return the name of a consumer."""
    return f"{namespace}/{name}#{choreography_id}.{reading}"


@dataclass(frozen=True, slots=True)
class AppliedChoreography:
    """What became of a choreography that was sent."""

    findings: list[Finding]
    namespace: str
    name: str

    @property
    def accepted(self) -> bool:
        """Return whether it is watched."""
        return not has_errors(self.findings)


class Definitions:
    """The choreographies of the database, as this process knows them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.known: dict[int, WatchedChoreography] = {}
        self.changed = asyncio.Event()
        """Set when others are known than before."""
        self._reloading = asyncio.Lock()

    async def follow(self) -> None:
        """Look for choreographies that others have applied or deleted, for ever."""
        while True:
            await self.reload()
            await asyncio.sleep(LOOK_EVERY.total_seconds())

    async def reload(self) -> None:
        """Know what the database has."""
        async with self._reloading:  # or an older look could end after a newer one
            await self._reload()

    async def _reload(self) -> None:
        rows = await self._database.pool.fetch(_VERSIONS)
        there = {row["choreography_id"]: (row["digest"], row["reading"], row["applied_at"]) for row in rows}
        stale = [number for number, version in there.items() if _version(self.known.get(number)) != version]
        gone = self.known.keys() - there.keys()
        for row in await self._database.pool.fetch(_ALL, stale) if stale else ():
            watched = await asyncio.to_thread(_load, row)
            if watched is not None:
                self.known[watched.choreography_id] = watched
        for number in gone:
            del self.known[number]
        if stale or gone:
            self.changed.set()

    def named(self, namespace: str, name: str) -> list[WatchedChoreography]:
        """Return those of a namespace and a name, by both; an empty text means all."""
        found = [one for one in self.known.values() if namespace in ("", one.namespace) and name in ("", one.name)]
        return sorted(found, key=lambda one: (one.namespace, one.name))

    async def apply(self, document: Document, namespace: str, descriptors: bytes) -> AppliedChoreography:
        """Check a choreography and watch it when there is no error. Raises InvalidArgument for anything else."""
        choreography, checked, findings = await asyncio.to_thread(_checked, document, namespace, descriptors)
        metadata = choreography.metadata
        applied = AppliedChoreography(findings, metadata.namespace, metadata.name)
        if applied.accepted and checked.plan is not None:
            await self._keep(document.text, choreography, checked)
            await self.reload()
            _log.info(APPLIED, choreography=metadata.full_name)
        return applied

    async def _keep(self, text: str, choreography: Choreography, checked: ChoreographyCheck) -> None:
        plan, metadata = checked.plan, choreography.metadata
        assert plan is not None
        files = needed_files(checked.files, plan.events).SerializeToString(deterministic=True)
        digest = _digest(choreography, files)
        async with self._database.transaction() as transaction:
            await transaction.execute(_BE_ALONE, ALONE)
            await transaction.execute(_MAKE, metadata.namespace, metadata.name)
            row = await transaction.fetchrow(_ONE, metadata.namespace, metadata.name)
            assert row is not None
            number, before = row["choreography_id"], _load(row) if row["manifest"] else None
            if row["manifest"] == text and row["digest"] == digest:
                return
            anew = before is not None and _reads_anew(before.plan, plan)
            if before is not None and anew:
                await transaction.execute(_FORGET_READING, before.consumer)
            await transaction.execute(_CHANGE, number, digest, text, files, int(anew))
            if before is not None and before.plan.key != plan.key:
                await transaction.execute(_FORGET_FLOWS, number)
            await transaction.execute(_JUDGE_AGAIN, number)
            await transaction.execute(_FORGET_UNNAMED, number, list(plan.events))

    async def delete(self, namespace: str, name: str) -> bool:
        """Watch a choreography no more, and forget its flows; return whether there was one."""
        async with self._database.transaction() as transaction:
            await transaction.execute(_BE_ALONE, ALONE)
            row = await transaction.fetchrow(_ONE, namespace, name)
            if row is not None:
                consumer = consumer_of(namespace, name, row["choreography_id"], row["reading"])
                await transaction.execute(_FORGET_READING, consumer)
                await transaction.execute(_DELETE, row["choreography_id"])
                await transaction.execute(_FORGET_CHANGES, row["choreography_id"])
        await self.reload()
        return row is not None


def _version(watched: WatchedChoreography | None) -> tuple[str, int, datetime] | None:
    return None if watched is None else (watched.digest, watched.reading, watched.applied_at)


def _reads_anew(before: ChoreographyPlan, after: ChoreographyPlan) -> bool:
    """Return whether the events that were read so far are not those that are needed now."""
    return (
        before.events.keys() != after.events.keys()
        or (before.key, before.start) != (after.key, after.start)
        or dict(before.where) != dict(after.where)
    )


def _checked(
    document: Document, namespace: str, descriptors: bytes
) -> tuple[Choreography, ChoreographyCheck, list[Finding]]:
    """Return the one choreography of a document, and what the checker says. Raises InvalidArgument."""
    resources = read([document], namespace=namespace)
    others = [*resources.sagas, *resources.participants, *resources.policies, *resources.runs, *resources.passed_by]
    if others or len(resources.choreographies) > 1:
        raise InvalidArgument("NO_CHOREOGRAPHY", "Send one document of kind Choreography.")
    if not resources.choreographies:
        raise UnreadableManifestError(ordered(resources.findings))
    choreography = resources.choreographies[0]
    checked = check_choreography(choreography, descriptors or None)
    return choreography, checked, ordered([*resources.findings, *checked.findings])


class UnreadableManifestError(Exception):
    """Too little of a document could be read to know its name."""

    def __init__(self, findings: list[Finding]) -> None:
        super().__init__("the document cannot be read")
        self.findings = findings


def _load(row: Any) -> WatchedChoreography | None:
    """Return a choreography of the database; None when this version cannot read it: a newer one has written it."""
    document = Document(f"{row['namespace']}/{row['name']}", row["manifest"])
    found = read([document], namespace=row["namespace"]).choreographies
    checked = check_choreography(found[0], row["descriptors"]) if found else None
    if checked is None or checked.plan is None:
        _log.error(UNREADABLE, namespace=row["namespace"], name=row["name"])
        return None
    return WatchedChoreography(
        choreography_id=row["choreography_id"],
        namespace=row["namespace"],
        name=row["name"],
        digest=row["digest"],
        manifest=row["manifest"],
        reading=row["reading"],
        applied_at=row["applied_at"],
        plan=checked.plan,
        types=tuple(message_types(checked.files, sorted(checked.plan.events)).values()),
    )


def _digest(choreography: Choreography, files: bytes) -> str:
    """Return a name for what a choreography says, whatever its text looks like."""
    spec = choreography.metadata.node.get("spec")
    assert spec is not None
    said = {name: value for name, value in to_json(spec).items() if name not in ("suspend", "descriptors")}
    told = json.dumps(said, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(told + b"\0" + files).hexdigest()
