"""The command: runs benchmarks, keeps what they found, and writes the page.

Called by `__main__`, for the Makefile and for CI.
"""

import argparse
import asyncio
import json
import time
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from amends_bench import machine, page, peers
from amends_bench.growth import FINISHED, NoRoomError, growth, keep
from amends_bench.suite import Comparison, SuiteOptions
from amends_bench.table import BENCHMARKS, GROWTH, GROWTH_MEASURES, QUICK

GROWTH_ROUNDS = 5
QUICK_OPTIONS = SuiteOptions(rounds=3, duration=timedelta(seconds=1), quick=True)


def main() -> int:
    """Run the benchmarks that the command line names; return 1 when a result is absurd."""
    parser = argparse.ArgumentParser(prog="amends-bench", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, GROWTH, []], help="which; all when none is named")
    parser.add_argument("--list", action="store_true", help="print the names and what they measure")
    parser.add_argument("--quick", action="store_true", help="short rounds, no peers; keeps nothing")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, default=SuiteOptions().duration.total_seconds(), help="of one round")
    parser.add_argument("--page", action="store_true", help="only write the page from what was kept")
    parser.add_argument("--finished", type=_counts, default=FINISHED, help="of growth: how many runs have ended before")
    asked = parser.parse_args()
    if asked.list:
        _list()
        return 0
    if asked.page:
        page.write()
        return 0
    names = asked.names or (QUICK if asked.quick else BENCHMARKS)
    rounds = asked.rounds or (GROWTH_ROUNDS if GROWTH in asked.names else SuiteOptions().rounds)
    options = QUICK_OPTIONS if asked.quick else SuiteOptions(rounds, timedelta(seconds=asked.seconds))
    console = Console()
    if GROWTH in asked.names:
        return _growth(options, asked.finished, console)
    found = asyncio.run(_run(list(names), options, console))
    console.print(_table(found))
    if not asked.quick:
        page.write()
    return 1 if any(one.absurd for one in found) else 0


def _list() -> None:
    for name, benchmark in BENCHMARKS.items():
        print(f"{name:<22} {benchmark.measures}")
    print(f"{GROWTH:<22} {GROWTH_MEASURES}")


def _growth(options: SuiteOptions, finished: tuple[int, ...], console: Console) -> int:
    try:
        keep(asyncio.run(growth(options.rounds, options.duration, finished, console)))
    except NoRoomError as error:
        console.print(str(error), style="bold red")
        return 1
    return 0


def _counts(text: str) -> tuple[int, ...]:
    return tuple(int(part.replace("_", "")) for part in text.split(","))


async def _run(names: list[str], options: SuiteOptions, console: Console) -> list[Comparison]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    found: list[Comparison] = []
    with Progress(*columns, console=console) as progress:
        for name in names:
            where, began = machine.describe(), time.perf_counter()
            try:
                results = await BENCHMARKS[name].run(options, progress)
            except peers.PeersMissingError as missing:
                console.print(f"{name} is left out: {missing}")
                continue
            found += results
            if not options.quick:
                where["seconds"] = round(time.perf_counter() - began)
                kept = {"machine": where, "comparisons": [one.json() for one in results]}
                page.RESULTS.mkdir(exist_ok=True)
                (page.RESULTS / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n")
    return found


def _table(found: list[Comparison]) -> Table:
    table = Table("", "ratio", "least to greatest", "target", "")
    for one in found:
        bound = "" if one.target is None else f"{'at most' if one.at_most else 'at least'} {one.target:g}"
        spread = f"{min(one.ratios):.2f} to {max(one.ratios):.2f}"
        table.add_row(one.name, f"{one.median:.2f}", spread, bound, one.verdict)
    return table
