"""What is accepted of the mutants that no test notices is something that can be done to the code as it is now."""

import tomllib

from mutants.changes import changes
from mutants.command import ACCEPTED
from mutants.targets import ROOT


def test_each_accepted_mutant_has_a_reason_and_can_still_be_made() -> None:
    accepted = tomllib.loads(ACCEPTED.read_text())["accepted"]
    assert all(one["reason"].endswith(".") for one in accepted)
    named = [one["change"].partition(": ") for one in accepted]
    made = {file: {change.name for change in changes((ROOT / file).read_text())} for file, _, _ in named}
    assert [(file, change) for file, _, change in named if change not in made[file]] == []
