"""Brings a service's database to the schema its code expects: plain SQL files, applied once each, in order.

Files are `NNNN_name.sql` in a package of the service, so that its wheel carries them. Called by `service.run` after
the database has been reached. Changes are made in two releases (expand, then contract), so an older replica may meet
a newer schema: unknown later versions are left alone.
"""

import hashlib
import re
from dataclasses import dataclass
from datetime import timedelta
from importlib.resources import files

import asyncpg
import structlog

from amends_chassis.database import Database

_log = structlog.get_logger(__name__)

_NAME = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
_LOCK = 0x616D656E6473  # "amends": replicas that start together migrate one after the other
_IDLE = timedelta(seconds=30)
_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version    integer PRIMARY KEY,
    name       text NOT NULL,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)"""


class MigrationError(Exception):
    """The files and the database contradict each other; a person has to look."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One migration: a numbered SQL file."""

    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, in hexadecimal."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


# A partition is reached through its table. Utility statements take no parameters, so the server writes them.
_MISSING = """
WITH relation AS (
  SELECT oid, relkind, oid::regclass::text AS name FROM pg_class
  WHERE relnamespace = current_schema()::regnamespace AND NOT relispartition
)
SELECT format('GRANT %s ON %s TO %I', rights, object, $1::text) FROM (
  SELECT 'USAGE' AS rights, format('SCHEMA %I', current_schema()) AS object
    WHERE NOT has_schema_privilege($1, current_schema(), 'USAGE')
  UNION ALL
  SELECT 'SELECT, INSERT, UPDATE, DELETE', 'TABLE ' || name FROM relation
    WHERE relkind IN ('r', 'p', 'v') AND NOT (has_table_privilege($1, oid, 'SELECT')
      AND has_table_privilege($1, oid, 'INSERT') AND has_table_privilege($1, oid, 'UPDATE')
      AND has_table_privilege($1, oid, 'DELETE'))
  UNION ALL
  SELECT 'USAGE, SELECT', 'SEQUENCE ' || name FROM relation
    WHERE relkind = 'S' AND NOT (has_sequence_privilege($1, oid, 'USAGE') AND has_sequence_privilege($1, oid, 'SELECT'))
  UNION ALL
  SELECT 'EXECUTE', 'FUNCTION ' || oid::regprocedure::text FROM pg_proc
    WHERE pronamespace = current_schema()::regnamespace AND NOT has_function_privilege($1, oid, 'EXECUTE')
) AS missing (rights, object)
"""


def load(package: str) -> list[Migration]:
    """Read the migrations of a package in order. Raises MigrationError for a bad name or a number used twice."""
    found: dict[int, Migration] = {}
    for entry in sorted(files(package).iterdir(), key=lambda entry: entry.name):
        if not entry.name.endswith(".sql"):
            continue
        match = _NAME.fullmatch(entry.name)
        if match is None:
            raise MigrationError(f"{package}: {entry.name} is not named NNNN_name.sql")
        version = int(match[1])
        if version in found:
            raise MigrationError(f"{package}: two migrations have the number {version:04d}")
        found[version] = Migration(version, match[2], entry.read_text(encoding="utf-8"))
    return list(found.values())


async def migrate(database: Database, package: str, *, serving: str | None = None) -> list[int]:
    """Apply what is missing, each file in a transaction of its own, and return the versions applied.

    The role `serving`, when it is another than that of `database`, may then read and write all rows, and no more.
    Raises MigrationError when an applied file has changed, a new one has a number below one already applied, or the
    role may not create what is in it.
    """
    wanted = load(package)
    connection = await database.open_connection()
    try:
        await connection.execute(f"SET idle_in_transaction_session_timeout = '{int(_IDLE.total_seconds())}s'")
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
        if await connection.fetchval("SELECT to_regclass('schema_migrations')") is None:
            await connection.execute(_TABLE)  # not said again: even IF NOT EXISTS takes the right to create
        rows = await connection.fetch("SELECT version, checksum FROM schema_migrations")
        pending = _pending(package, wanted, {row["version"]: row["checksum"] for row in rows})
        for migration in pending:
            await _apply(connection, migration)
        if serving is not None:
            await _let_serve(connection, serving)
        return [migration.version for migration in pending]
    except asyncpg.InsufficientPrivilegeError as error:
        ((role, name, schema),) = await connection.fetch("SELECT current_user, current_database(), current_schema()")
        raise MigrationError(
            f"the role {role} may not change the schema of the database {name} ({error}). Its owner mends it with: "
            f"GRANT CREATE ON SCHEMA {schema or 'public'} TO {role}"
        ) from error
    finally:
        await connection.close(timeout=5)  # gives the lock back


async def _let_serve(connection: "asyncpg.Connection[asyncpg.Record]", role: str) -> None:
    """Give a role what serving takes and it does not have yet; what is granted is not touched, others may use it."""
    for (grant,) in await connection.fetch(_MISSING, role):
        await connection.execute(grant)


def _pending(package: str, wanted: list[Migration], applied: dict[int, str]) -> list[Migration]:
    for migration in wanted:
        checksum = applied.get(migration.version)
        if checksum is not None and checksum != migration.checksum:
            raise MigrationError(
                f"{package}: {migration.version:04d}_{migration.name}.sql changed after it was applied; "
                "restore it and put the change into a new file"
            )
    pending = [migration for migration in wanted if migration.version not in applied]
    newest = max(applied, default=0)
    for migration in pending:
        if migration.version < newest:
            raise MigrationError(
                f"{package}: {migration.version:04d}_{migration.name}.sql is new but {newest:04d} is already applied; "
                "give it a higher number"
            )
    return pending


async def _apply(connection: "asyncpg.Connection[asyncpg.Record]", migration: Migration) -> None:
    async with connection.transaction():
        await connection.execute(migration.sql)
        await connection.execute(
            "INSERT INTO schema_migrations (version, name, checksum) VALUES ($1, $2, $3)",
            migration.version,
            migration.name,
            migration.checksum,
        )
    _log.info("migration.applied", version=migration.version, name=migration.name)
