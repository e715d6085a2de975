"""Conditions and statuses as values: what is to be written, and what of it is new. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

LONGEST_MESSAGE = 8_000


@dataclass(frozen=True, slots=True)
class Condition:
    """One aspect of the state. `holds` None is Unknown."""

    type: str
    holds: bool | None
    reason: str
    message: str = ""

    @property
    def status(self) -> str:
        """Return the status as Kubernetes writes it."""
        return "Unknown" if self.holds is None else str(self.holds)


def condition_of(shown: Mapping[str, Any]) -> Condition:
    """Return a condition as a status shows it."""
    holds = {"True": True, "False": False}.get(shown["status"])
    return Condition(shown["type"], holds, shown["reason"], shown["message"])


def stamp(at: datetime) -> str:
    """Return a time as Kubernetes writes it, to the second."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def conditions(
    former: Iterable[Mapping[str, Any]], wanted: Iterable[Condition], generation: int, now: datetime
) -> list[dict[str, Any]]:
    """Return the conditions to write; the time of a transition changes with the status alone."""
    before = {condition["type"]: condition for condition in former}
    shown = []
    for condition in wanted:
        old = before.get(condition.type)
        same = old is not None and old.get("status") == condition.status
        shown.append(
            {
                "type": condition.type,
                "status": condition.status,
                "reason": condition.reason,
                "message": condition.message[:LONGEST_MESSAGE],
                "observedGeneration": generation,
                "lastTransitionTime": old["lastTransitionTime"] if same and old is not None else stamp(now),
            }
        )
    return shown


def transitions(former: Iterable[Mapping[str, Any]], wanted: Iterable[Condition]) -> list[Condition]:
    """Return the conditions whose status or reason has changed: what an event is for."""
    before = {condition["type"]: (condition.get("status"), condition.get("reason")) for condition in former}
    return [condition for condition in wanted if before.get(condition.type) != (condition.status, condition.reason)]


def difference(current: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return the merge patch that makes `wanted` of `current`, empty when nothing is to be written.

    Objects within are merged by the server, so what vanished from them is named, too.
    """
    patch: dict[str, Any] = {}
    for name, value in wanted.items():
        old = current.get(name)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            inner = difference(old, value)
            if inner:
                patch[name] = inner
        elif old != value:
            patch[name] = value
    for name in current:
        if name not in wanted:
            patch[name] = None
    return patch
