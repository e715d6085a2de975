"""An index is built by the command, as a process of its own, beside the one that serves; kill -9 costs nothing."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
from amends_chassis.database import Database
from amends_chassis.migrations import migrate
from amends_chassis.projections import versions
from amends_chassis.projections.rebuild import Rebuild
from amends_embedded import Nats
from amends_events import Consumer, open_broker
from amends_testkit.log import PrefixedBroker
from amends_testkit.service import migrated
from amends_testkit.waiting import eventually
from shop_search.index import BATCH, LAYOUT, ArticleIndex
from shop_search.parts import INDEXES

from .test_index import lives, take
from .world import TOPICS, Kept, changed, rows, shop, skus

MANY = [changed(f"mug-{number}", 1, f"Mug number {number}", "mugs") for number in range(300)]


def ignore(*_):
    """Nobody watches."""


def builder(database, broker, kept=None) -> Rebuild:
    async def consume(index):
        await Consumer(index.consumer, database.pool, broker, index.batches, batch=BATCH).run()

    return Rebuild(database, broker, kept or Kept(), consume, INDEXES)


async def test_an_index_from_the_log_has_row_for_row_what_was_taken_in(database, broker, index):
    await take(database, index, lives())
    await broker.tell(lives())
    assert await builder(database, broker).run(ignore) == 2
    assert await rows(database.pool, "i2") == await rows(database.pool, "i1")
    assert (await versions.serving(database.pool)).from_export is False


async def test_an_index_from_the_exports_has_them_too(database, broker, index):
    await take(database, index, shop())
    kept = Kept(shop())
    assert await builder(database, broker, kept).run(ignore, export=True) == 2
    assert kept.pages > 4
    assert await rows(database.pool, "i2") == await rows(database.pool, "i1")


async def test_who_searches_while_an_index_takes_the_place_of_another_sees_no_error(database, broker, index):
    await take(database, index, shop())
    await broker.tell([*shop(), *MANY])
    stop, seen = asyncio.Event(), []

    async def search():
        while not stop.is_set():
            seen.append(len(await skus(database.pool, "mug")))

    searching = [asyncio.create_task(search()) for _ in range(2)]
    assert await builder(database, broker).run(ignore) == 2
    await eventually(lambda: seen[-1] > 4, what="the new index is searched")
    stop.set()
    await asyncio.gather(*searching)
    assert set(seen) == {4, 50}


@pytest_asyncio.fixture(loop_scope="session")
async def log(tmp_path: Path) -> AsyncIterator[tuple[Nats, PrefixedBroker]]:
    """A server whose topics have the names of the contracts, for processes."""
    async with await Nats.start(tmp_path / "nats") as nats:
        broker = PrefixedBroker(open_broker(nats.url), TOPICS)
        await broker.make_topics()
        yield nats, broker
        await broker.broker.close()


@asynccontextmanager
async def held(database, statement):
    """Hold what a statement locks, so that a rebuild stands still where it wants the same."""
    connection = await database.open_connection()
    try:
        async with connection.transaction():
            await connection.execute(statement)
            yield connection.get_server_pid()
    finally:
        await connection.close()


async def standing_still(database, holder, wanted):
    """Wait until somebody waits for what `holder` has locked, in a statement with the text `wanted`."""

    async def waits():
        return await database.pool.fetchval(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid))"
            " AND query LIKE '%' || $2 || '%')",
            holder,
            wanted,
        )

    await eventually(waits, what=f"the rebuild stands still at {wanted}", timeout=timedelta(seconds=60))


async def test_a_rebuild_that_is_killed_at_any_point_goes_on_and_the_old_index_serves(
    database, database_url, index, log
):
    nats, broker = log
    await take(database, index, shop())
    await broker.tell([*lives(), *MANY])
    nobody = "127.0.0.1:1"
    environment = os.environ | {
        "AMENDS_DATABASE_URL": database_url,
        "AMENDS_BROKER": nats.url,
        "AMENDS_CATALOG_TARGET": nobody,
        "AMENDS_INVENTORY_TARGET": nobody,
    }

    async def rebuild():
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "shop_search", "rebuild"),
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    points = (
        # The new index is there, and nothing is in it.
        ("LOCK TABLE inbox_member", "DELETE FROM inbox_member"),
        # In the middle of what it reads: its transaction is lost.
        ("LOCK TABLE i2.word", "INSERT INTO i2.word"),
        # It has read everything, and wants to take the place of the other; a reader is in its way.
        ("LOCK TABLE public.article IN ACCESS SHARE MODE", "switch_projection"),
    )
    for statement, wanted in points:
        async with held(database, statement) as holder:
            process = await rebuild()
            try:
                await standing_still(database, holder, wanted)
            finally:
                process.kill()
            assert await process.wait() == -9
            # The server notices that its client is gone, before it has what it waits for.
            await database.pool.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid))", holder
            )
        assert (await versions.serving(database.pool)).version == 1
        assert len(await skus(database.pool, "mug")) == 4
    process = await rebuild()
    out, err = await process.communicate()
    assert (process.returncode, out) == (0, b"projection 2 serves\n"), err
    assert len(await skus(database.pool, "mug")) == 50
    async with database.pool.acquire() as connection:
        wanted = ArticleIndex((await versions.make(connection, LAYOUT)).version)
    await take(database, wanted, [*lives(), *MANY])
    assert await rows(database.pool, "i2") == await rows(database.pool, wanted.schema)


async def test_who_builds_needs_no_rights_but_those_of_serving(postgres):
    """The role that serves owns nothing: schemas are made by functions of the owner."""
    owner = Database(await postgres.create("search_owner", "search_roles"))
    serving = Database(await postgres.create("search_serves", "search_roles", owner="search_owner"))
    await owner.connect()
    await serving.connect()
    try:
        await migrate(owner, "shop_search.migrations", serving="search_serves")
        async with serving.pool.acquire() as connection:
            for _ in range(2):
                made = await versions.make(connection, LAYOUT)
                await versions.switch(connection, made.version)
                await ArticleIndex(made.version).take(connection, [one.fact for one in shop()])
                assert (await skus(connection, "asam"))[0] == "tea-assam"
            assert await versions.drop_retired(connection, timedelta(0)) == [1]
    finally:
        await serving.close()
        await owner.close()
        await postgres.drop("search_roles", "search_serves")


async def test_a_database_that_cannot_keep_every_letter_is_refused(postgres):
    """Such as one of a server that was made without a locale."""
    url = await postgres.create("search_ascii", "search_ascii")
    admin = await asyncpg.connect(postgres.admin_url)
    try:
        await admin.execute("DROP DATABASE search_ascii")
        template = "TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'"
        await admin.execute(f"CREATE DATABASE search_ascii OWNER search_ascii {template}")
        with pytest.raises(asyncpg.RaiseError, match="UTF8, not in SQL_ASCII"):
            async with migrated(url, "shop_search.migrations"):
                pass
    finally:
        await admin.close()
        await postgres.drop("search_ascii", "search_ascii")
