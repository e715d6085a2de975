"""A real server over a real directory: made, entered, killed, restarted, and nothing left."""

import asyncio
import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest
from amends_embedded import Postgres, PostgresAlreadyRunningError, PostgresError
from amends_embedded import account as accounts
from amends_embedded.postgres import processes_in
from amends_embedded.process import until


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Postgres]:
    async with await Postgres.start(tmp_path_factory.mktemp("postgres")) as running:
        yield running


async def ask(url: str, query: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def test_the_server_is_durable_and_speaks_unicode_whatever_the_environment(server: Postgres) -> None:
    assert await ask(server.admin_url, "SHOW fsync") == "on"
    assert await ask(server.admin_url, "SHOW server_encoding") == "UTF8"
    assert await ask(server.admin_url, "SHOW listen_addresses") == "127.0.0.1"
    assert await ask(server.admin_url, "SELECT upper('ä')") == "Ä"


async def test_making_a_database_twice_returns_the_same_url(server: Postgres) -> None:
    first = await server.create("twice", "twice")
    assert await server.create("twice", "twice") == first
    assert await ask(first, "SELECT current_user || '/' || current_database()") == "twice/twice"


async def test_a_given_password_replaces_the_generated_one(server: Postgres) -> None:
    generated = await server.create("chosen", "chosen")
    given = await server.create("chosen", "chosen", "it's-secret")
    assert given != generated
    connection = await asyncpg.connect(
        host="127.0.0.1", port=server.port, user="chosen", database="chosen", password="it's-secret"
    )
    await connection.close()
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(generated)


async def test_one_role_is_refused_at_the_database_of_another(server: Postgres) -> None:
    orders = await server.create("orders", "orders")
    payments = await server.create("payments", "payments")
    assert await ask(payments, "SELECT 1") == 1
    for database in ("payments", "postgres", "template1"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied for database"):
            await asyncpg.connect(orders.rsplit("/", 1)[0] + f"/{database}")


async def test_a_wrong_password_is_refused(server: Postgres) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(host="127.0.0.1", port=server.port, user="postgres", database="postgres", password="no")


async def test_a_role_is_no_superuser_and_makes_no_roles(server: Postgres) -> None:
    url = await server.create("humble", "humble")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await ask(url, "CREATE ROLE other")


async def test_a_database_is_handed_over_to_another_role_with_all_that_is_in_it(server: Postgres) -> None:
    serving = await server.create("served", "served")
    await ask(serving, "CREATE TABLE t AS SELECT 7 AS n")
    owning = await server.create("served_owner", "served")
    assert await server.create("served", "served", owner="served_owner") == serving
    assert await ask(owning, "SELECT n FROM t") == 7
    await ask(owning, "CREATE TABLE u (n integer)")
    for forbidden in ("SELECT n FROM t", "DROP TABLE t", "CREATE TABLE v (n integer)"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await ask(serving, forbidden)
    owners = await ask(
        serving, "SELECT string_agg(DISTINCT tableowner, ',') FROM pg_tables WHERE schemaname = 'public'"
    )
    assert owners == "served_owner"


@pytest.mark.parametrize("name", ["", "Orders", "x; DROP ROLE y", "postgres", "a" * 64])
async def test_a_name_that_is_no_plain_identifier_is_refused(server: Postgres, name: str) -> None:
    with pytest.raises(ValueError, match="no plain name"):
        await server.create(name, "fine")


async def test_dropping_removes_a_database_that_is_in_use(server: Postgres) -> None:
    url = await server.create("gone", "gone")
    connection = await asyncpg.connect(url)
    await server.drop("gone", "gone")
    await server.drop("gone", "gone")
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await connection.fetchval("SELECT 1")
    await connection.close()
    assert await ask(server.admin_url, "SELECT count(*) FROM pg_roles WHERE rolname = 'gone'") == 0


async def test_the_passwords_are_readable_by_the_owner_alone(server: Postgres) -> None:
    path = server.home / "passwords.json"
    assert path.stat().st_mode & 0o077 == 0
    assert len(json.loads(path.read_text())["postgres"]) >= 32


async def test_what_was_committed_survives_kill_and_restart_on_the_same_port(tmp_path: Path) -> None:
    async with await Postgres.start(tmp_path / "data") as server:
        url = await server.create("shop", "shop")
        await ask(url, "CREATE TABLE t AS SELECT 42 AS n")
        port, pid = server.port, server.pid
        server.kill()
        assert not server.running
        with pytest.raises(ConnectionRefusedError):
            await asyncpg.connect(url)
        await server.restart()
        assert server.port == port
        assert server.pid != pid
        assert await ask(url, "SELECT n FROM t") == 42
        await server.restart()
        assert await ask(url, "SELECT n FROM t") == 42


async def test_a_later_start_over_the_same_directory_finds_data_and_passwords(tmp_path: Path) -> None:
    async with await Postgres.start(tmp_path) as first:
        before = await first.create("shop", "shop")
        await ask(before, "CREATE TABLE t AS SELECT 7 AS n")
    async with await Postgres.start(tmp_path) as second:
        after = await second.create("shop", "shop")
        assert await ask(after, "SELECT n FROM t") == 7
        assert after.replace(f":{second.port}/", ":/") == before.replace(f":{first.port}/", ":/")


async def test_a_second_start_over_a_served_directory_says_so_and_leaves_the_first_alone(server: Postgres) -> None:
    with pytest.raises(PostgresAlreadyRunningError, match="runs already"):
        await Postgres.start(server.home)
    assert await ask(server.admin_url, "SELECT 1") == 1


async def test_a_pid_file_whose_number_belongs_to_another_program_does_not_stop_the_start(tmp_path: Path) -> None:
    async with await Postgres.start(tmp_path) as server:
        cluster = server._cluster
    (cluster / "postmaster.pid").write_text(f"{os.getpid()}\n{cluster}\n")
    async with await Postgres.start(tmp_path) as server:
        assert await ask(server.admin_url, "SELECT 1") == 1


async def test_a_taken_port_is_named_in_the_error(tmp_path: Path, server: Postgres) -> None:
    with pytest.raises(PostgresError, match="Address already in use"):
        await Postgres.start(tmp_path, port=server.port)


async def test_stopping_leaves_no_process(tmp_path: Path) -> None:
    server = await Postgres.start(tmp_path)
    assert processes_in(server._cluster)
    await server.stop()
    await server.stop()
    assert processes_in(server._cluster) == []


async def test_a_killed_owner_takes_its_server_with_it(tmp_path: Path) -> None:
    code = (
        "import asyncio, pathlib, sys; from amends_embedded import Postgres\n"
        "async def main():\n"
        "    server = await Postgres.start(pathlib.Path(sys.argv[1]))\n"
        "    print(server._cluster, flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    owner = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    cluster = Path((await asyncio.to_thread(owner.stdout.readline)).strip())
    assert processes_in(cluster)
    owner.kill()
    owner.communicate()
    assert await until(lambda: not processes_in(cluster), timedelta(seconds=20))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs another account")
class TestAsRoot:
    """The ways that root has, each tried to its end."""

    @pytest.fixture(autouse=True)
    def private(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """Give what is moved a folder of its own, which every account can enter."""
        with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
            Path(folder).chmod(0o755)
            monkeypatch.setattr(accounts, "PRIVATE", Path(folder))
            yield

    async def test_without_user_namespaces_nobody_runs_the_server_from_a_copy(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = accounts._works
        forbidden = str(accounts.installed_binaries())
        monkeypatch.setattr(
            accounts,
            "_works",
            lambda command: command[0] != "unshare" and forbidden not in " ".join(command) and real(command),
        )
        shared = tmp_path / "shared"
        shared.mkdir()
        account = accounts.choose(shared)
        assert account.owner == pwd.getpwnam("nobody").pw_uid
        assert not str(account.binaries).startswith(forbidden)
        async with await Postgres.start(shared) as server:
            assert await ask(server.admin_url, "SELECT 1") == 1

    async def test_a_directory_that_nobody_can_enter_is_served_from_another_place_and_says_where(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = accounts._works
        monkeypatch.setattr(accounts, "_works", lambda command: command[0] != "unshare" and real(command))
        data = tmp_path / "closed" / "data"
        data.parent.mkdir(mode=0o700)
        async with await Postgres.start(data) as server:
            await server.create("kept", "kept")
            place = server._account.data
            assert place != data
            assert str(place) in (data / "MOVED").read_text()
        async with await Postgres.start(data) as server:
            assert server._account.data == place
            assert await ask(server.admin_url, "SELECT count(*) FROM pg_database WHERE datname = 'kept'") == 1
        shutil.rmtree(data)  # and what it held is forgotten, though the other place still has it
        async with await Postgres.start(data) as server:
            assert await ask(server.admin_url, "SELECT count(*) FROM pg_database WHERE datname = 'kept'") == 0

    async def test_an_ordinary_user_needs_neither(self, tmp_path: Path) -> None:
        account = accounts.choose(tmp_path, root=False)
        assert "unshare" not in account.prefix
        assert account.owner is None
        assert account.data == tmp_path

    async def test_a_machine_that_offers_no_way_is_told_so(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(accounts, "_works", lambda command: False)
        with pytest.raises(accounts.NoAccountError, match="start as another user"):
            accounts.choose(tmp_path)


async def test_a_role_that_has_its_share_of_connections_leaves_the_others_theirs(tmp_path):
    async with await Postgres.start(tmp_path / "data") as postgres:
        url = await postgres.create("greedy", "greedy", connections=3)
        other = await postgres.create("other", "other", connections=3)
        opened = [await asyncpg.connect(url) for _ in range(3)]
        with pytest.raises(asyncpg.TooManyConnectionsError):
            await asyncpg.connect(url)
        opened.append(await asyncpg.connect(other))
        for connection in opened:
            await connection.close()
