import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta
from urllib.parse import urlsplit

import asyncpg
import grpc
import pytest
from amends_barrier import BROKEN
from amends_chassis import database as module
from amends_chassis.database import Database
from amends_chassis.errors import Unavailable, refusal
from amends_chassis.pool import SecondConnectionError
from amends_chassis.service import Runtime, running
from amends_embedded import Postgres
from amends_testkit.waiting import eventually

from .echo import SERVICE, Echo, Stub, register, settings


@pytest.fixture
async def database(database_url):
    made = Database(database_url, application="suite", size=2)
    await made.connect()
    yield made
    await made.close()


@asynccontextmanager
async def two_sessions(database):
    """Two connections of the pool at once, each held by a task of its own."""
    held, over = asyncio.Queue(), asyncio.Event()

    async def hold() -> None:
        async with database.transaction() as connection:
            held.put_nowait(connection)
            await over.wait()

    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(hold())
        try:
            yield await held.get(), await held.get()
        finally:
            over.set()


async def test_a_task_that_holds_a_connection_gets_no_second_one(database):
    async with database.transaction() as connection:
        with pytest.raises(SecondConnectionError):
            await database.pool.fetchval("SELECT 1")
        with pytest.raises(SecondConnectionError):
            async with database.transaction():
                pass
        child = asyncio.create_task(database.pool.fetchval("SELECT 2"))
        assert (await connection.fetchval("SELECT 1"), await child) == (1, 2)
    assert await database.pool.fetchval("SELECT 3") == 3


async def test_a_transaction_is_kept_or_undone_as_a_whole(database):
    await database.pool.execute("CREATE TABLE t (n integer)")
    async with database.transaction() as connection:
        await connection.execute("INSERT INTO t VALUES (1)")

    async def fail() -> None:
        async with database.transaction() as connection:
            await connection.execute("INSERT INTO t VALUES (2)")
            raise ValueError("undo")

    with pytest.raises(ValueError, match="undo"):
        await fail()
    assert [row["n"] for row in await database.pool.fetch("SELECT n FROM t")] == [1]


async def test_connections_are_named_and_forgotten_transactions_are_ended(database):
    assert await database.pool.fetchval("SHOW application_name") == "suite"
    assert await database.pool.fetchval("SHOW idle_in_transaction_session_timeout") == "30s"


async def test_before_it_is_reached_it_is_unavailable():
    with pytest.raises(Unavailable, match="not been reached"):
        _ = Database("postgresql://me@127.0.0.1:1/none").pool


async def test_a_url_that_can_never_work_is_refused_at_once():
    with pytest.raises(ValueError, match="URL"):
        await asyncio.wait_for(Database("http://nonsense").connect(), 5)


async def test_a_pool_that_is_used_up_is_a_refusal_in_bounded_time(database, monkeypatch):
    async with two_sessions(database):
        monkeypatch.setattr(module, "ACQUIRE_TIMEOUT", timedelta(milliseconds=50))
        with pytest.raises(Unavailable, match="DATABASE_BUSY"):
            async with database.transaction():
                pass


async def test_a_database_that_comes_and_goes_is_awaited_reported_and_survived(tmp_path):
    async def ask(text, context):
        async with runtime.database.transaction() as connection:
            return str(await connection.fetchval("SELECT 40 + 2"))

    async def assemble(service: Runtime) -> None:
        nonlocal runtime
        runtime = service
        service.add(register, Echo(ask), SERVICE)

    async with await Postgres.start(tmp_path / "data") as postgres:
        url = await postgres.create("echo", "echo")
        await postgres.stop()
        runtime = Runtime(settings(database_url=url))
        await runtime.listen()
        starting = asyncio.create_task(runtime.start(assemble))
        try:
            await asyncio.sleep(0.1)
            assert not starting.done()
            assert not runtime.health.ready
            await postgres.restart()
            await starting
            assert runtime.health.ready
            async with grpc.aio.insecure_channel(runtime.address) as channel:
                assert (await Stub(channel).unary()).value == "42"
                await postgres.stop()
                await eventually(lambda: not runtime.health.ready)
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await Stub(channel).unary()
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
                await postgres.restart()
                await eventually(lambda: runtime.health.ready)
                assert (await Stub(channel).unary()).value == "42"
        finally:
            await runtime.stop()


async def test_a_busy_pool_does_not_look_like_a_database_that_is_gone(database_url):
    async def assemble(service: Runtime) -> None:
        """Nothing to serve."""

    async with running(settings(database_url=database_url, database_pool=1), assemble) as runtime:
        reports: list[bool] = []

        async def note(holds: bool) -> None:
            reports.append(holds)

        async with runtime.database.transaction():
            watching = asyncio.create_task(runtime.database.watch(note))
            await eventually(lambda: reports)
        watching.cancel()
        assert reports == [True]
        assert runtime.health.ready


async def test_no_connection_is_left_behind(postgres, database_url):
    made = Database(database_url, application="leaves-nothing", size=2)
    await made.connect()
    async with two_sessions(made):
        pass
    await made.close()
    admin = await asyncpg.connect(postgres.admin_url)
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'leaves-nothing'"

    async def none_left() -> bool:
        return await admin.fetchval(query) == 0

    assert await eventually(none_left)
    await admin.close()


