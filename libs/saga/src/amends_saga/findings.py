"""A finding of the reader or the checker about a definition, and its code.

Made by `definition`, `analysis` and `check`; shown by the renderers of `check`, the CLI and the orchestrator's API.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

MAX_NAMES = 20_000
MAX_NAME = 200
"""No suggestion is looked up for longer names, or among more names."""


class Severity(StrEnum):
    """The severity of a finding."""

    ERROR = "error"
    """The definition is refused."""
    WARNING = "warning"
    """The definition is accepted, but a person should look at it."""


@dataclass(frozen=True, slots=True)
class Code:
    """A rule's identity: the code never changes its meaning and is never used again."""

    id: str
    severity: Severity
    title: str
    why: str


@dataclass(frozen=True, slots=True)
class Place:
    """The position of a finding in the text that a person wrote."""

    source: str
    """The name of the text, e.g. a file's name."""
    line: int = 0
    """From 1; 0 when unknown."""
    column: int = 0
    """In code points, from 1; 0 when unknown."""
    excerpt: str = ""
    """The text of that line."""
    width: int = 1
    """How many characters the caret underlines."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault: what is wrong, how to mend it, and where it is."""

    code: str
    severity: Severity
    message: str
    hint: str
    place: Place

    @property
    def is_error(self) -> bool:
        """Return whether the finding refuses the definition."""
        return self.severity is Severity.ERROR


OnFinding = Callable[[Finding], None]
"""Takes each finding as it is made."""


def has_errors(findings: Iterable[Finding]) -> bool:
    """Return whether any finding refuses the definition."""
    return any(finding.is_error for finding in findings)


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings without repetitions: errors first, then by place and code."""
    rank = {Severity.ERROR: 0, Severity.WARNING: 1}
    unique = dict.fromkeys(findings)
    return sorted(unique, key=lambda f: (rank[f.severity], f.place.source, f.place.line, f.place.column, f.code))


def suggestion(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that was probably meant, None when no name is near."""
    from amends_saga.spelling import nearest  # imported only when there is a mistake

    candidates = sorted(set(known))
    return nearest(name, candidates) if len(candidates) <= MAX_NAMES and len(name) <= MAX_NAME else None


def choices(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """Return a hint for a misspelt name: the nearest one, else all of a short list, else `otherwise`."""
    names = sorted(set(known))
    near = suggestion(name, names)
    if near is not None:
        return f"Did you mean `{near}`?"
    if names and len(names) <= 12:
        return "Use " + (f"`{names[0]}`." if len(names) == 1 else f"one of {', '.join(f'`{n}`' for n in names)}.")
    return otherwise
