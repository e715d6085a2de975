"""The command line of the simulation: one seed in full, or many, on several cores, with how to replay what breaks.

Called by `python -m amends_simulation`, and so by `make soak`.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path

from amends_simulation.events.world import simulate_events
from amends_simulation.world import SeedResult, simulate

MODULE = "amends_simulation"
CHUNK = 100


def main() -> int:
    """Return 1 when an invariant is broken."""
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description="Live through seeds of the simulation.")
    parser.add_argument("--seed", type=int, help="show everything that happens in this one")
    parser.add_argument("--seeds", type=int, default=1000, help="how many to live through")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--jobs", type=int, default=1, help="how many processes")
    parser.add_argument("--events", action="store_true", help="worlds of events instead of sagas")
    asked = parser.parse_args()
    if asked.seed is not None:
        outcome = (simulate_events if asked.events else simulate)(asked.seed)
        say(*outcome.trace, *(f"!! {finding}" for finding in outcome.findings))
        return 1 if outcome.findings else 0
    return _many(range(asked.first, asked.first + asked.seeds), asked.jobs, asked.events)


def report(outcome: SeedResult, *, events: bool = False) -> str:
    """Return what broke in a seed, and how to see it again; empty when nothing did."""
    found = [f"seed {outcome.seed}: {finding}" for finding in outcome.findings]
    return "\n".join([*found, f"  replay it: {replay(outcome.seed, events=events)}"]) if found else ""


def replay(seed: int, *, events: bool = False) -> str:
    """Return the command that lives through a seed again and shows everything, as a shell here takes it."""
    return f"{_interpreter()} -m {MODULE}{' --events' if events else ''} --seed {seed}"


def _interpreter() -> str:
    """Return the running Python: a path from here when it is below, for nobody has `python` set to it."""
    python, here = Path(sys.executable), Path.cwd()
    return str(python.relative_to(here) if python.is_relative_to(here) else python)


def say(*lines: str) -> None:
    """Print lines, and flush them at once."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def _many(seeds: range, jobs: int, events: bool) -> int:
    began, broken, runs, calls = time.monotonic(), 0, 0, 0
    for reports, more_runs, more_calls in _lived(_chunks(seeds), jobs, _live_events if events else _live):
        say(*reports)
        broken, runs, calls = broken + len(reports), runs + more_runs, calls + more_calls
    took = time.monotonic() - began
    what = f"{runs:,} changes, {calls:,} effects" if events else f"{runs:,} runs, {calls:,} calls"
    say(f"{len(seeds):,} seeds, {what} in {took:.1f} s: {broken} seeds break an invariant")
    return 1 if broken else 0


def _lived(
    chunks: Iterable[list[int]], jobs: int, live: Callable[[list[int]], tuple[list[str], int, int]]
) -> Iterator[tuple[list[str], int, int]]:
    if jobs == 1:
        yield from map(live, chunks)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(live, chunks)


def _live(seeds: list[int], events: bool = False) -> tuple[list[str], int, int]:
    outcomes = [(simulate_events if events else simulate)(seed) for seed in seeds]
    reports = [text for text in (report(outcome, events=events) for outcome in outcomes) if text]
    return reports, sum(outcome.runs for outcome in outcomes), sum(outcome.calls for outcome in outcomes)


def _live_events(seeds: list[int]) -> tuple[list[str], int, int]:
    return _live(seeds, events=True)


def _chunks(seeds: range) -> Iterator[list[int]]:
    left = iter(seeds)
    while chunk := list(islice(left, CHUNK)):
        yield chunk
