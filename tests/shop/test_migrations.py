"""The migrations of every service make the table that the barrier wants, however many files that takes in the end."""

import asyncpg
import pytest
from amends_barrier import Barrier
from amends_testkit.service import migrated

SHAPE = """
SELECT column_name || ' ' || data_type || ' ' || is_nullable || ' ' || coalesce(column_default, '') AS line
FROM information_schema.columns WHERE table_name = 'barrier'
UNION ALL SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'barrier'::regclass
UNION ALL SELECT indexdef FROM pg_indexes WHERE tablename = 'barrier'
ORDER BY 1
"""


@pytest.mark.parametrize("service", ["orders", "inventory", "payments", "shipping"])
async def test_the_barriers_table_is_the_one_the_barrier_wants(database_url, make_database, service):
    wanted = await asyncpg.connect(await make_database())
    try:
        await wanted.execute(Barrier.schema())
        shape = await wanted.fetch(SHAPE)
    finally:
        await wanted.close()
    assert shape
    async with migrated(database_url, f"shop_{service}.migrations") as database:
        assert await database.pool.fetch(SHAPE) == shape
