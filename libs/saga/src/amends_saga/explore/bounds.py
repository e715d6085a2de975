"""The limits of an exploration, and the faults that may happen around the engine.

Retries have no end, so an exploration is complete only within bounds; they are printed with every result.
"""

from dataclasses import dataclass, fields

LONGEST = 12
"""Digits of a bound."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of one exploration."""

    attempts: int = 2
    """Attempts of one call by one owner; the last is answered or counts as exhausted."""
    owners: int = 2
    """Owners that a run has one after the other. Each may stop for ever or go on as a zombie."""
    crashes: int = 2
    """How many owners may lose what they did not wait for."""
    resolutions: int = 1
    """Decisions that a person takes."""
    unanswered: bool = True
    """A call may stay without an answer."""
    late: bool = True
    """A call may arrive after its caller gave up."""
    duplicates: bool = True
    """The wire may deliver a call of a guarded method, or of any method when `plain_duplicates`, twice."""
    plain_duplicates: bool = False
    """No rule protects plain methods from a wire that duplicates; switch on to see their limits."""
    windows: bool = False
    """A late call of a KEYED method may arrive after its window; switch on to see what that leads to."""
    deadline: bool = True
    """The deadline may pass for an owner at any moment."""
    rejections: bool = True
    """Every action may be rejected by its participant."""
    compensation_rejections: bool = True
    """Every compensation may be rejected by its participant."""
    releases: bool = False
    """An owner may let go of a run cleanly."""
    parks: bool = False
    """A person may park a run that waits for another attempt."""
    holds: bool = False
    """A breaker, bulkhead or budget may hold a call back."""
    failures: bool = False
    """The request of one step may fail to be built."""
    states: int = 5_000_000
    """Stop after this many states and say so."""

    @classmethod
    def parse(cls, texts: list[str]) -> "Bounds":
        """Return the bounds with `name=value` texts applied. Raises ValueError that names the mistake."""
        known = {field.name: field.type for field in fields(cls)}
        values: dict[str, int | bool] = {}
        for text in texts:
            name, _, value = text.partition("=")
            if name not in known:
                raise ValueError(f"there is no bound {name!r}; known are {', '.join(known)}")
            values[name] = _value(name, value, flag=known[name] in (bool, "bool"))
        return cls(**values)  # type: ignore[arg-type]

    def text(self) -> str:
        """Return the bounds in one line, for people."""
        shown = []
        for field in fields(self):
            value = getattr(self, field.name)
            name = field.name.replace("_", " ")
            shown.append(f"{name} {'yes' if value else 'no'}" if isinstance(value, bool) else f"{name} {value}")
        return ", ".join(shown)


def _value(name: str, value: str, *, flag: bool) -> int | bool:
    if flag:
        if value not in ("yes", "no"):
            raise ValueError(f"{name} is yes or no, not {value!r}")
        return value == "yes"
    least = 0 if name in ("resolutions", "crashes") else 1
    if not value.isascii() or not value.isdigit() or len(value) > LONGEST or int(value) < least:
        raise ValueError(f"{name} is a whole number of at least {least}, not {value[:40]!r}")
    return int(value)
