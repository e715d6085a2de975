"""The migrations make the table that the barrier wants, however many files that takes in the end."""

import asyncpg
from amends_barrier import Barrier

SHAPE = """
SELECT column_name || ' ' || data_type || ' ' || is_nullable || ' ' || coalesce(column_default, '') AS line
FROM information_schema.columns WHERE table_name = 'barrier'
UNION ALL SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'barrier'::regclass
UNION ALL SELECT indexdef FROM pg_indexes WHERE tablename = 'barrier'
ORDER BY 1
"""


async def test_the_barriers_table_is_the_one_the_barrier_wants(database, make_database):
    wanted = await asyncpg.connect(await make_database())
    try:
        await wanted.execute(Barrier.schema())
        shape = await wanted.fetch(SHAPE)
    finally:
        await wanted.close()
    assert shape
    assert await database.pool.fetch(SHAPE) == shape
