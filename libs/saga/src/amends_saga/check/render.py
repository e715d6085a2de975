"""Renders findings and figures: as text with the source line and a caret, as JSON, and as SARIF for code scanning.

Called by the CLI and by CI; the orchestrator sends findings as messages and does not need this.
"""

from collections.abc import Sequence
from typing import Any

from amends_resilience.durations import format_duration

from amends_saga import codes
from amends_saga.check.choreographies import ChoreographyCheck
from amends_saga.check.figures import SagaFigures, product
from amends_saga.findings import Finding, Severity

WIDTH = 120
REFERENCE = "docs/reference/checker.md"


def text(findings: Sequence[Finding]) -> str:
    """Return the findings in the form of a compiler's output, with blank lines between; empty without findings."""
    return "\n".join(_one(finding) for finding in findings)


def summary(findings: Sequence[Finding]) -> str:
    """Return one line such as `2 errors, 1 warning`, or `No findings`."""
    counts = [(sum(f.severity is severity for f in findings), severity.value) for severity in Severity]
    parts = [f"{count} {word}{'s' if count != 1 else ''}" for count, word in counts if count]
    return ", ".join(parts) or "No findings"


def _one(finding: Finding) -> str:
    place = finding.place
    at = ":".join(str(part) for part in (place.source, place.line, place.column) if part)
    lines = [f"{at}: {finding.severity.value} {finding.code}: {finding.message}"]
    if place.line and place.excerpt:
        excerpt, column = _window(place.excerpt, place.column)
        number = str(place.line)
        caret = " " * (column - 1) + "^" * max(1, min(place.width, len(excerpt) - column + 1))
        lines += [f"{' ' * len(number)} |", f"{number} | {excerpt}", f"{' ' * len(number)} | {caret}"]
    lines.append(f"{' ' * len(str(place.line))} = {finding.hint}")
    return "\n".join(lines) + "\n"


