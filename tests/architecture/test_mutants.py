"""The mistakes that `make mutants` makes are those that it says, each alone, and nothing else of the file changes."""

import ast
import tomllib

import pytest
from mutants.changes import changes
from mutants.command import ACCEPTED, _mutants
from mutants.targets import ROOT, TARGETS

SOURCE = '''
_CLAIM = """UPDATE run SET fence = fence + 1
WHERE owner IS NULL AND due_at <= now()
ORDER BY id FOR UPDATE SKIP LOCKED"""


class Guard:
    def free(self, count):
        if self.closed and not count:
            self.wait()
            log.info("waiting")
        return self._replace(left=count - 1, used=0)
'''


@pytest.mark.parametrize(
    "name",
    [
        "_CLAIM: fence + 1 -> fence",
        "_CLAIM: AND due_at <= now() -> (nothing)",
        "_CLAIM: <= -> <",
        "_CLAIM: IS NULL -> IS NOT NULL",
        "_CLAIM: FOR UPDATE SKIP LOCKED -> (nothing)",
        "_CLAIM: SKIP LOCKED -> (nothing)",
        "Guard.free: self.closed and not count -> (self.closed or not count)",
        "Guard.free: not count -> count",
        "Guard.free: self.wait() -> pass",
        "Guard.free: count - 1 -> (count + 1)",
        "Guard.free: _replace without left",
        "Guard.free: _replace without used",
    ],
)
def test_a_mistake_is_found_by_its_name(name):
    found = {" ".join(change.name.split()) for change in changes(SOURCE)}
    assert name in found, "\n".join(sorted(found))


def test_what_only_tells_somebody_something_is_left_alone():
    assert not [change for change in changes(SOURCE) if "log.info" in change.name]


def test_a_mistake_changes_its_place_and_nothing_else():
    for change in changes(SOURCE):
        after = change.apply(SOURCE)
        assert after != SOURCE
        assert after.startswith(SOURCE[: change.start])
        assert after.endswith(SOURCE[change.end :])
        ast.parse(after)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_every_target_has_code_and_tests(target):
    assert target.files()
    assert all((ROOT / test).exists() for test in target.tests)
    modules = {file.stem for file in target.files()}
    for module, tests in target.own:
        assert module in modules
        assert all((ROOT / test).exists() for test in tests), module


def test_what_is_accepted_is_a_mistake_that_can_be_made_and_has_a_reason():
    names = {mutant.name for target in TARGETS for mutant in _mutants(target)}
    for accepted in tomllib.loads(ACCEPTED.read_text())["accepted"]:
        assert accepted["change"] in names
        assert accepted["reason"]
