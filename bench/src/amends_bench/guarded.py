"""The time that the barrier adds to a business transaction.

Runs libs/barrier/bench/cost.py, which says what both sides do.
"""

import asyncio
import re
import sys
from pathlib import Path

from rich.progress import Progress

from amends_bench.suite import Comparison, SuiteOptions

SCRIPT = Path(__file__).resolve().parents[3] / "libs" / "barrier" / "bench" / "cost.py"
LINE = re.compile(
    r"(?P<clients>\d+) at once: plain +(?P<plain>[\d.]+)/s, barrier +(?P<barrier>[\d.]+)/s, "
    r"ratio (?P<median>[\d.]+) \((?P<least>[\d.]+) to (?P<most>[\d.]+)\)"
)


async def barrier_transaction(options: SuiteOptions, progress: Progress) -> list[Comparison]:
    """Compare transactions per second; return the least, the median and the greatest ratio of many short rounds."""
    rounds = 5 if options.quick else 25
    bar = progress.add_task("barrier-transaction: the barrier's cost", total=1)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(SCRIPT), "--rounds", str(rounds), "--clients", "1", "16"), stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{SCRIPT.name} ended with {process.returncode}")
    progress.update(bar, advance=1)
    found: list[Comparison] = []
    for line in LINE.finditer(said.decode()):
        name = f"barrier-transaction {line['clients']} at once"
        one = Comparison(name, "a charge with the barrier", "the same without", "per second", 0.85)
        plain, barrier = float(line["plain"]), float(line["barrier"])
        for ratio in (line["least"], line["median"], line["most"]):
            one.peer_rounds.append({"rate": plain})
            one.subject_rounds.append({"rate": plain * float(ratio), "median_of_all": barrier})
        found.append(one)
    return found
