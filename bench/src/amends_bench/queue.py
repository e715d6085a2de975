"""Taking ready runs and finishing them, against a job queue and against claims of one row.

Subject and peers find the same number of ready things and stop when none is left.
"""

import asyncio
import gc
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import asyncpg
from amends_orchestrator.assemble import GC_THRESHOLDS
from amends_orchestrator.journal import claims
from amends_orchestrator.journal.batch import Batch, JournalRow
from amends_orchestrator.journal.connection import connector
from amends_orchestrator.journal.records import JournalRefusal, RunChange, State
from amends_orchestrator.journal.tail import Tail
from rich.progress import Progress

from amends_bench import peers
from amends_bench.database import journal_database
from amends_bench.suite import Comparison, SuiteOptions, alternate
from amends_bench.verify import WrongTotalsError

RULES = 1
END = b"e" * 40
WORKERS = 4
_READY = """
WITH made AS (
    INSERT INTO run (id, namespace, saga, idempotency_key, payload, digest, rules, fence, state, due_at)
    SELECT (lpad(to_hex((extract(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0')
            || substr(md5(random()::text), 1, 20))::uuid,
           'bench', 'queue', gen_random_uuid()::text, '', '', 1, 1, 1, clock_timestamp()
    FROM generate_series(1, $1) RETURNING id
)
INSERT INTO journal (run_id, seq, fence, record) SELECT id, 1, 1, 'started' FROM made
"""
_ONE = "WITH due AS (SELECT id FROM run WHERE owner IS NULL AND due_at <= clock_timestamp() ORDER BY due_at LIMIT 1"
_ONE += " FOR UPDATE SKIP LOCKED) UPDATE run SET owner = gen_random_uuid(), fence = fence + 1, due_at = NULL,"
_ONE += " state = 4, ended_at = clock_timestamp() FROM due WHERE run.id = due.id RETURNING run.id"


class IgnoredEnds:
    """The listener of runs whose end nothing waits for."""

    def durable(self, seq: int) -> None:
        """Ignore the row: nothing waits for it."""

    def refused(self, refusal: JournalRefusal) -> None:
        """Fail: no other owner takes these runs."""
        raise AssertionError(refusal)


async def make_ready(url: str, runs: int) -> None:
    """Make runs that wait for an owner, and clear away those that have ended."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("TRUNCATE run, journal")
        await connection.execute(_READY, runs)
        await connection.execute("VACUUM ANALYZE run")
    finally:
        await connection.close()


async def drain(connections: list[Any]) -> int:
    """Claim batches and finish them, on every connection at once; return how many runs were finished."""

    async def worker(connection: Any) -> int:
        process, done = uuid4(), 0
        while rows := await claims.claim(connection, process, rules=RULES, limit=claims.BATCH):
            await claims.load(connection, rows)
            ends = [
                JournalRow(Tail(row.id, row.fence, IgnoredEnds()), 2, END, RunChange(State.COMPLETED, release=True))
                for row in rows
            ]
            batch = Batch.of(ends)
            refused = await connection.fetch(batch.sql(), *batch.parameters())
            assert not refused
            done += len(rows)
        return done

    return sum(await asyncio.gather(*(worker(connection) for connection in connections)))


async def drain_singly(connections: list[Any]) -> int:
    """Finish the runs with one row a statement and no journal, as a simple queue does."""

    async def worker(connection: Any) -> int:
        done = 0
        while await connection.fetchval(_ONE) is not None:
            done += 1
        return done

    return sum(await asyncio.gather(*(worker(connection) for connection in connections)))


class Queue:
    """The database with connections to work over."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.connections: list[Any] = []

    async def open(self, count: int) -> None:
        """Open connections as the orchestrator does."""
        connect = connector(self.url, "bench")
        self.connections = [await connect() for _ in range(count)]

    async def close(self) -> None:
        """Close the connections of both sides."""
        for connection in self.connections:
            await connection.close()

    async def round(self, runs: int, workers: int, *, singly: bool = False) -> Mapping[str, Any]:
        """Make runs ready and measure how fast they end. Raises WrongTotalsError when one is left or done twice."""
        await make_ready(self.url, runs)
        held = self.connections[:workers]
        began = time.perf_counter()
        done = await (drain_singly(held) if singly else drain(held))
        took = time.perf_counter() - began
        ended = await held[0].fetchval("SELECT count(*) FROM run WHERE state = 4 AND fence = 2")
        if done != runs or ended != runs:
            raise WrongTotalsError(f"{runs} runs were ready, {done} were taken, {ended} have ended once")
        return {"done": done, "seconds": took, "rate": done / took}


async def claims_vs_queue(options: SuiteOptions, progress: Progress) -> list[Comparison]:
    """Compare runs per second of the orchestrator's claims and of a queue."""
    rounds = min(options.rounds, 5)
    runs, few, jobs = (4_000, 500, 0) if options.quick else (10_000, 1_000, 500)
    found: list[Comparison] = []
    async with journal_database() as (postgres, url, _), AsyncExitStack() as stack:
        queue = Queue(url)
        await queue.open(64)
        stack.push_async_callback(queue.close)
        stack.callback(gc.set_threshold, *gc.get_threshold())
        gc.set_threshold(*GC_THRESHOLDS)  # this process does what an orchestrator does, and as it does it

        async def subject() -> Mapping[str, Any]:
            return await queue.round(runs, WORKERS)

        async def singly() -> Mapping[str, Any]:
            return await queue.round(few, WORKERS, singly=True)

        # More runs: every connection plans its statements anew after the tables were emptied, which is not the work.
        async def sixteen() -> Mapping[str, Any]:
            return await queue.round(8 * runs, 16)

        async def many() -> Mapping[str, Any]:
            return await queue.round(8 * runs, 64)

        async def beside_idle() -> Mapping[str, Any]:
            """Hold a transaction with an id of its own open, so that no dead row can be cleared away."""
            holder = await asyncpg.connect(url)  # in the same database: only there does it hold dead rows
            try:
                await holder.execute("BEGIN; SELECT pg_current_xact_id()")
                return await queue.round(runs, WORKERS)
            finally:
                await holder.close()

        await subject()
        if peers.PYTHON.exists() and not options.quick:
            database = await postgres.create("procrastinate", "procrastinate")
            peer = await stack.enter_async_context(peers.running("procrastinate_peer.py", database))

            async def procrastinate() -> Mapping[str, Any]:
                return await peer.work({"jobs": jobs, "workers": 16})

            one = Comparison(
                "claims-vs-queue procrastinate", "runs claimed and finished", "procrastinate", "per second", 15.0
            )
            found.append(await alternate(one, subject, procrastinate, rounds, progress))
        one = Comparison("claims-vs-queue singly", "runs claimed and finished", "claims of one row", "per second", 3.0)
        found.append(await alternate(one, subject, singly, rounds, progress))
        one = Comparison("claims-vs-queue scaling", "64 workers", "16 workers", "per second", 0.9)
        found.append(await alternate(one, many, sixteen, rounds, progress))
        one = Comparison("claims-vs-queue idle", "beside an idle transaction", "without", "per second", 0.5)
        found.append(await alternate(one, beside_idle, subject, rounds, progress))
    return found
