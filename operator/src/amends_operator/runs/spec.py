"""Checks a SagaRun's spec again after the API server has let it through. Pure.

The schema says the same, and refuses first; an API server whose schema is older, or was edited, must not make anything
run that it should not. Definitions are asked by the orchestrator's checker.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from amends_chassis.text import escape

from amends_operator.runs.values import UID_KEY, positive_duration

_SAGA = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_LONGEST = 1000
_LONGEST_KEY = 255
Check = Callable[[Any], bool]


def _text(value: Any) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= _LONGEST


def _mapping(value: Any) -> bool:
    return isinstance(value, Mapping)


def _seq(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _duration(value: Any) -> bool:
    return positive_duration(value) is not None


def _key(value: Any) -> bool:
    return _text(value) and len(value) <= _LONGEST_KEY and value.isprintable() and not value.startswith(UID_KEY)


def _one_of(*names: str) -> Check:
    return lambda value: isinstance(value, str) and value in names


_SPEC: dict[str, tuple[Check, str]] = {
    "saga": (lambda value: isinstance(value, str) and _SAGA.fullmatch(value) is not None, "the name of a Saga"),
    "key": (_key, f"1 to {_LONGEST_KEY} printable characters, and cannot begin with {UID_KEY}"),
    "input": (_mapping, "a mapping"),
    "suspend": (lambda value: isinstance(value, bool), "true or false"),
    "ttlAfterEnd": (_duration, "a duration of more than zero and at most a hundred years, e.g. 24h"),
    "onDeletion": (_one_of("Compensate", "Abandon"), "Compensate or Abandon"),
    "resolution": (_mapping, "a mapping"),
}
_RESOLUTION: dict[str, tuple[Check, str]] = {
    "action": (_one_of("Retry", "Skip", "Compensate", "Amend", "Park"), "Retry, Skip, Compensate, Amend or Park"),
    "reason": (_text, "a text"),
    "actor": (_text, "a text"),
    "expectedSeq": (_seq, "a number from 0"),
    "effect": (_one_of("Happened", "None"), "Happened or None"),
    "result": (_mapping, "a mapping"),
    "amendment": (_text, "a text"),
}


def problems_of(spec: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with a spec, a sentence each."""
    found = _problems("spec", spec, _SPEC, required=("saga",))
    resolution = spec.get("resolution")
    if isinstance(resolution, Mapping):
        found += resolution_problems(resolution)
    return found


def resolution_problems(resolution: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with a decision in the spec."""
    found = _problems("spec.resolution", resolution, _RESOLUTION, ("action", "reason", "actor", "expectedSeq"))
    if (resolution.get("action") == "Amend") != (resolution.get("amendment") is not None):
        found.append("spec.resolution: Amend needs the name of an amendment, and no other action takes one")
    return found


def _problems(
    where: str, given: Mapping[str, Any], known: Mapping[str, tuple[Check, str]], required: tuple[str, ...]
) -> list[str]:
    found = [f"{where}.{name} is missing" for name in required if given.get(name) is None]
    for name, value in given.items():
        if name not in known:
            found.append(f"{where}.{escape(str(name))} is no field")
        elif value is not None and not known[name][0](value):
            found.append(f"{where}.{name} must be {known[name][1]}")
    return found
