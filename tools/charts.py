"""Writes what is said of the charts in more than one place: schemas of values, and the reference page of them.

A library chart's schema checks nothing of its users' values, so each of them has a copy, which also knows what Argo CD
and Helm put beside them. Run by `make charts`; a test compares the files with what this would write.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
CHARTS = ROOT / "charts"
LIBRARY = CHARTS / "microservice"
PAGE = ROOT / "docs" / "reference" / "chart-values.md"
DEPLOY: dict[str, Any] = {
    "description": "For Argo CD: which chart, and into which namespace",
    "type": "object",
    "additionalProperties": False,
    "required": ["chart", "namespace"],
    "properties": {"chart": {"type": "string"}, "namespace": {"type": "string"}},
}
HEAD = """# The values of the charts

Every deployable has a chart of its own in [charts](../../charts), on the library chart `charts/microservice`. What can
be set is the same for all; each chart's `values.yaml` has what differs for it. A value that is not here is refused.

Made by `make charts` from the comments in `charts/microservice/values.yaml`.

| value | default | |
| --- | --- | --- |
"""
_COMMENT = re.compile(r"^\s*# -- (.*)$")
_KEY = re.compile(r"^(\s*)([A-Za-z]+):")


def users() -> list[Path]:
    """Return the charts that use the library chart."""
    return sorted(
        path.parent
        for path in CHARTS.glob("*/Chart.yaml")
        if any(one["name"] == "microservice" for one in yaml.safe_load(path.read_text()).get("dependencies", ()))
    )


def schema(chart: Path) -> str:
    """Return the schema of a deployable's values."""
    library = json.loads((LIBRARY / "values.schema.json").read_text())
    library["title"] = f"The values of {chart.name}"
    library["properties"] |= {"deploy": DEPLOY, "microservice": {"type": "object"}}
    return json.dumps(library, indent=1) + "\n"


def page() -> str:
    """Return the text of the reference page."""
    return HEAD + "".join(f"| `{name}` | {default} | {text} |\n" for name, default, text in _rows())


def _rows() -> Iterator[tuple[str, str, str]]:
    values = yaml.safe_load((LIBRARY / "values.yaml").read_text())
    path: list[str] = []
    said = ""
    for line in (LIBRARY / "values.yaml").read_text().splitlines():
        comment, key = _COMMENT.match(line), _KEY.match(line)
        if comment is not None:
            said = comment[1]
        elif key is not None:
            depth = len(key[1]) // 2
            path = [*path[:depth], key[2]]
            value = _at(values, path)
            if said or not isinstance(value, dict) or not value:
                yield ".".join(path), f"`{json.dumps(value)}`" if value not in ("", {}, []) else "", said
            said = ""


def _at(values: Any, path: list[str]) -> Any:
    for part in path:
        values = values[part]
    return values


def outputs() -> dict[Path, str]:
    """Return all files that this program writes, with their texts."""
    return {chart / "values.schema.json": schema(chart) for chart in users()} | {PAGE: page()}


if __name__ == "__main__":
    for path, text in outputs().items():
        path.write_text(text)
        sys.stdout.write(f"{path.relative_to(ROOT)}\n")
