"""There is one grammar of durations: whoever reads one says the same to the same text."""

import json
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import yaml
from amends_chassis.policies import PoliciesError, parse
from amends_chassis.settings import ServiceSettings
from amends_operator.runs.values import positive_duration
from amends_resilience.durations import parse_duration
from amends_saga.definition import Document, read
from pydantic import ValidationError

GOOD = {
    "100ms": timedelta(milliseconds=100),
    "60s": timedelta(seconds=60),
    "1m30s": timedelta(seconds=90),
    "1.5s": timedelta(seconds=1.5),
    "10us": timedelta(microseconds=10),
    "1d12h": timedelta(hours=36),
    "36600d": timedelta(days=36_600),
}
BAD = ["60", "s", "1 s", "-1s", "1e3s", "١s", "1y", "1.s", "1.1234567s", "1234567890s", "1s" * 21]
TOO_LONG = ["36601d", "999999999d", "999999999d1d", "36600d1us"]


def grammar(text: str) -> timedelta | None:
    try:
        return parse_duration(text)
    except ValueError:
        return None


def saga(text: str) -> timedelta | None:
    """Of Sagas, Participants and RetryPolicies."""
    spec = {"service": "a.v1.S", "target": "dns:///s:1", "barrierRetention": text}
    head = {"apiVersion": "amends.dev/v1alpha1", "kind": "Participant", "metadata": {"name": "a"}}
    found = read([Document("a.yaml", yaml.safe_dump(head | {"spec": spec}))])
    retention = found.participants[0].barrier_retention
    assert (retention is None) == bool(found.findings)
    return retention


def settings(text: str) -> timedelta | None:
    class Settings(ServiceSettings):
        name: str = "a"

    try:
        return Settings.model_validate({"drain": text}).drain
    except ValidationError:
        return None


def compiled_policies(text: str) -> timedelta | None:

    breaker = {"circuitBreaker": {"window": text}}
    try:
        (named,) = parse(json.dumps({"version": 1, "policies": [{"name": "a", **breaker}]}))
    except PoliciesError:
        return None
    return named.policy.circuit_breaker.window


READERS: list[Callable[[str], timedelta | None]] = [grammar, saga, settings, positive_duration]


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
@pytest.mark.parametrize("text", [*GOOD, *BAD, *TOO_LONG])
def test_every_reader_reads_it_alike(reader: Callable[[str], timedelta | None], text: str) -> None:
    assert reader(text) == GOOD.get(text)


def test_the_compiled_policies_have_it_too() -> None:
    read_alike = {text: compiled_policies(text) for text in ("60s", "1m30s", "100ms", "1h", *BAD, *TOO_LONG)}
    assert read_alike == {text: grammar(text) for text in read_alike}


def patterns(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Find the fields of a schema that hold durations: those whose pattern takes 24h."""
    if isinstance(node, dict):
        if node.get("type") == "string" and "ms|us" in node.get("pattern", ""):
            yield path, node
        for name, inner in node.items():
            yield from patterns(inner, f"{path}.{name}")


def test_the_schemas_take_what_the_readers_take(root) -> None:
    found = []
    for file in sorted((root / "charts/amends-crds/templates").glob("*.yaml")):
        found += list(patterns(yaml.safe_load(file.read_text())["spec"]["versions"][0]["schema"]))
    assert len(found) >= 8
    for path, field in found:
        taken = [
            text for text in [*GOOD, *BAD] if re.search(field["pattern"], text) and len(text) <= field["maxLength"]
        ]
        assert taken == list(GOOD), path
