"""Small values of runs: their keys, exact JSON, digests, durations. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from amends_resilience.durations import parse_duration

UID_KEY = "sagarun/"
"""What keys that are made of a UID begin with; spec.key may not."""
_EXACT = 2**53


def key_of_run(body: Mapping[str, Any]) -> str:
    """Return the idempotency key of a SagaRun's run: spec.key, or else one that no other object has."""
    given = (body.get("spec") or {}).get("key")
    return given if isinstance(given, str) and given else f"{UID_KEY}{body['metadata']['uid']}"


def exact(value: Any) -> Any:
    """Return JSON as google.protobuf.Struct can carry it.

    Whole numbers beyond a double's reach become texts, which the canonical JSON of protobuf allows.
    """
    if isinstance(value, dict):
        return {name: exact(item) for name, item in value.items()}
    if isinstance(value, list):
        return [exact(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > _EXACT:
        return str(value)
    return value


def digest_of(value: Any) -> str:
    """Return a short digest of JSON, whatever the order of its fields."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]


def positive_duration(value: Any) -> timedelta | None:
    """Return the duration of more than zero that `value` writes, None when it is none."""
    try:
        found = parse_duration(value) if isinstance(value, str) else timedelta()
    except ValueError:
        return None
    return found if found > timedelta() else None
