"""Every field that somebody can write is read by somebody: one that is taken and ignored promises what nobody does."""

import ast
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

READERS = ("libs/saga/src/", "libs/resilience/src/", "services/orchestrator/src/", "operator/src/")
PASS_ON = (
    "libs/saga/src/amends_saga/definition/kinds.py",
    "libs/saga/src/amends_saga/definition/saga_kind.py",
    "operator/src/amends_operator/definitions/manifest.py",
)
"""What takes a field in or hands it on, and does nothing about it."""
OTHER_NAMES = {"max": "maximum", "with": "events", "afterPivot": "amendments"}
REFUSED = {"false"}
"""Rules that let no value pass: such a field is reserved, and says so."""


def fields(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """All fields below a node of a schema that take a value: path and name."""
    for name, inner in schema.get("properties", {}).items():
        if not REFUSED & {rule["rule"] for rule in inner.get("x-kubernetes-validations", ())}:
            yield f"{path}.{name}", name
        yield from fields(inner, f"{path}.{name}")
    if isinstance(schema.get("items"), dict):
        yield from fields(schema["items"], f"{path}[]")


def schemas(root, part: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for file in sorted((root / "charts/amends-crds/templates").glob("*.yaml")):
        crd = yaml.safe_load(file.read_text())
        for version in crd["spec"]["versions"]:
            yield crd["spec"]["names"]["kind"], version["schema"]["openAPIV3Schema"]["properties"][part]


def attributes(tree: ast.Module) -> set[str]:
    return {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)}


def texts(tree: ast.Module) -> set[str]:
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


@pytest.fixture(scope="module")
def read(modules) -> tuple[set[str], set[str]]:
    """The attributes that are read where definitions are used, and the names that the operator knows."""
    used, named = set[str](), set[str]()
    for module in modules:
        if module.path.startswith(READERS) and not module.path.startswith(PASS_ON):
            used |= attributes(module.tree) if not module.path.startswith("operator/") else set()
            named |= texts(module.tree) if module.path.startswith("operator/") else set()
    return used, named


def test_every_field_of_a_spec_is_read(root, read) -> None:
    used, named = read
    unread = [
        f"{kind}.spec{path}"
        for kind, spec in schemas(root, "spec")
        for path, name in fields(spec)
        if name not in named and OTHER_NAMES.get(name, snake(name)) not in used
    ]
    assert unread == []


def test_every_field_of_a_status_is_written(root, read) -> None:
    _, named = read
    unwritten = [
        f"{kind}.status{p}" for kind, s in schemas(root, "status") for p, name in fields(s) if name not in named
    ]
    assert unwritten == []


def test_every_setting_is_read(modules) -> None:
    """A setting is a field of a class that ends in Settings; whoever reads it says `.name` somewhere."""
    settings = {
        f"{module.path}: {item.target.id}": item.target.id
        for module in modules
        if module.path.endswith("settings.py") and "/src/" in module.path
        for node in module.tree.body
        if isinstance(node, ast.ClassDef) and node.name.endswith("Settings")
        for item in node.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and not item.target.id.startswith("_")
    }
    used = set().union(*(attributes(module.tree) for module in modules if "/src/" in module.path))
    assert len(settings) > 40
    assert [where for where, name in settings.items() if name not in used] == []


@pytest.mark.parametrize("unread", ["peerIdentity", "peerName"])
def test_a_field_that_nothing_reads_is_found(read, unread: str) -> None:
    used, named = read
    schema = {"properties": {unread: {"type": "string"}, "target": {"type": "string"}}}
    assert [name for _, name in fields(schema) if name not in named and snake(name) not in used] == [unread]


def test_a_reserved_field_is_none_that_takes_a_value() -> None:
    schema = {"properties": {"identity": {"x-kubernetes-validations": [{"rule": "false", "message": "reserved"}]}}}
    assert list(fields(schema)) == []
