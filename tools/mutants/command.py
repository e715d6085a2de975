"""Makes the mistakes one by one and runs the tests that should notice: `make mutants`, or a sample of them in CI.

The type checker is asked first, because it is quick, and then the tests that a module has of its own. The others of its
target are asked about what those miss, unless `--own` leaves them out. A copy of the package's sources has the mistake
in it and stands first on PYTHONPATH, so that the working tree is never touched. What no test notices is listed;
`accepted.toml` has those that make no difference, each with the reason.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

from mutants.changes import Change, changes
from mutants.targets import ROOT, TARGETS, Target

ACCEPTED = Path(__file__).parent / "accepted.toml"
ENOUGH = 0.90
LONGEST = 300
"""Seconds after which tests that hang count as having noticed."""
STOPS_WITHIN = 20
"""Seconds that they get to stop their servers."""
SOON = timedelta(seconds=20)
"""A mutant that is decided within this time can be tried in CI."""
PYTEST = ("-m", "pytest", "-q", "-x", "-n", "0", "-p", "no:randomly", "-p", "no:cacheprovider", "--no-header")


@dataclass(frozen=True, slots=True)
class Mutant:
    """One mistake in one file of a target."""

    target: Target
    file: Path
    change: Change

    @property
    def name(self) -> str:
        """Return the file and the change, without the line."""
        return f"{self.file.relative_to(ROOT)}: {self.change.name}"


@dataclass(frozen=True, slots=True)
class Tried:
    """What became of a mutant, and how long it took to know."""

    mutant: Mutant
    noticed: bool
    took: timedelta


def main(arguments: Sequence[str]) -> int:
    """Try mutants; return 1 when too few are noticed, or when the tests fail without any."""
    asked = _parser().parse_args(arguments)
    mutants = _chosen(asked)
    if asked.list:
        _say("\n".join(mutant.name for mutant in mutants))
        return 0
    for target in dict.fromkeys(mutant.target for mutant in mutants):
        files = [mutant.file for mutant in mutants if mutant.target is target]
        tests = dict.fromkeys(test for file in files for test in target.tests_of(file))
        if not _is_well_typed(*dict.fromkeys(files)):
            _say(f"the types of {target.name} are wrong without any mistake")
            return 1
        if _fails(target, tests if asked.own else [*tests, *target.tests], None):
            _say(f"the tests of {target.name} fail without any mistake")
            return 1
    with ThreadPoolExecutor(asked.jobs) as pool:
        tried = list(pool.map(partial(_try, own=asked.own), mutants))
    return _report(tried, asked.at_least)


def _chosen(asked: argparse.Namespace) -> list[Mutant]:
    """Return the mutants of the targets that were asked for, without the accepted ones; or a sample of them."""
    accepted = {one["change"] for one in tomllib.loads(ACCEPTED.read_text())["accepted"]}
    targets = [target for target in TARGETS if not asked.only or target.name in asked.only]
    mutants = [mutant for target in targets for mutant in _mutants(target) if mutant.name not in accepted]
    if asked.sample and asked.sample < len(mutants):
        return random.Random(asked.seed).sample(mutants, asked.sample)  # noqa: S311 - to be repeatable
    return mutants


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make mutants")
    parser.add_argument("--only", nargs="*", help="targets: " + ", ".join(target.name for target in TARGETS))
    parser.add_argument("--sample", type=int, default=0, help="try this many, drawn by chance; left out: all")
    parser.add_argument("--seed", type=int, default=1, help="for the choice of the sample")
    parser.add_argument("--jobs", type=int, default=2, help="how many at once")
    parser.add_argument("--own", action="store_true", help="ask only the tests that each module has of its own")
    parser.add_argument("--at-least", type=float, default=ENOUGH, help="the share that has to be noticed")
    parser.add_argument("--list", action="store_true", help="list them and try none")
    return parser


def _mutants(target: Target) -> Iterable[Mutant]:
    for file in target.files():
        for change in changes(file.read_text()):
            yield Mutant(target, file, change)


def _try(mutant: Mutant, *, own: bool) -> Tried:
    began = time.monotonic()
    tests = mutant.target.tests_of(mutant.file)
    noticed = _is_mistyped(mutant) or _fails(mutant.target, tests, mutant)
    if not noticed and not own and tests != mutant.target.tests:
        noticed = _fails(mutant.target, mutant.target.tests, mutant)
    tried = Tried(mutant, noticed, timedelta(seconds=time.monotonic() - began))
    took = tried.took.total_seconds()
    _say(f"{'noticed' if noticed else 'MISSED '} {took:5.1f} s {mutant.file.relative_to(ROOT)}:{mutant.change.line}")
    if not noticed:
        _say(f"        {mutant.name}")
    return tried


def _fails(target: Target, tests: Iterable[str], mutant: Mutant | None) -> bool:
    """Return whether tests of the target fail, with the mistake or without any."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copied = Path(folder) / "src"
        shutil.copytree(target.source, copied, ignore=shutil.ignore_patterns("__pycache__"))
        if mutant is not None:
            file = copied / mutant.file.relative_to(target.source)
            file.write_text(mutant.change.apply(file.read_text()))
        environment = os.environ | {"PYTHONPATH": str(copied), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, *PYTEST, f"--basetemp={folder}/tests", *dict.fromkeys(tests)]
        longest = None if mutant is None else LONGEST
        tests_run = subprocess.Popen(  # noqa: S603
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            said, _ = tests_run.communicate(timeout=longest)
        except subprocess.TimeoutExpired:
            _end(tests_run)
            return True
        if tests_run.returncode and mutant is None:
            _say(said[-2000:])
        return tests_run.returncode != 0


def _end(tests_run: subprocess.Popen[str]) -> None:
    """End tests that hang: asked first, so that they stop the servers that they have started."""
    tests_run.send_signal(signal.SIGINT)
    try:
        tests_run.communicate(timeout=STOPS_WITHIN)
    except subprocess.TimeoutExpired:
        tests_run.kill()
        tests_run.communicate()


def _is_mistyped(mutant: Mutant) -> bool:
    """Return whether the type checker refuses the file with the mistake in it."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        shadow = Path(folder) / mutant.file.name
        shadow.write_text(mutant.change.apply(mutant.file.read_text()))
        return not _is_well_typed("--shadow-file", mutant.file, shadow, mutant.file)


def _is_well_typed(*arguments: str | Path) -> bool:
    command = [sys.executable, "-m", "mypy", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True).returncode == 0  # noqa: S603


def _report(tried: Sequence[Tried], at_least: float) -> int:
    count, seen, soon = Counter[str](), Counter[str](), Counter[str]()
    for one in tried:
        name = one.mutant.target.name
        count[name] += 1
        seen[name] += one.noticed
        soon[name] += one.took <= SOON
    for name, all_of_it in count.items():
        _say(f"{name:10} {seen[name]:4} of {all_of_it:4} noticed, {soon[name]} decided in {SOON.total_seconds():.0f} s")
    share = sum(one.noticed for one in tried) / len(tried) if tried else 1.0
    _say(f"{share:.0%} of {len(tried)} noticed; {at_least:.0%} are asked for")
    return 0 if share >= at_least else 1


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
