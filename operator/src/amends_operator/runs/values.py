"""Small values of runs: their keys, exact JSON, digests, durations. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import timedelta
from typing import Any, TypeGuard

_EXACT = 2**53
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(d|h|ms|us|m|s)")
_WHOLE = re.compile(r"([0-9]{1,9}(\.[0-9]{1,6})?(d|h|ms|us|m|s))+")
_UNITS = {
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
    "us": timedelta(microseconds=1),
}


def run_key(uid: str) -> str:
    """The idempotency key of a SagaRun's run: the same UID never starts a second one."""
    return f"sagarun/{uid}"


def exact(value: Any) -> Any:
    """JSON as google.protobuf.Struct can carry it: whole numbers beyond a double's reach become texts, which the
    canonical JSON of protobuf allows."""
    if isinstance(value, dict):
        return {name: exact(item) for name, item in value.items()}
    if isinstance(value, list):
        return [exact(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > _EXACT:
        return str(value)
    return value


def digest_of(value: Any) -> str:
    """A short digest of JSON, whatever the order of its fields."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]


def is_duration(value: Any) -> TypeGuard[str]:
    """Whether it is a duration of more than zero."""
    return isinstance(value, str) and _WHOLE.fullmatch(value) is not None and duration(value) > timedelta()


def duration(text: str) -> timedelta:
    """A duration that the schema has let through, e.g. `1m30s`."""
    return sum((float(number) * _UNITS[unit] for number, unit in _PART.findall(text)), timedelta())
