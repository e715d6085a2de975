"""A Postgres with the orchestrator's tables and nothing else.

Used by the benchmarks of the journal and of the claims.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from amends_chassis.database import Database
from amends_chassis.migrations import migrate
from amends_embedded import Postgres
from amends_orchestrator.journal.partitions import make_partitions

from amends_bench.world import check_durable


@asynccontextmanager
async def journal_database() -> AsyncIterator[tuple[Postgres, str, Path]]:
    """Yield the server, the URL of the migrated database, and a scratch folder."""
    with TemporaryDirectory(prefix="amends-bench-") as scratch:
        async with await Postgres.start(Path(scratch) / "postgres") as postgres:
            await check_durable(postgres.admin_url)
            url = await postgres.create("orchestrator", "orchestrator")
            database = Database(url, application="bench", size=2)
            await database.connect()
            try:
                await migrate(database, "amends_orchestrator.migrations")
                async with database.pool.acquire() as connection:
                    await make_partitions(connection)
            finally:
                await database.close()
            yield postgres, url, Path(scratch)
