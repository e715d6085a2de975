"""Every code has a wrong definition that it alone refuses, and a right one that looks alike and is accepted."""

from pathlib import Path
from types import ModuleType

import pytest
import yaml
from amends_saga import codes
from amends_saga.findings import Severity

EXAMPLES = Path(__file__).parents[1] / "reference" / "examples.yaml"
CODES = sorted(yaml.safe_load(EXAMPLES.read_text()))


def test_every_code_has_examples() -> None:
    assert sorted(codes.ALL) == CODES


@pytest.mark.parametrize("code", CODES)
def test_the_wrong_example_is_refused_for_this_reason_alone(reference: ModuleType, code: str) -> None:
    example = next(example for example in reference.examples() if example.code == code)
    findings = reference.run(example.wrong, unknown=example.unknown).findings
    errors = {finding.code for finding in findings if finding.is_error}
    if codes.ALL[code].severity is Severity.ERROR:
        assert errors == {code}
    else:
        assert not errors
        assert code in {finding.code for finding in findings}


@pytest.mark.parametrize("code", CODES)
def test_the_right_example_is_accepted(reference: ModuleType, code: str) -> None:
    example = next(example for example in reference.examples() if example.code == code)
    result = reference.run(example.right)
    assert result.ok
    assert code not in {finding.code for finding in result.findings}


def test_the_page_is_up_to_date(reference: ModuleType) -> None:
    assert reference.PAGE.read_text() == reference.page()


def test_every_finding_of_the_examples_says_where_what_and_how_to_mend_it(reference: ModuleType) -> None:
    for example in reference.examples():
        for finding in reference.run(example.wrong, unknown=example.unknown).findings:
            assert finding.place.line > 0, finding
            assert finding.place.column > 0, finding
            assert finding.message.endswith((".", "?")), finding
            assert finding.hint.endswith((".", "?", '"', "}")), finding


def test_codes_never_change_their_meaning() -> None:
    """A snapshot: adding a line is fine, changing or removing one breaks whoever suppresses a code."""
    warnings = {"AM005", "AM014", "AM057", "AM058", "AM068", "AM071", "AM073"}
    warnings |= {"AM081", "AM082", "AM083", "AM084", "AM086", "AM104", "AM108"}
    found = {code for code, item in codes.ALL.items() if item.severity is Severity.WARNING}
    assert found == warnings
    assert len(codes.ALL) >= 86
