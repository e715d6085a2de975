import asyncio
from datetime import timedelta

import asyncpg
import grpc
import pytest
from amends_chassis import database as module
from amends_chassis.database import Database
from amends_chassis.errors import Unavailable
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
    monkeypatch.setattr(module, "ACQUIRE_TIMEOUT", timedelta(milliseconds=50))
    async with database.transaction(), database.transaction():
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
    async with made.transaction(), made.transaction():
        pass
    await made.close()
    admin = await asyncpg.connect(postgres.admin_url)
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'leaves-nothing'"

    async def none_left() -> bool:
        return await admin.fetchval(query) == 0

    assert await eventually(none_left)
    await admin.close()
