"""A past for the journal: runs that ended on earlier days, as many as asked for, made inside of the database.

They have the rows and the sizes of runs of the benchmarks' saga, and are nobody's: their records say nothing.
"""

from datetime import UTC, datetime, timedelta

import asyncpg

AT_ONCE = 250_000
RECORDS = 6
"""Of a run of three steps with a pivot: started, two answers, intent, answer, ended."""
_PARTITION = """
CREATE TABLE IF NOT EXISTS {name} PARTITION OF journal
    FOR VALUES FROM (run_id_floor('{day}'::timestamptz)) TO (run_id_floor('{day}'::timestamptz + interval '1 day'))
"""
# Ids of version 7, of moments spread over the day.
_MADE = """
CREATE TEMPORARY TABLE made ON COMMIT DROP AS
SELECT (lpad(to_hex((extract(epoch FROM moment) * 1000)::bigint), 12, '0') || '7' || substr(hash, 1, 3) || '8'
        || substr(hash, 4, 15))::uuid AS id, moment
FROM (SELECT $1::timestamptz + interval '1 day' * (n % $2) / $2 AS moment, md5($1::text || n::text) AS hash
      FROM generate_series($3::bigint, $3::bigint + $4::bigint - 1) AS n) AS spread
"""
_RUNS = """
INSERT INTO run (id, owner, fence, started_at, ended_at, state, rules, digest, payload, namespace, saga,
                 idempotency_key)
SELECT id, NULL, 1, moment, moment + interval '20 milliseconds', 4, 1, sha256('past'), sha256('payload'), 'past',
       'place-order', id::text
FROM made
"""
_JOURNAL = """
INSERT INTO journal (run_id, seq, fence, record)
SELECT id, seq, 1, repeat('r', CASE seq WHEN 1 THEN 180 ELSE 60 END)::bytea FROM made, generate_series(1, $1) AS seq
"""
_SIZES = """
SELECT pg_total_relation_size('run') AS run,
       (SELECT coalesce(sum(pg_total_relation_size(inhrelid)), 0)::bigint FROM pg_inherits
        WHERE inhparent = 'journal'::regclass) AS journal
"""


async def add(connection: "asyncpg.Connection[asyncpg.Record]", runs: int, *, days: int) -> None:
    """Add runs that ended, as many on each of `days` days before yesterday; nothing when `runs` is not more than 0.

    Not yesterday: shortly after midnight the audit of what was measured would look at them too.
    """
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    for back in range(2, days + 2):
        day = today - timedelta(days=back)
        await connection.execute(_PARTITION.format(name=f"journal_{day:%Y%m%d}", day=day.isoformat()))
        share = runs // days
        first = int(await connection.fetchval("SELECT count(*) FROM run WHERE namespace = 'past'"))
        for begin in range(0, share, AT_ONCE):
            await _some(connection, day, share, first + begin, min(AT_ONCE, share - begin))
    await connection.execute("ANALYZE run")
    await connection.execute("ANALYZE journal")
    await connection.execute("CHECKPOINT") if await _may_checkpoint(connection) else None


async def _some(
    connection: "asyncpg.Connection[asyncpg.Record]", day: datetime, share: int, first: int, count: int
) -> None:
    async with connection.transaction():
        await connection.execute(_MADE, day, share, first, count, timeout=600)
        await connection.execute(_RUNS, timeout=600)
        await connection.execute(_JOURNAL, RECORDS, timeout=600)


async def _may_checkpoint(connection: "asyncpg.Connection[asyncpg.Record]") -> bool:
    return bool(await connection.fetchval("SELECT pg_has_role('pg_checkpoint', 'MEMBER')"))


async def sizes(connection: "asyncpg.Connection[asyncpg.Record]") -> dict[str, float]:
    """Return the sizes of the tables with their indexes, in MB."""
    row = await connection.fetchrow(_SIZES)
    assert row is not None
    return {"run_table": row["run"] / 1e6, "journal_table": row["journal"] / 1e6}