def _window(excerpt: str, column: int) -> tuple[str, int]:
    """Return the part of a long line that holds the column, printable, and the column in it."""
    printable = "".join(char if char.isprintable() else " " for char in excerpt.expandtabs(1))
    column = max(1, min(column, len(printable) + 1))
    if len(printable) <= WIDTH:
        return printable, column
    start = max(0, min(column - 1 - WIDTH // 2, len(printable) - WIDTH))
    head = "…" if start else ""
    tail = "…" if start + WIDTH < len(printable) else ""
    return head + printable[start : start + WIDTH] + tail, column - start + len(head)


def as_json(findings: Sequence[Finding], figures: Sequence[SagaFigures]) -> dict[str, Any]:
    """Return findings and figures as plain data; durations in seconds."""
    return {
        "findings": [
            {
                "code": finding.code,
                "severity": finding.severity.value,
                "title": codes.ALL[finding.code].title,
                "message": finding.message,
                "hint": finding.hint,
                "source": finding.place.source,
                "line": finding.place.line,
                "column": finding.place.column,
                "excerpt": finding.place.excerpt,
                "width": finding.place.width,
            }
            for finding in findings
        ],
        "errors": sum(finding.is_error for finding in findings),
        "warnings": sum(not finding.is_error for finding in findings),
        "figures": [_figures_json(figure) for figure in figures],
    }


def _figures_json(figures: SagaFigures) -> dict[str, Any]:
    return {
        "namespace": figures.namespace,
        "saga": figures.saga,
        "deadline_seconds": figures.deadline.total_seconds() if figures.deadline is not None else None,
        "worst_case_seconds": figures.worst_case.total_seconds(),
        "worst_path": list(figures.worst_path),
        "whole_worst_case_seconds": figures.whole_worst_case.total_seconds(),
        "required_input": list(figures.required_input),
        "steps": [
            {
                "name": step.name,
                "method": step.method,
                "kind": step.kind,
                "position": step.position,
                "attempts": step.attempts,
                "timeout_seconds": step.timeout.total_seconds() if step.timeout is not None else None,
                "worst_case_seconds": step.worst_case.total_seconds() if step.worst_case is not None else None,
                "compensation": step.compensation,
                "compensation_kind": step.compensation_kind,
                "calls_at_most": product(step.amplification),
                "layers": list(step.amplification),
            }
            for step in figures.steps
        ],
    }


def figures_table(figures: SagaFigures) -> tuple[list[str], list[list[str]]]:
    """Return headings and rows of a saga's figures, one row for each step."""
    headings = ["step", "calls", "promise", "attempts", "worst case", "calls at most", "undone by"]
    rows = []
    for step in figures.steps:
        short = step.method.rpartition(".")[2]
        undo = step.compensation.rpartition(".")[2]
        mark = {
            "pivot": "the point of no return",
            "after": "goes forward only",
            "amendment": "only when a person says so",
        }.get(step.position, "")
        layers = " × ".join(str(attempts) for attempts in step.amplification)
        total = f"{layers} = {product(step.amplification)}" if len(step.amplification) > 1 else layers
        rows.append(
            [
                step.name,
                short,
                step.kind,
                str(step.attempts) if step.attempts is not None else "?",
                format_duration(step.worst_case) if step.worst_case is not None else "?",
                total or "?",
                f"{undo} ({step.compensation_kind})" if undo else mark or "nothing to undo",
            ]
        )
    return headings, rows


def figures_line(figures: SagaFigures) -> str:
    """Return the figures of a saga in one line."""
    deadline = format_duration(figures.deadline) if figures.deadline is not None else "none"
    calls = max((product(step.amplification) for step in figures.steps), default=1)
    return (
        f"{figures.namespace}/{figures.saga}: at worst {format_duration(figures.worst_case)} to the point of no return "
        f"(deadline: {deadline}), {format_duration(figures.whole_worst_case)} to the end; one call may become {calls}"
    )


def choreography_line(check: ChoreographyCheck) -> str:
    """Return in one line what was proven of a choreography without errors."""
    plan = check.plan
    assert plan is not None
    return (
        f"{plan.namespace}/{plan.name}: every path ends, and what ends undone is undone; "
        f"{len(plan.events)} events can have come in {check.states:,} ways"
    )


def figures_lines(figures: SagaFigures) -> list[str]:
    """Return the figures that belong to the whole saga, as sentences."""
    deadline = format_duration(figures.deadline) if figures.deadline is not None else "none"
    path = " → ".join(figures.worst_path) or "nothing"
    lines = [
        f"Until the point of no return: {format_duration(figures.worst_case)} at worst, along {path}; "
        f"the deadline is {deadline}.",
        f"To the end: {format_duration(figures.whole_worst_case)} at worst, if every step answers within its policy.",
    ]
    if figures.required_input:
        lines.append(f"The input must hold: {', '.join(figures.required_input)}.")
    return lines


def sarif(findings: Sequence[Finding], version: str = "0.1.0") -> dict[str, Any]:
    """Return the findings as SARIF 2.1.0."""
    used = sorted({finding.code for finding in findings})
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "amends",
                        "version": version,
                        "rules": [_sarif_rule(codes.ALL[code]) for code in used],
                    }
                },
                "columnKind": "unicodeCodePoints",
                "results": [_sarif_result(finding, used.index(finding.code)) for finding in findings],
            }
        ],
    }


def _sarif_rule(code: codes.Code) -> dict[str, Any]:
    return {
        "id": code.id,
        "name": "".join(word.capitalize() for word in code.title.replace("-", " ").split() if word.isalnum()),
        "shortDescription": {"text": code.title},
        "fullDescription": {"text": code.why},
        "defaultConfiguration": {"level": code.severity.value},
        "help": {"text": f"{code.why} See {REFERENCE}."},
    }


def _uri(source: str) -> str:
    """Return the URI reference of a file: relative to where the command ran, as code scanning wants it."""
    from urllib.parse import quote  # only this form needs it

    return quote(source.replace("\\", "/").removeprefix("./"), safe="/~", errors="replace")


def _sarif_result(finding: Finding, index: int) -> dict[str, Any]:
    place = finding.place
    region: dict[str, Any] = {}
    if place.line:
        region = {"startLine": place.line, "startColumn": max(1, place.column)}
        region["endColumn"] = region["startColumn"] + place.width
        region["snippet"] = {"text": place.excerpt}
    location: dict[str, Any] = {"artifactLocation": {"uri": _uri(place.source)}}
    if region:
        location["region"] = region
    return {
        "ruleId": finding.code,
        "ruleIndex": index,
        "level": finding.severity.value,
        "message": {"text": f"{finding.message} {finding.hint}"},
        "locations": [{"physicalLocation": location}],
    }
