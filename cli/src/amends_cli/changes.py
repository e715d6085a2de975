"""The differences between a resource in force and one in a file, in the resource's words. Pure; called by `diff`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

MISSING = "(none)"
OWN = frozenset({"suspend"})
"""Fields of Kubernetes alone: the orchestrator does not know them."""


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One field that differs between two versions of a resource."""

    step: str
    """Empty for a field of the whole."""
    field: str
    """E.g. `call`, `compensate.request`; empty when the whole step is new or gone."""
    before: Any
    after: Any

    def as_data(self) -> dict[str, Any]:
        """Return the change as JSON."""
        return {"step": self.step, "field": self.field, "before": self.before, "after": self.after}


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[FieldChange]:
    """Return the differences between two specs of one kind: fields first, then steps in the order of the new one."""
    return [*_fields("", _without_steps(before), _without_steps(after)), *_steps(before, after)]


def _without_steps(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in spec.items() if name not in ("steps", "afterPivot", *OWN)}


def _steps(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[FieldChange]:
    old, new = _by_name(before), _by_name(after)
    for name in (*new, *(gone for gone in old if gone not in new)):
        if name in old and name in new:
            yield from _fields(name, old[name], new[name])
        else:
            yield FieldChange(name, "", old.get(name), new.get(name))


def _by_name(spec: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the steps by name, each with what it follows written out: a step that silently moved has changed."""
    found: dict[str, dict[str, Any]] = {}
    above: list[str] = []
    for step in spec.get("steps") or []:
        if isinstance(step, dict) and isinstance(step.get("name"), str):
            found[step["name"]] = {"after": above, **step}
            above = [step["name"]]
    for step in spec.get("afterPivot") or []:
        if isinstance(step, dict) and isinstance(step.get("name"), str):
            found[step["name"]] = {**step, "afterPivot": True}
    return found


def _fields(step: str, before: Mapping[str, Any], after: Mapping[str, Any], path: str = "") -> Iterator[FieldChange]:
    for name in (*after, *(gone for gone in before if gone not in after)):
        old, new = _plain(before.get(name)), _plain(after.get(name))
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _fields(step, old, new, f"{path}{name}.")
        else:
            yield FieldChange(step, f"{path}{name}", old, new)


def _plain(value: Any) -> Any:
    """Return a value without what does not count: how an expression is broken into lines."""
    return " ".join(value.split()) if isinstance(value, str) else value


def tell(change: FieldChange) -> list[str]:
    """Describe a change for people, in one to three lines."""
    if not change.field:
        if change.before is None:
            return [f"+ step {change.step}: {change.after.get('call', '')}".rstrip(": ")]
        return [f"- step {change.step}: {change.before.get('call', '')}".rstrip(": ")]
    where = f"{change.step}.{change.field}" if change.step else change.field
    return [f"~ {where}", f"    - {_short(change.before)}", f"    + {_short(change.after)}"]


def _short(value: Any) -> str:
    if value is None:
        return MISSING
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return f"[{', '.join(value)}]"
    return str(value)
