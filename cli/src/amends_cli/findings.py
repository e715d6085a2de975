"""Shows findings to people: where, what, how to mend it, the source line with a caret. Called by check and apply."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import typer

from amends_cli.output import Format, emit

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


def show(findings: Sequence["Finding"], form: Format, *, summary: str) -> None:
    """Prints all findings, then on tables one line that sums them up."""
    if emit([as_data(finding) for finding in findings], form):
        return
    for finding in findings:
        _show_one(finding)
    errors = sum(finding.is_error for finding in findings)
    warnings = len(findings) - errors
    if findings:
        counts = (_count(errors, "error"), _count(warnings, "warning"))
        summary = f"{', '.join(filter(None, counts))} in {summary}"
    else:
        summary = f"ok: {summary}"
    typer.secho(summary, fg="red" if errors else "yellow" if warnings else "green")


def _show_one(finding: "Finding") -> None:
    place = finding.place
    where = ":".join(str(part) for part in (place.source, place.line, place.column) if part)
    typer.secho(f"{where}: " if where else "", bold=True, nl=False)
    typer.secho(f"{finding.severity}[{finding.code}]", fg=COLOURS[finding.severity], nl=False)
    typer.echo(f": {finding.message}")
    if place.excerpt and place.line:
        number = str(place.line)
        typer.echo(f"  {number} | {place.excerpt}")
        if place.column:
            # Tabs stay tabs under tabs, or the caret would point elsewhere.
            lead = "".join("\t" if character == "\t" else " " for character in place.excerpt[: place.column - 1])
            typer.secho(f"  {' ' * len(number)} | {lead}{'^' * max(1, place.width)}", fg=COLOURS[finding.severity])
    if finding.hint:
        typer.echo(f"  help: {finding.hint}")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}" if number else ""


def plural(counts: Iterable[tuple[int, str]]) -> str:
    """`1 saga, 3 participants` of (1, saga), (3, participant); what is not there is left out."""
    return ", ".join(_count(number, what) for number, what in counts if number) or "nothing"
