"""Findings of the orchestrator or the checker, for people and for programs. Called by check and apply."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from amends_chassis.text import escape

from amends_cli import output

if TYPE_CHECKING:
    from amends_saga.findings import Finding

    from amends.saga.v1.definition_service_pb2 import Finding as FindingMessage

COLOURS = {"error": "red", "warning": "yellow"}


def from_message(message: "FindingMessage") -> "Finding":
    """Return a finding as the checker has it, from the orchestrator's message."""
    from amends_saga.findings import Finding, Place, Severity

    from amends.saga.v1 import definition_service_pb2 as api

    severity = Severity.WARNING if message.severity == api.SEVERITY_WARNING else Severity.ERROR
    # An orchestrator of an earlier version sends no width.
    place = Place(message.source, message.line, message.column, message.excerpt, message.width or 1)
    return Finding(message.code, severity, message.message, message.hint, place)


def as_data(finding: "Finding") -> dict[str, Any]:
    """Return a finding as JSON, with the API's field names."""
    place = finding.place
    return {
        "code": finding.code,
        "severity": str(finding.severity),
        "message": finding.message,
        "hint": finding.hint,
        "source": place.source,
        "line": place.line,
        "column": place.column,
        "excerpt": place.excerpt,
        "width": place.width,
    }


def show(findings: Sequence["Finding"], *, summary: str) -> None:
    """Print all findings for people, then one line that sums them up."""
    from amends_saga.check import render  # only when there is something to show

    for number, finding in enumerate(findings):
        first, *more = render.text([_shown(finding)]).rstrip("\n").split("\n")
        output.line() if number else None
        output.line(*_coloured(first, finding))
        for line in more:
            output.line(line)
    if findings:
        output.line()
    errors = sum(finding.is_error for finding in findings)
    said = f"{render.summary(findings)} in {summary}" if findings else f"ok: {summary}"
    colour = COLOURS["error"] if errors else COLOURS["warning"] if findings else "green"
    output.line(output.Styled(said, colour))


def _shown(finding: "Finding") -> "Finding":
    """Return a finding whose texts, which quote what others wrote, are each of one line."""
    place = replace(finding.place, source=escape(finding.place.source))
    return replace(finding, message=escape(finding.message), hint=escape(finding.hint), place=place)


def _coloured(line: str, finding: "Finding") -> "list[str | output.Styled]":
    """Return the first line of a finding, with its severity and code in their colour."""
    mark = f"{finding.severity.value} {finding.code}:"
    before, found, after = line.partition(mark)
    return [before, output.Styled(found, COLOURS[finding.severity.value]), after]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}" if number else ""


def plural(counts: Iterable[tuple[int, str]]) -> str:
    """`1 saga, 3 participants` of (1, saga), (3, participant); what is not there is left out."""
    return ", ".join(_count(number, what) for number, what in counts if number) or "nothing"
