import json
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType

from amends_saga import codes
from amends_saga.check import CheckResult
from amends_saga.check.render import as_json, figures_lines, figures_table, sarif, summary, text
from amends_saga.findings import Finding, Place, Severity

Check = Callable[..., CheckResult]
WRONG = """- name: book
  call: demo.v1.Shipping/Book
  request: "BookRequest{order_id: input.oder_id}"
"""


def test_a_finding_is_shown_like_a_compiler_would(demo: Check) -> None:
    assert text(demo(WRONG).findings) == (
        "saga.yaml:10:45: error AM061: `demo.v1.Input` has no field `oder_id`.\n"
        "   |\n"
        '10 |       request: "BookRequest{order_id: input.oder_id}"\n'
        "   |                                             ^^^^^^^\n"
        "   = Did you mean `order_id`?\n"
    )


def test_a_long_line_is_cut_around_the_caret(demo: Check) -> None:
    shown = text(demo(WRONG.replace("BookRequest{", "BookRequest{note: '" + "x" * 300 + "', ")).findings)
    source, caret = shown.splitlines()[2:4]
    assert len(source) < 140
    assert source[caret.index("^") :].startswith("oder_id")


def test_characters_that_would_move_the_terminal_are_not_printed() -> None:
    place = Place("a", 1, 3, "a\x1b[31mb\tc", 1)
    shown = text([Finding("AM001", Severity.ERROR, "m", "h", place)])
    assert "\x1b" not in shown
    assert shown.splitlines()[3].index("^") == len("1 | ") + 2


def test_the_summary_counts(demo: Check) -> None:
    assert summary(demo(WRONG).findings) == "1 error"
    assert summary([]) == "No findings"
    both = demo(WRONG.replace("BookRequest{", "BookRequest{grams: input.weight, note: input.token, ")).findings
    assert summary(both) == "1 error"


def test_json_holds_findings_and_figures(demo: Check) -> None:
    result = demo(WRONG)
    data = json.loads(json.dumps(as_json(result.findings, result.figures)))
    assert data["errors"] == 1
    assert data["findings"][0]["code"] == "AM061"
    assert data["findings"][0]["line"] == 10
    assert data["figures"][0]["steps"][0]["method"] == "demo.v1.Shipping/Book"
    assert data["figures"][0]["deadline_seconds"] == 300


def test_sarif_names_the_rule_and_the_place(demo: Check) -> None:
    run = sarif(demo(WRONG).findings)["runs"][0]
    [result] = run["results"]
    assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"] == "AM061"
    location = result["locations"][0]["physicalLocation"]
    assert location["artifactLocation"]["uri"] == "saga.yaml"
    assert (location["region"]["startLine"], location["region"]["startColumn"]) == (10, 45)
    assert location["region"]["endColumn"] == 52


def test_sarif_names_files_as_uris(demo: Check) -> None:
    finding = demo(WRONG).findings[0]
    names = {"./a/b.yaml": "a/b.yaml", "my file #1 ü.yaml": "my%20file%20%231%20%C3%BC.yaml", "a:b.yaml": "a%3Ab.yaml"}
    for name, uri in names.items():
        moved = replace(finding, place=replace(finding.place, source=name))
        [result] = sarif([moved])["runs"][0]["results"]
        assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == uri


def test_the_sarif_of_every_example_keeps_to_its_schema(reference: ModuleType) -> None:
    """What the schema of SARIF 2.1.0 asks of the properties that are used."""
    for example in reference.examples():
        [run] = sarif(reference.run(example.wrong, unknown=example.unknown).findings)["runs"]
        rules = run["tool"]["driver"]["rules"]
        assert len({rule["id"] for rule in rules}) == len(rules)
        for rule in rules:
            assert rule["name"].isalnum()
            assert rule["shortDescription"]["text"]
            assert rule["defaultConfiguration"]["level"] in ("error", "warning")
        for result in run["results"]:
            assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
            assert result["message"]["text"]
            region = result["locations"][0]["physicalLocation"]["region"]
            assert region["startLine"] >= 1
            assert 1 <= region["startColumn"] < region["endColumn"]
            assert region["endColumn"] <= len(region["snippet"]["text"]) + 2


def test_the_figures_are_a_table_with_a_row_for_each_step(demo: Check) -> None:
    [figures] = demo(WRONG.replace("oder", "order")).figures
    headings, rows = figures_table(figures)
    assert [len(row) for row in rows] == [len(headings)]
    assert rows[0][:4] == ["book", "Shipping/Book", "guarded", "4"]
    assert rows[0][6] == "the point of no return"
    assert any("deadline is 5m" in line for line in figures_lines(figures))


def test_every_code_can_be_shown_in_every_form() -> None:
    findings = [Finding(code.id, code.severity, "m.", "h.", Place("a", 0, 0)) for code in codes.ALL.values()]
    assert len(text(findings).splitlines()) >= len(findings)
    assert len(sarif(findings)["runs"][0]["results"]) == len(findings)
    assert len(as_json(findings, [])["findings"]) == len(findings)
