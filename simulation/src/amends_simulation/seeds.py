"""The command line of the simulation: one seed in full, or many, on several cores, with how to replay what breaks.

Called by `python -m amends_simulation`, and so by `make soak`.
"""

import argparse
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path

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
    asked = parser.parse_args()
    if asked.seed is not None:
        outcome = simulate(asked.seed)
        say(*outcome.trace, *(f"!! {finding}" for finding in outcome.findings))
        return 1 if outcome.findings else 0
    return _many(range(asked.first, asked.first + asked.seeds), asked.jobs)


def report(outcome: SeedResult) -> str:
    """Return what broke in a seed, and how to see it again; empty when nothing did."""
    found = [f"seed {outcome.seed}: {finding}" for finding in outcome.findings]
    return "\n".join([*found, f"  replay it: {replay(outcome.seed)}"]) if found else ""


def replay(seed: int) -> str:
    """Return the command that lives through a seed again and shows everything, as a shell here takes it."""
    return f"{_interpreter()} -m {MODULE} --seed {seed}"


def _interpreter() -> str:
    """Return the running Python: a path from here when it is below, for nobody has `python` set to it."""
    python, here = Path(sys.executable), Path.cwd()
    return str(python.relative_to(here) if python.is_relative_to(here) else python)


def say(*lines: str) -> None:
    """Print lines, and flush them at once."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def _many(seeds: range, jobs: int) -> int:
    began, broken, runs, calls = time.monotonic(), 0, 0, 0
    for reports, more_runs, more_calls in _lived(_chunks(seeds), jobs):
        say(*reports)
        broken, runs, calls = broken + len(reports), runs + more_runs, calls + more_calls
    took = time.monotonic() - began
    say(f"{len(seeds):,} seeds, {runs:,} runs, {calls:,} calls in {took:.1f} s: {broken} seeds break an invariant")
    return 1 if broken else 0


def _lived(chunks: Iterable[list[int]], jobs: int) -> Iterator[tuple[list[str], int, int]]:
    if jobs == 1:
        yield from map(_live, chunks)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(_live, chunks)


def _live(seeds: list[int]) -> tuple[list[str], int, int]:
    outcomes = [simulate(seed) for seed in seeds]
    reports = [text for text in map(report, outcomes) if text]
    return reports, sum(outcome.runs for outcome in outcomes), sum(outcome.calls for outcome in outcomes)


def _chunks(seeds: range) -> Iterator[list[int]]:
    left = iter(seeds)
    while chunk := list(islice(left, CHUNK)):
        yield chunk
