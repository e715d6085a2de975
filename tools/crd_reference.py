"""Writes docs/reference/resources.md from the schemas in charts/amends-crds: what `kubectl explain` says, on one page.

Run it after a change of a schema: `python tools/crd_reference.py`. A test keeps the page and the schemas together.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reference" / "resources.md"
CHART = ROOT / "charts" / "amends-crds" / "templates"
ORDER = ("sagas", "sagaruns", "participants", "retrypolicies", "choreographies")
HEAD = """# The resources

`amends.dev/v1alpha1`. Made from the schemas in `charts/amends-crds`; `kubectl explain saga.spec.steps` says the same.
"""


def page() -> str:
    """Return the text of the reference page."""
    return "\n".join([HEAD, *(line for name in ORDER for line in _kind(name))])


def _kind(name: str) -> Iterator[str]:
    crd = yaml.safe_load((CHART / f"{name}.yaml").read_text())
    names, (version,) = crd["spec"]["names"], crd["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    yield f"## {names['kind']}\n"
    yield f"{schema['description']}\n"
    short = ", ".join(f"`kubectl get {alias}`" for alias in (names["plural"], *names["shortNames"]))
    fields = ", ".join(f"`{field['jsonPath']}`" for field in version.get("selectableFields", []))
    yield f"{short}. Field selectors: {fields}.\n"
    for part in ("spec", "status"):
        inner = schema["properties"][part]
        yield f"### {names['kind']}.{part}\n"
        yield f"{inner['description']}\n"
        yield "| field | type | what it means |"
        yield "| --- | --- | --- |"
        yield from _rows(inner, "")
        yield ""


def _rows(schema: dict[str, Any], prefix: str) -> Iterator[str]:
    required = schema.get("required", [])
    for name, field in schema.get("properties", {}).items():
        path = f"{prefix}{name}"
        notes = [field.get("description", "").strip()]
        messages = [_sentence(rule["message"]) for rule in field.get("x-kubernetes-validations", [])]
        notes += dict.fromkeys(messages)  # two rules may keep one sentence
        if "default" in field:
            notes.append(f"Default: `{field['default']}`.")
        if "enum" in field:
            notes.append(f"One of {', '.join(f'`{value}`' for value in field['enum'])}.")
        low, high = field.get("minimum"), field.get("maximum")
        if low is not None and high is not None and low < high:
            notes.append(f"From {low} to {high}.")
        must = " (required)" if name in required else ""
        yield f"| `{path}`{must} | {_type(field)} | {' '.join(filter(None, notes)).replace('|', chr(92) + '|')} |"
        yield from _rows(field, f"{path}.")
        if "items" in field:
            yield from _rows(field["items"], f"{path}[].")


def _type(field: dict[str, Any]) -> str:
    if field.get("type") == "array":
        inner = field.get("items", {})
        return f"list of {inner.get('type', 'texts or mappings')}s" if "type" in inner else "list of texts or mappings"
    return str(field.get("type") or "text or mapping")


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


if __name__ == "__main__":
    PAGE.write_text(page())
