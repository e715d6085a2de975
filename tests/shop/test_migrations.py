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
    [(service, "barrier", Barrier.schema()) for service in GUARDED]
    + [(service, "outbox", OUTBOX) for service in (*GUARDED, *CONSUMING, "identity")]
    + [(service, inbox, INBOX) for service in (*CONSUMING, "notifications", "reporting") for inbox in INBOXES]
)


@pytest.mark.parametrize(("service", "table", "schema"), TABLES, ids=lambda one: one[:14])
async def test_a_table_is_the_one_its_library_wants(database_url, make_database, service, table, schema):
    wanted = await asyncpg.connect(await make_database())
    try:
        await wanted.execute(schema)
        shape = await wanted.fetch(SHAPE, table)
    finally:
        await wanted.close()
    assert shape
    async with migrated(database_url, f"shop_{service}.migrations") as database:
        assert await database.pool.fetch(SHAPE, table) == shape
