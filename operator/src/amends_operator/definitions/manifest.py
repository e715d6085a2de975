"""Writes an object as the text that the orchestrator or the monitor gets: YAML in the order in which people write it.

They keep the text, so it also tells what of a definition is in force, and by the mark at its end that it came from
Kubernetes: only those are taken out of force when their object is gone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from amends.saga.v1 import definition_service_pb2 as pb
from amends_operator.kube.objects import API_VERSION, NAMES, Body, Key

_MARK = "# from Kubernetes: "
_OURS = re.compile(rf"^{_MARK}\S+$", re.MULTILINE)
_FIRST = {
    name: at
    for at, name in enumerate(
        (
            *(
                "name",
                "namespace",
                "event",
                "key",
                "start",
                "input",
                "service",
                "target",
                "selector",
                "after",
                "when",
                "pivot",
                "call",
                "request",
            ),
            *("compensate", "deadline", "stalledAfter", "methods", "callers", "timeout", "attempts"),
            *("descriptors", "steps", "afterPivot"),
        )
    )
}


def manifest_of(key: Key, body: Body, spec: Mapping[str, Any] | None = None) -> pb.Manifest:
    """Return the manifest of an object; `spec` stands in for its own where something had to be filled in."""
    shown = dict(spec if spec is not None else body.get("spec") or {})
    shown.pop("suspend", None)
    document = {
        "apiVersion": API_VERSION,
        "kind": NAMES[key.kind],
        "metadata": {"name": key.name, "namespace": key.namespace},
        "spec": _ordered(shown),
    }
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100_000)
    return pb.Manifest(text=f"{text}{_MARK}{body['metadata']['uid']}\n", source=key.full_name)


def is_ours(text: str) -> bool:
    """Return whether a text that is in force came from Kubernetes."""
    return _OURS.search(text) is not None


def _ordered(value: Any) -> Any:
    if isinstance(value, Mapping):
        names = sorted(value, key=lambda name: (_FIRST.get(name, 50), name))
        return {name: _ordered(value[name]) for name in names}
    if isinstance(value, list):
        return [_ordered(item) for item in value]
    return value
