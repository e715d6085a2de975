"""Kill -9 of one of two orchestrators, and a restart of Postgres, under load.

The killed process is started again at once, as a supervisor does. What is measured is the rate at which sagas are
completed from a lease time and two seconds after the blow, against the rate before it; then every run must have ended
and the audit must find nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

from rich.progress import Progress

from amends_bench import world
from amends_bench.generator import LoadGenerator
from amends_bench.suite import Comparison, SuiteOptions
from amends_bench.verify import audit

LEASE = timedelta(seconds=5)
GRACE = timedelta(seconds=2)
BEFORE = timedelta(seconds=6)
AFTER = timedelta(seconds=8)
IN_FLIGHT = 64
Blow = Callable[[world.BenchProcesses], Awaitable[None]]


async def kill_one(shop: world.BenchProcesses) -> None:
    """Kill an orchestrator and start it again on its port."""
    shop.children.running["orchestrator-2"].kill()
    port = shop.addresses["orchestrator-2"].rpartition(":")[2]
    await shop.start_orchestrator("orchestrator-2", {"AMENDS_PORT": port})


async def restart_postgres(shop: world.BenchProcesses) -> None:
    """Restart the database server of the world."""
    await shop.postgres.restart()


async def _strike(shop: world.BenchProcesses, load: LoadGenerator, blow: Blow) -> tuple[float, float, int]:
    """Return the rates before and after, and how many runs the audit saw."""
    until_well = LEASE + GRACE
    whole = BEFORE + until_well + AFTER
    working = asyncio.create_task(load.round("saga", shop.orchestrators, IN_FLIGHT, whole, ends=True))
    await asyncio.sleep(BEFORE.total_seconds())
    await blow(shop)
    said = await working
    struck, well = BEFORE.total_seconds(), (BEFORE + until_well).total_seconds()
    ends = said["ends"]
    before = sum(1 for end in ends if 1.0 <= end < struck) / (struck - 1.0)
    after = sum(1 for end in ends if well <= end < whole.total_seconds()) / AFTER.total_seconds()
    return before, after, await audit(shop)


async def recovery(options: SuiteOptions, progress: Progress) -> list[Comparison]:
    """Compare the rate after a kill or a restart with the rate before."""
    blows: tuple[tuple[str, Blow], ...] = (("kill", kill_one), ("postgres", restart_postgres))
    found: list[Comparison] = []
    async with world.running() as shop, LoadGenerator() as load:
        await load.round("saga", shop.orchestrators, IN_FLIGHT, timedelta(seconds=3))
        for name, blow in blows:
            one = Comparison(f"recovery {name}", "the rate after", "the rate before", "per second", 0.98)
            rounds = 1 if options.quick else max(2, options.rounds // 3)
            bar = progress.add_task(one.name, total=rounds)
            for _ in range(rounds):
                before, after, runs = await _strike(shop, load, blow)
                one.subject_rounds.append({"rate": after, "runs_audited": runs})
                one.peer_rounds.append({"rate": before})
                progress.update(bar, advance=1)
            found.append(one)
    return found
