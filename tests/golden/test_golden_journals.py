"""Journals of every released version replay to the same state and the same commands, for ever."""

import base64
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from amends_saga.engine import UnreadableJournalError
from amends_saga.journal import RULES_VERSION
from amends_testkit.engine.golden import expected

from amends.saga.v1 import journal_pb2 as pb

JOURNALS = Path(__file__).parent / "journals"
FILES = sorted(JOURNALS.glob("*/*.json"))
RECORDS = [name for name in pb.JournalRecord.DESCRIPTOR.fields_by_name if name != "at"]


def load(file: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return data


@pytest.fixture
def some_journal() -> dict[str, Any]:
    return load(JOURNALS / "v0.1" / "ok.json")


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_a_golden_journal_replays_to_the_same_state_and_the_same_commands(file: Path) -> None:
    data = load(file)
    for length, known in enumerate(data["expected"], 1):
        assert expected(data, length) == known, f"after {length} records"


def test_no_golden_journal_was_edited_or_taken_away() -> None:
    lines = (JOURNALS / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    listed = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    found = {str(file.relative_to(JOURNALS)): sha256(file.read_bytes()).hexdigest() for file in JOURNALS.glob("*/*")}
    assert found == listed


def test_golden_journals_hold_every_kind_of_record() -> None:
    kinds = set()
    for file in FILES:
        for record in load(file)["records"]:
            kinds.add(pb.JournalRecord.FromString(base64.b64decode(record["record"])).WhichOneof("event"))
    assert kinds == set(RECORDS)


def test_a_record_of_a_kind_that_is_newer_is_refused(some_journal: dict[str, Any]) -> None:
    newer = pb.JournalRecord().SerializeToString() + b"\xf2\x07\x02hi"
    some_journal["records"][2]["record"] = base64.b64encode(newer).decode()
    with pytest.raises(UnreadableJournalError, match="record 3 was written by a newer version"):
        expected(some_journal, 3)


def test_a_journal_of_newer_rules_is_refused(some_journal: dict[str, Any]) -> None:
    some_journal["rules"] = RULES_VERSION + 1
    with pytest.raises(UnreadableJournalError, match=f"rules {RULES_VERSION + 1}"):
        expected(some_journal, 1)


def test_a_journal_that_lost_a_record_is_refused(some_journal: dict[str, Any]) -> None:
    del some_journal["records"][1]
    with pytest.raises(UnreadableJournalError, match="record 3 follows record 1"):
        expected(some_journal, 2)


def test_a_changed_record_changes_what_is_made_of_it(some_journal: dict[str, Any]) -> None:
    record = pb.JournalRecord.FromString(base64.b64decode(some_journal["records"][1]["record"]))
    record.answered.outcome = pb.OUTCOME_REJECTED
    some_journal["records"][1]["record"] = base64.b64encode(record.SerializeToString()).decode()
    assert expected(some_journal, 2) != some_journal["expected"][1]
