"""docs/reference/faults.md and the tests agree: each row has tests, each named test is there, none is missing."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from .scenarios import SCENARIOS
from .world import ROOT

PAGE = (ROOT / "docs" / "reference" / "faults.md").read_text()
ROW = re.compile(r"^\| (\d+) \|.*\| ([^|]*) \|$", re.MULTILINE)
ROW_OF_EVENTS = re.compile(r"^\| E(\d+) \|.*\| ([^|]*) \|$", re.MULTILINE)
NAMED = re.compile(r"`([\w/.-]+\.py)::(\w+)`")
SHIPPED = ("libs/*/src", "services/*/src", "cli/src", "demo/src", "operator/src")
HOOKS = re.compile(r"FAULTS_|faults\.points|os\._exit\(137\)")


def names_in(path: Path) -> Iterator[str]:
    """The tests in a file, those of classes too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_"):
            yield node.name


def test_the_page_has_the_faults_in_order_and_a_test_for_each():
    rows = ROW.findall(PAGE)
    assert [int(number) for number, _ in rows] == list(range(1, 50))
    assert [number for number, tests in rows if not NAMED.search(tests)] == []


def test_each_fault_of_events_has_a_test():
    rows = ROW_OF_EVENTS.findall(PAGE)
    numbers = [int(number) for number, _ in rows]
    assert numbers
    assert numbers == sorted(set(numbers))
    assert [number for number, tests in rows if not NAMED.search(tests)] == []


@pytest.mark.parametrize("file", sorted({file for file, _ in NAMED.findall(PAGE)}))
def test_every_named_test_is_there(file: str):
    names = {name for of, name in NAMED.findall(PAGE) if of == file}
    assert names - set(names_in(ROOT / file)) == set()


def test_every_test_of_this_suite_is_on_the_page():
    here = {name for path in Path(__file__).parent.glob("test_*.py") for name in names_in(path)}
    assert here - {name for _, name in NAMED.findall(PAGE)} == set(names_in(Path(__file__)))


@pytest.mark.parametrize("file", ["test_faults.py", "test_outage.py", "test_admission.py"])
def test_every_fault_of_kubernetes_that_is_tested_is_on_the_page(file: str):
    assert set(names_in(ROOT / "tests" / "kubernetes" / file)) - {name for _, name in NAMED.findall(PAGE)} == set()


def test_the_page_counts_the_places_as_they_are():
    counted = re.findall(r"^\| [a-z, ]+ \| (\d+) \| (\d+) \| about", PAGE, re.MULTILINE)
    there = [(str(len(way.of_orchestrator())), str(len(way.of_participants()))) for way in SCENARIOS]
    assert counted == there


def test_nothing_that_is_shipped_knows_how_to_die_on_purpose():
    files = [path for pattern in SHIPPED for folder in ROOT.glob(pattern) for path in folder.rglob("*.py")]
    assert len(files) > 100
    assert [str(path) for path in files if HOOKS.search(path.read_text())] == []
