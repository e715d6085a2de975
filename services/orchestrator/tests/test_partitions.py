"""Retention: partitions are dropped whole, and only when all their runs ended long ago."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import RFC_4122

import asyncpg
import pytest
from amends_embedded import Postgres
from amends_orchestrator.journal.ids import RunIds
from amends_orchestrator.journal.partitions import drop_old, make_partitions
from amends_orchestrator.journal.records import RunChange, State

from amends.saga.v1 import run_pb2

from .journal_helpers import Journal
from .shop import Shop, open_shop, orchestrator

MONTH = timedelta(days=30)


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    async with open_shop() as opened:
        yield opened


async def partitions(connection: asyncpg.Connection) -> set[str]:
    return {row[0] for row in await connection.fetch("SELECT inhrelid::regclass::text FROM pg_inherits")}


async def make_day(connection: asyncpg.Connection, day: datetime) -> str:
    name = f"journal_{day:%Y%m%d}"
    low, high = [await connection.fetchval("SELECT run_id_floor($1)", at) for at in (day, day + timedelta(days=1))]
    await connection.execute(f"CREATE TABLE {name} PARTITION OF journal FOR VALUES FROM ('{low}') TO ('{high}')")
    return name


async def test_partitions_of_the_coming_week_are_made_once(connection: asyncpg.Connection):
    assert await make_partitions(connection) == 0
    today = datetime.now(UTC)
    for day in range(8):
        assert f"journal_{today + timedelta(days=day):%Y%m%d}" in await partitions(connection)


async def test_a_partition_goes_when_all_its_runs_ended_before_the_retention(
    journal: Journal, connection: asyncpg.Connection
):
    day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=40)
    name = await make_day(connection, day)
    journal.ids.synchronise(day + timedelta(hours=3))
    tail = await journal.run()
    assert await drop_old(connection, MONTH) == [], "its run has not ended"

    journal.append(tail, 2, change=RunChange(State.COMPLETED, release=True))
    await journal.durable(tail, 2)
    assert await drop_old(connection, MONTH) == [], "its run has only just ended"

    await connection.execute("UPDATE run SET ended_at = ended_at - interval '31 days'")
    assert await drop_old(connection, MONTH) == [name]
    assert await connection.fetchval("SELECT count(*) FROM run") == 0
    assert name not in await partitions(connection)


async def test_the_key_of_a_run_is_free_again_after_its_retention(journal: Journal, connection: asyncpg.Connection):
    day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=40)
    await make_day(connection, day)
    journal.ids.synchronise(day)
    first = await journal.start("key", payload=b"old")
    await connection.execute("UPDATE run SET state = 4, ended_at = clock_timestamp() - interval '31 days'")
    await drop_old(connection, MONTH)
    journal.ids.synchronise(datetime.now(UTC))
    second = await journal.start("key", payload=b"new")
    assert second.created
    assert second.run_id != first.run_id


async def test_a_replaced_definition_stays_as_long_as_a_run_is_pinned_to_it(
    journal: Journal, connection: asyncpg.Connection
):
    run_id = (await journal.start()).run_id  # pinned to b"d"
    for digest, age in ((b"d", "2 hours"), (b"unpinned", "2 hours"), (b"just made", "1 minute")):
        await connection.execute(
            "INSERT INTO definition VALUES ($1, '', clock_timestamp() - $2::text::interval)", digest, age
        )
    await connection.execute("INSERT INTO definition VALUES ('in force', '', clock_timestamp() - interval '2 hours')")
    await connection.execute("INSERT INTO saga VALUES ('default', 'saga', 'in force', '', '')")
    await drop_old(connection, MONTH)
    assert await definitions(connection) == {b"d", b"just made", b"in force"}

    await connection.execute("DELETE FROM run WHERE id = $1", run_id)
    await drop_old(connection, MONTH)
    assert await definitions(connection) == {b"just made", b"in force"}


async def test_a_role_that_owns_nothing_serves_runs_and_keeps_the_partitions(postgres: Postgres, shop: Shop):
    owning = await postgres.create("journal_owner", "journals")
    serving = await postgres.create("journal_server", "journals", owner="journal_owner")
    try:
        async with orchestrator(serving, migrations_database_url=owning) as client:
            await client.apply(shop)
            started = await client.start("k-1")
            assert (await client.ended(started.run.run_id)).state == run_pb2.RUN_STATE_COMPLETED
        owner, connection = await asyncpg.connect(owning), await asyncpg.connect(serving)
        today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        ahead = f"journal_{today + timedelta(days=7):%Y%m%d}"
        await owner.execute(f"DROP TABLE {ahead}")
        assert await make_partitions(connection) == 1
        old = await make_day(owner, today - timedelta(days=40))
        assert await drop_old(connection, MONTH) == [old]
        assert ahead in await partitions(connection)
        tables = await connection.fetch("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'")
        assert [row[0] for row in tables] == ["journal_owner"]
        for forbidden in (
            f"DROP TABLE {ahead}",
            "ALTER TABLE run ADD COLUMN n integer",
            "CREATE TABLE mine (n integer)",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(forbidden)
        await owner.close()
        await connection.close()
    finally:
        await postgres.drop("journal_server", "journals")
        await postgres.drop("journal_owner", "journals")


async def definitions(connection: asyncpg.Connection) -> set[bytes]:
    return {row[0] for row in await connection.fetch("SELECT digest FROM definition")}


def test_run_ids_are_random_uuids_of_version_7_on_the_databases_clock():
    ids, now = RunIds(), datetime(2031, 5, 1, 12, tzinfo=UTC)
    ids.synchronise(now)
    made = [ids.next() for _ in range(200)]
    assert {(one.variant, one.version) for one in made} == {(RFC_4122, 7)}
    took = ids.now() - now
    assert timedelta() <= took < timedelta(seconds=10)
    first, last = (datetime.fromtimestamp((one.int >> 80) / 1000, UTC) for one in (made[0], made[-1]))
    millisecond = timedelta(milliseconds=1)
    assert now - millisecond <= first <= last <= now + took + millisecond
    chance = [one.int & ((1 << 62) - 1) for one in made]
    assert len(set(chance)) == len(made)
    for bit in (*range(62), *range(64, 76)):
        assert len({one.int >> bit & 1 for one in made}) == 2, f"bit {bit} is never drawn"
