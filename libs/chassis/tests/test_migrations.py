import asyncio
import sys
from urllib.parse import urlsplit

import asyncpg
import pytest
from amends_chassis.database import Database
from amends_chassis.migrations import MigrationError, load, migrate
from amends_chassis.service import Runtime, running
from amends_chassis.settings import ServiceSettings

from .echo import settings


@pytest.fixture
async def database(database_url):
    made = Database(database_url)
    await made.connect()
    yield made
    await made.close()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The name of an importable, empty package of migrations, and its folder."""
    folder = tmp_path / "migrations_of_a_test"
    folder.mkdir()
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder.name, folder
    sys.modules.pop(folder.name, None)


async def test_each_file_is_applied_once_and_in_order(database, package):
    name, folder = package
    (folder / "0002_add.sql").write_text("ALTER TABLE t ADD COLUMN m integer; INSERT INTO t VALUES (1, 2);")
    (folder / "0001_make.sql").write_text("CREATE TABLE t (n integer);")
    assert await migrate(database, name) == [1, 2]
    assert await migrate(database, name) == []
    assert [tuple(row) for row in await database.pool.fetch("SELECT n, m FROM t")] == [(1, 2)]


async def test_replicas_that_start_together_migrate_one_after_the_other(database, package):
    name, folder = package
    (folder / "0001_make.sql").write_text("SELECT pg_sleep(0.05); CREATE TABLE t (n integer);")
    applied = await asyncio.gather(*(migrate(database, name) for _ in range(4)))
    assert sorted(applied) == [[], [], [], [1]]


async def test_a_file_that_fails_leaves_nothing_and_can_be_mended(database, package):
    name, folder = package
    file = folder / "0001_make.sql"
    file.write_text("CREATE TABLE t (n integer); SELECT 1 / 0;")
    with pytest.raises(Exception, match="division by zero"):
        await migrate(database, name)
    file.write_text("CREATE TABLE t (n integer);")
    assert await migrate(database, name) == [1]


async def test_an_applied_file_must_not_change(database, package):
    name, folder = package
    (folder / "0001_make.sql").write_text("CREATE TABLE t (n integer);")
    await migrate(database, name)
    (folder / "0001_make.sql").write_text("CREATE TABLE t (n bigint);")
    with pytest.raises(MigrationError, match=r"0001_make\.sql changed"):
        await migrate(database, name)


async def test_a_new_file_comes_after_those_applied(database, package):
    name, folder = package
    (folder / "0002_make.sql").write_text("CREATE TABLE t (n integer);")
    await migrate(database, name)
    (folder / "0001_before.sql").write_text("SELECT 1;")
    with pytest.raises(MigrationError, match="higher number"):
        await migrate(database, name)


async def test_an_older_replica_leaves_a_newer_schema_alone(database, package):
    name, folder = package
    (folder / "0001_make.sql").write_text("CREATE TABLE t (n integer);")
    (folder / "0002_newer.sql").write_text("ALTER TABLE t ADD COLUMN m integer;")
    await migrate(database, name)
    (folder / "0002_newer.sql").unlink()
    assert await migrate(database, name) == []


@pytest.mark.parametrize("names", [["1_short.sql"], ["0001_Upper.sql"], ["0001_a.sql", "0001_b.sql"]])
def test_names_out_of_form_are_refused(package, names):
    name, folder = package
    for file in names:
        (folder / file).touch()
    with pytest.raises(MigrationError):
        load(name)


async def test_a_service_is_migrated_before_it_is_assembled(database, database_url, package):
    name, folder = package
    (folder / "0001_make.sql").write_text("CREATE TABLE t (n integer);")

    class Settings(type(settings())):
        migrations = name

    found = []

    async def assemble(runtime: Runtime) -> None:
        found.append(await runtime.database.pool.fetchval("SELECT count(*) FROM t"))

    async with running(Settings(name="echo", database_url=database_url), assemble):
        assert found == [0]


async def test_a_role_that_may_not_create_is_told_what_its_owner_has_to_do(postgres, database_url, package):
    name, folder = package
    (folder / "0001_make.sql").write_text("CREATE TABLE t (n integer);")
    parts = urlsplit(database_url)
    admin = await asyncpg.connect(postgres.admin_url)
    await admin.execute("CREATE ROLE guest LOGIN PASSWORD 'guest'")
    await admin.execute(f"GRANT CONNECT ON DATABASE {parts.path[1:]} TO guest")
    await admin.close()
    guest = Database(parts._replace(netloc=f"guest:guest@{parts.hostname}:{parts.port}").geturl())
    with pytest.raises(MigrationError, match="GRANT CREATE ON SCHEMA public TO guest"):
        await migrate(guest, name)


async def test_a_service_serves_under_a_role_that_owns_nothing(postgres, database_url, package):
    name, folder = package
    (folder / "0001_make.sql").write_text("CREATE TABLE t (id bigserial, n integer);")
    parts = urlsplit(database_url)
    admin = await asyncpg.connect(postgres.admin_url)
    await admin.execute("CREATE ROLE waiter LOGIN PASSWORD 'waiter'")
    await admin.execute(f"GRANT CONNECT ON DATABASE {parts.path[1:]} TO waiter")
    await admin.close()
    serving = parts._replace(netloc=f"waiter:waiter@{parts.hostname}:{parts.port}").geturl()

    class Migrated(ServiceSettings):
        migrations = name

    async def assemble(runtime: Runtime) -> None:
        """Nothing to serve."""

    given = {"name": "echo", "database_url": serving, "migrations_database_url": database_url}
    async with running(Migrated(**given), assemble) as runtime:
        async with runtime.database.transaction() as connection:
            await connection.execute("INSERT INTO t (n) VALUES (1)")
            await connection.execute("UPDATE t SET n = 2")
            await connection.execute("DELETE FROM t")
        for forbidden in ("DROP TABLE t", "ALTER TABLE t ADD COLUMN m integer", "CREATE TABLE u (n integer)"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await runtime.database.pool.execute(forbidden)
    async with running(Migrated(name="echo", database_url=serving), assemble) as runtime:  # migrated by somebody else
        assert runtime.health.ready
