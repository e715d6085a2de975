"""docs/explanation/the-book.md and the repository agree: tests show what is there, and what is missing is not there.

That the named tests exist is seen to by test_repository.py, as for every link between documents.
"""

import re

import pytest

CHAPTERS = 16
CHAPTER = re.compile(r"^## (\d+)\. (.+)$", re.MULTILINE)
TEST = re.compile(r'\]\([^)]+ "test_\w+"\)')
MISSING, LEFT_OUT, UNTESTED = "not there yet", "left out: ", ("no test ", "not tested")
PLACE = re.compile(r"`([\w./-]+)`")


@pytest.fixture(scope="module")
def page(root) -> str:
    return str((root / "docs/explanation/the-book.md").read_text())


@pytest.fixture(scope="module")
def rows(page) -> list[list[str]]:
    """Practice, place and proof of each row."""
    lines = [line for line in page.splitlines() if re.match(r"\| (?!practice |---)", line)]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]


def test_every_chapter_is_there_and_has_practices(page):
    numbers = [int(number) for number, _ in CHAPTER.findall(page)]
    assert numbers == list(range(1, CHAPTERS + 1))
    parts = CHAPTER.split(page)[3::3]
    assert [number for number, part in zip(numbers, parts, strict=True) if part.count("\n| ") < 3] == []


def test_each_practice_is_shown_by_a_test_or_says_why_not(rows):
    assert len(rows) > 60
    assert [row for row in rows if len(row) != 3] == []
    assert len({row[0] for row in rows}) == len(rows)
    silent = [
        practice
        for practice, _, proof in rows
        if not (TEST.search(proof) or proof.startswith((MISSING, LEFT_OUT)) or any(word in proof for word in UNTESTED))
    ]
    assert silent == []


def test_what_is_not_there_yet_is_not_there(root, rows):
    missing = {practice: PLACE.findall(place) for practice, place, proof in rows if proof.startswith(MISSING)}
    assert missing
    assert {practice for practice, places in missing.items() if len(places) != 1} == set(), "each names its place to be"
    there = {practice for practice, places in missing.items() if any((root / place).exists() for place in places)}
    assert there == set(), "it is there by now: name the tests that show it"


def test_every_service_has_its_place_in_the_book(root, page):
    services = {path.parent.name for path in root.glob("services/*/pyproject.toml")}
    assert {name for name in services if f"[{name}](../../services/{name})" not in page} == set()
