"""Shows what the checker says in conditions and statuses: code, line and the way to mend it.

Excerpts and names in findings are texts of others, so they are escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from amends_chassis.text import escape

from amends.saga.v1 import definition_service_pb2 as pb

REASONS = {
    "AM020": "ParticipantNotFound",
    "AM021": "ParticipantConflict",
    "AM022": "NotGranted",
    "AM023": "MethodNotAllowed",
    "AM024": "ServiceForbidden",
    "AM025": "DescriptorsNotKnown",
    "AM026": "DescriptorsBroken",
    "AM027": "DescriptorsConflict",
    "AM028": "ServiceNotFound",
    "AM029": "MethodNotFound",
    "AM032": "MessageNotFound",
    "AM080": "PolicyConflict",
    "AM090": "EventNotFound",
}
"""Codes that speak of something outside of the resource: it may come right without being changed."""
MOST = 50
_SHOWN = 5
_LONGEST = 2000


def errors_of(findings: Iterable[pb.Finding]) -> list[pb.Finding]:
    """Return the findings that refuse the resource."""
    return [finding for finding in findings if finding.severity == pb.SEVERITY_ERROR]


def unresolved(findings: Iterable[pb.Finding]) -> list[pb.Finding]:
    """Return the errors about something outside of the resource."""
    return [finding for finding in errors_of(findings) if finding.code in REASONS]


def reason_of(findings: Sequence[pb.Finding]) -> str:
    """Return one word for the first error: what is missing, or that the check failed."""
    first = findings[0]
    if first.excerpt.strip().startswith("target:"):
        return "TargetRefused"
    return REASONS.get(first.code, "CheckFailed")


def condition_message(findings: Sequence[pb.Finding]) -> str:
    """Return the first findings for a condition's message, one to a line."""
    lines = [_line(finding) for finding in findings[:_SHOWN]]
    if len(findings) > _SHOWN:
        lines.append(f"and {len(findings) - _SHOWN} more, see status.findings")
    return "\n".join(lines)


def _line(finding: pb.Finding) -> str:
    place = f" line {finding.line}" if finding.line else ""
    excerpt = f" ({finding.excerpt.strip()[:120]})" if finding.excerpt.strip() else ""
    return escape(f"{finding.code}{place}{excerpt}: {finding.message} {finding.hint}".rstrip())


def status_entries(findings: Iterable[pb.Finding]) -> list[dict[str, Any]]:
    """Return the findings for the status, at most MOST."""
    found = []
    for finding in list(findings)[:MOST]:
        entry: dict[str, Any] = {
            "code": finding.code,
            "severity": "Error" if finding.severity == pb.SEVERITY_ERROR else "Warning",
            "message": escape(finding.message)[:_LONGEST],
            "hint": escape(finding.hint)[:_LONGEST],
            "line": finding.line,
            "column": finding.column,
            "excerpt": escape(finding.excerpt)[:_LONGEST],
        }
        found.append({name: value for name, value in entry.items() if value})
    return found
