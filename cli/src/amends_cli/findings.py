"""Findings of the orchestrator or the checker, for people and for programs. Called by check and apply."""

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from amends_saga.findings import Finding

    from amends.saga.v1.definition_service_pb2 import Finding as FindingMessage

COLOURS = {"error": "red", "warning": "yellow"}


def from_message(message: "FindingMessage") -> "Finding":
    """A finding as the orchestrator sends it."""
    from amends_saga.findings import Finding, Place, Severity

    from amends.saga.v1 import definition_service_pb2 as api

    severity = Severity.WARNING if message.severity == api.SEVERITY_WARNING else Severity.ERROR
    place = Place(message.source, message.line, message.column, message.excerpt)
    return Finding(message.code, severity, message.message, message.hint, place)


def as_data(finding: "Finding") -> dict[str, Any]:
    """A finding as JSON, with the API's field names."""
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
    }


def show(findings: Sequence["Finding"], *, summary: str) -> None:
    """Prints all findings for people, then one line that sums them up."""
    from amends_saga.check import render  # only when there is something to show

    if findings:
        typer.echo(_coloured(render.text(findings)))
    errors = sum(finding.is_error for finding in findings)
    said = f"{render.summary(findings)} in {summary}" if findings else f"ok: {summary}"
    typer.secho(said, fg=COLOURS["error"] if errors else COLOURS["warning"] if findings else "green")


def _coloured(text: str) -> str:
    """The severities in their colours; typer takes them out again where the output is no terminal."""
    return re.sub(
        r"^(\S.*?: )(error|warning)( AM\d+:)",
        lambda found: found[1] + typer.style(found[2] + found[3], fg=COLOURS[found[2]]),
        text,
        flags=re.MULTILINE,
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}" if number else ""


def plural(counts: Iterable[tuple[int, str]]) -> str:
    """`1 saga, 3 participants` of (1, saga), (3, participant); what is not there is left out."""
    return ", ".join(_count(number, what) for number, what in counts if number) or "nothing"
