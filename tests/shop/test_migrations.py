"""The migrations of every service make the tables that the libraries want, however many files that takes in the end."""

import asyncpg
import pytest
from amends_barrier import Barrier
from amends_events import INBOX, OUTBOX
from amends_testkit.service import migrated

SHAPE = """
SELECT column_name || ' ' || data_type || ' ' || is_nullable || ' ' || coalesce(column_default, '') AS line
FROM information_schema.columns WHERE table_name = $1
UNION ALL SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = $1::text::regclass
UNION ALL SELECT indexdef FROM pg_indexes WHERE tablename = $1
ORDER BY 1
"""


GUARDED = ("orders", "inventory", "payments", "shipping")
CONSUMING = ("customers", "marketing")
INBOXES = ("inbox", "inbox_position", "inbox_member", "inbox_parked")
TABLES = (
    {service: ["barrier", "outbox"] for service in GUARDED}
    | {service: ["outbox", *INBOXES] for service in CONSUMING}
    | {"identity": ["outbox"], "notifications": list(INBOXES), "reporting": list(INBOXES), "search": list(INBOXES)}
)


async def shapes(connection, tables):
    return {table: await connection.fetch(SHAPE, table) for table in tables}


@pytest.mark.parametrize("service", TABLES)
async def test_the_tables_are_those_that_the_libraries_want(database_url, make_database, service):
    wanted = await asyncpg.connect(await make_database())
    try:
        await wanted.execute(Barrier.schema() + OUTBOX + INBOX)
        expected = await shapes(wanted, TABLES[service])
    finally:
        await wanted.close()
    assert all(expected.values())
    async with migrated(database_url, f"shop_{service}.migrations") as database:
        assert await shapes(database.pool, TABLES[service]) == expected
