"""Makes the mistakes one by one and runs the tests that should notice: `make mutants`, or a sample of them in CI.

A copy of the package's sources has the mistake in it and stands first on PYTHONPATH, so that the working tree is never
touched. What no test notices is listed; `accepted.toml` has those that make no difference, each with the reason.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mutants.changes import Change, changes
from mutants.targets import ROOT, TARGETS, Target

ACCEPTED = Path(__file__).parent / "accepted.toml"
ENOUGH = 0.90
LONGEST = 300
"""Seconds after which tests that hang count as having noticed."""
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


def main(arguments: Sequence[str]) -> int:
    """Try mutants; return 1 when fewer than nine in ten are noticed, or when the tests fail without any."""
    asked = _parser().parse_args(arguments)
    accepted = {one["change"] for one in tomllib.loads(ACCEPTED.read_text())["accepted"]}
    chosen = [target for target in TARGETS if not asked.only or target.name in asked.only]
    mutants = [mutant for target in chosen for mutant in _mutants(target) if mutant.name not in accepted]
    if asked.sample and asked.sample < len(mutants):
        mutants = random.Random(asked.seed).sample(mutants, asked.sample)  # noqa: S311 - to be repeatable
    if asked.list:
        _say("\n".join(mutant.name for mutant in mutants))
        return 0
    for target in dict.fromkeys(mutant.target for mutant in mutants):
        if _noticed(target, None):
            _say(f"the tests of {target.name} fail without any mistake")
            return 1
    with ThreadPoolExecutor(asked.jobs) as pool:
        noticed = list(pool.map(_try, mutants))
    return _report(mutants, noticed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make mutants")
    parser.add_argument("--only", nargs="*", help="targets: " + ", ".join(target.name for target in TARGETS))
    parser.add_argument("--sample", type=int, default=0, help="so many of them, by chance; left out: all")
    parser.add_argument("--seed", type=int, default=1, help="for the choice of the sample")
    parser.add_argument("--jobs", type=int, default=2, help="how many at once")
    parser.add_argument("--list", action="store_true", help="list them and try none")
    return parser


def _mutants(target: Target) -> Iterable[Mutant]:
    for file in target.files():
        for change in changes(file.read_text()):
            yield Mutant(target, file, change)


def _try(mutant: Mutant) -> bool:
    noticed = _noticed(mutant.target, mutant)
    _say(f"{'noticed' if noticed else 'MISSED '} {mutant.name}")
    return noticed


def _noticed(target: Target, mutant: Mutant | None) -> bool:
    """Return whether the target's tests fail, with the mistake or without any."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copied = Path(folder) / "src"
        shutil.copytree(target.source, copied, ignore=shutil.ignore_patterns("__pycache__"))
        if mutant is not None:
            file = copied / mutant.file.relative_to(target.source)
            file.write_text(mutant.change.apply(file.read_text()))
        environment = os.environ | {"PYTHONPATH": str(copied), "PYTHONDONTWRITEBYTECODE": "1"}
        tests = [test for test in target.tests if (ROOT / test).exists()]
        command = [sys.executable, *PYTEST, f"--basetemp={folder}/tests", *tests]
        try:
            ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=LONGEST)  # noqa: S603
        except subprocess.TimeoutExpired:
            return True
        return ended.returncode != 0


def _report(mutants: Sequence[Mutant], noticed: Sequence[bool]) -> int:
    tried, seen = Counter[str](), Counter[str]()
    for mutant, was in zip(mutants, noticed, strict=True):
        tried[mutant.target.name] += 1
        seen[mutant.target.name] += was
    for name, count in tried.items():
        _say(f"{name:10} {seen[name]:4} of {count:4} noticed")
    share = sum(noticed) / len(mutants) if mutants else 1.0
    _say(f"{share:.0%} of {len(mutants)} noticed; {ENOUGH:.0%} are asked for")
    return 0 if share >= ENOUGH else 1


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