def _role_and_database(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return str(parts.username), parts.path.removeprefix("/")


@pytest.fixture
async def admin(postgres, database_url):
    """A superuser's session in the suite's database."""
    connection = await asyncpg.connect(postgres.admin_url)
    yield connection
    await connection.close()


async def _read_only(admin, database_url, holds: bool) -> None:
    role, _ = _role_and_database(database_url)
    what = "SET default_transaction_read_only = on" if holds else "RESET default_transaction_read_only"
    await admin.execute(f"ALTER ROLE {role} {what}")


async def _cut(admin, application: str) -> None:
    await admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1", application
    )


async def test_sessions_of_a_former_primary_are_replaced_after_the_first_of_them_was_used(
    database, admin, database_url
):
    await database.pool.execute("CREATE TABLE t (n integer)")
    await _read_only(admin, database_url, True)
    await database.pool.expire_connections()
    async with two_sessions(database) as (one, other):  # both are read-only for good
        assert await one.fetchval("SHOW transaction_read_only") == await other.fetchval("SHOW transaction_read_only")
        await _read_only(admin, database_url, False)
    for number in range(4):
        async with database.transaction() as connection:
            await connection.execute("INSERT INTO t VALUES ($1)", number)
    assert await database.pool.fetchval("SELECT count(*) FROM t") == 4


async def test_a_write_that_met_a_read_only_session_is_unavailable_once_and_works_then(database, admin, database_url):
    await database.pool.execute("CREATE TABLE t (n integer)")

    async def write() -> None:
        async with database.transaction() as connection:
            await connection.execute("INSERT INTO t VALUES (1)")

    await _read_only(admin, database_url, True)
    await database.pool.expire_connections()
    async with two_sessions(database):
        pass  # two sessions of the time when nothing could be written
    with pytest.raises(asyncpg.ReadOnlySQLTransactionError) as caught:
        await write()
    assert refusal(caught.value).code is grpc.StatusCode.UNAVAILABLE
    await _read_only(admin, database_url, False)
    await asyncio.gather(*(write() for _ in range(4)))


async def test_readiness_says_that_writes_fail_and_that_they_work_again(admin, database_url):
    async def assemble(service: Runtime) -> None:
        """Nothing to serve."""

    async with running(settings(database_url=database_url), assemble) as runtime:
        await _read_only(admin, database_url, True)
        await _cut(admin, "echo")
        assert await eventually(lambda: not runtime.health.ready)
        await _read_only(admin, database_url, False)
        assert await eventually(lambda: runtime.health.ready)
        async with runtime.database.transaction() as connection:
            await connection.execute("CREATE TABLE written (n integer)")


async def test_a_password_that_was_changed_in_its_file_is_used_by_the_next_session(
    admin, database_url, tmp_path, monkeypatch
):
    role, name = _role_and_database(database_url)
    parts = urlsplit(database_url)
    file = tmp_path / "url"

    def write(password: str) -> None:
        file.write_text(f"postgresql://{role}:{password}@{parts.hostname}:{parts.port}/{name}\n", encoding="utf-8")

    async def assemble(service: Runtime) -> None:
        """Nothing to serve."""

    write(str(parts.password))
    monkeypatch.setenv("AMENDS_DATABASE_URL_FILE", str(file))
    monkeypatch.setattr(module, "PROBE_RENEWED", timedelta(milliseconds=10))
    monkeypatch.setattr(module, "PROBE_EVERY", timedelta(milliseconds=10))
    async with running(settings(), assemble) as runtime:
        await admin.execute(f"ALTER ROLE {role} PASSWORD 'second'")
        assert await eventually(lambda: not runtime.health.ready)  # while the file says the former one
        write("second")
        assert await eventually(lambda: runtime.health.ready)
        await _cut(admin, "echo")

        async def works() -> bool:
            try:
                async with runtime.database.transaction() as connection:
                    return await connection.fetchval("SELECT 1") == 1
            except BROKEN as error:  # a session that was just cut
                if refusal(error).code is not grpc.StatusCode.UNAVAILABLE:
                    raise
                return False

        assert await eventually(works)


@pytest.mark.parametrize("password", ["p@ss/w#rd", "p/ss", "p@ss", "p?ss", "p#ss", "p[ss"])
async def test_a_password_that_is_not_encoded_is_refused_at_once(password):
    with pytest.raises(ValueError, match="must be written") as caught:
        await asyncio.wait_for(Database(f"postgresql://me:{password}@127.0.0.1:1/db").connect(), 5)
    assert password not in str(caught.value)


async def test_an_option_that_postgres_does_not_know_is_refused_at_once(database_url):
    with pytest.raises(ValueError, match="pool_max_conns"):
        await asyncio.wait_for(Database(f"{database_url}?pool_max_conns=3").connect(), 5)


async def test_a_session_that_ends_as_it_goes_back_changes_nothing_of_what_was_committed(database, admin):
    await database.pool.execute("CREATE TABLE t (n integer)")
    for number in range(5):  # ended before asyncpg hears of it, or after: nobody is told a failure
        async with database.pool.acquire() as connection:
            await connection.execute("INSERT INTO t VALUES ($1)", number)
            await admin.execute("SELECT pg_terminate_backend($1)", connection.get_server_pid())
    assert await database.pool.fetchval("SELECT count(*) FROM t") == 5


async def test_a_session_that_ends_in_the_turn_in_which_it_goes_back_is_a_session_that_went_back(database):
    connection = await database.pool.acquire()
    asyncio.get_running_loop().call_soon(lambda: connection.terminate())
    await database.pool.release(connection)
    assert await database.pool.fetchval("SELECT 1") == 1
