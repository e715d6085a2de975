"""Proves after a benchmark that nothing was lost or done twice: a fast wrong answer is worth nothing.

Runs `amends audit` over the databases that the benchmark used, as an operator would.
"""

import asyncio
import sys
from datetime import timedelta

import asyncpg

from amends_bench.participant import SERVICES
from amends_bench.world import BenchProcesses

SETTLE = timedelta(seconds=30)


class WrongTotalsError(RuntimeError):
    """An invariant does not hold. The text is what the audit says."""


async def audit(world: BenchProcesses, *, barrier: bool = False, since: str = "") -> int:
    """Return how many runs there are, all of them ended; `since`, e.g. `5m`, leaves older ones out.

    Raises WrongTotalsError.
    """
    url = world.databases["orchestrator"]
    connection = await asyncpg.connect(url)
    try:
        runs = await _ended(connection)
    finally:
        await connection.close()
    command = [sys.executable, "-m", "amends_cli", "audit", "--database", url, "--lease", "5s"]
    if since:
        command += ["--since", since]
    if barrier:
        for name, service in SERVICES.items():
            command += ["--participant", f"{service}={world.databases[name]}"]
        command += ["--strangers"]  # the calls made without durability have effects, and no runs
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    if process.returncode:
        raise WrongTotalsError(said.decode())
    return runs


async def _ended(connection: "asyncpg.Connection[asyncpg.Record]") -> int:
    """Wait until no run is under way any more."""
    async with asyncio.timeout(SETTLE.total_seconds()):
        while await connection.fetchval("SELECT count(*) FROM run WHERE state < 3"):  # noqa: ASYNC110 - a database's rows
            await asyncio.sleep(0.1)
    return int(await connection.fetchval("SELECT count(*) FROM run"))
