"""Pictures of what the repository says of itself: the layers of the import law, and which service calls which.

The layers come from `.importlinter`, the calls from the network policies in the charts' values. Used by
`make pictures`.
"""

import configparser
from collections.abc import Mapping
from pathlib import Path

import yaml

from pictures.drawing import Box, Drawing, wide_enough

ROOT = Path(__file__).resolve().parent.parent.parent
GAP = 14
FLOOR = 62


def overview() -> Drawing:
    """Draw who speaks to whom when a saga runs: the README's picture, laid out by hand."""
    drawing = Drawing(1000, 330, "Who speaks to whom when a saga runs")
    caller = Box(20, 50, 190, 56, ("your service", "or grpcurl, a gateway"))
    resources = Box(20, 160, 190, 56, ("kubectl, Argo CD", "a saga is a resource"))
    person = Box(20, 258, 190, 56, ("a person", "amends resolve"), "wait")
    operator = Box(290, 160, 130, 56, ("operator",), "ours")
    orchestrator = Box(470, 50, 190, 56, ("orchestrator", "any number of replicas"), "ours")
    journal = Box(470, 160, 190, 56, ("Postgres", "the journal"))
    steps = (
        Box(770, 20, 210, 62, ("inventory", "Reserve, undone by Release")),
        Box(770, 118, 210, 62, ("payments", "Charge, undone by Refund")),
        Box(770, 216, 210, 62, ("shipping", "Book: no way back")),
    )
    _joined(drawing, caller, orchestrator, "StartRun")
    _joined(drawing, resources, operator)
    drawing.line([(420, 175), (445, 175), (445, 92), (470, 92)])
    drawing.line([orchestrator.edge_towards(journal.middle), journal.edge_towards(orchestrator.middle)], both=True)
    for box in steps:
        drawing.line([(660, 78), (box.x, box.middle[1])])
    drawing.line([(210, 286), (700, 286), (700, 100), (660, 100)])
    drawing.text(455, 279, "decides what a machine cannot know", anchor="middle", faint=True)
    drawing.text(980, 302, "gRPC services, each with its own database", anchor="end", faint=True)
    for box in (caller, resources, person, operator, orchestrator, journal, *steps):
        drawing.box(box)
    return drawing


def _joined(drawing: Drawing, start: Box, end: Box, words: str = "") -> None:
    here, there = start.edge_towards(end.middle), end.edge_towards(start.middle)
    drawing.line([here, there])
    if words:
        drawing.text((here[0] + there[0]) / 2, here[1] - 8, words, anchor="middle", faint=True)


def layers() -> Drawing:
    """Draw the floors of the import law: what stands higher may import what stands lower, never the reverse."""
    law = configparser.ConfigParser()
    law.read(ROOT / ".importlinter")
    text = law["importlinter:contract:layers"]["layers"].split("\n")
    floors = [[name.strip() for name in line.split("|")] for line in text if line.strip() and not line.startswith("#")]
    rows = [_rows(floor) for floor in floors]
    height = sum(len(floor) for floor in rows) * 44 + len(rows) * 18 + 70
    drawing = Drawing(980, height, "The layers of the repository: each may import only what stands below it")
    drawing.text(20, 28, "A package may import what stands below it. `make lint-imports` refuses everything else.")
    y = 46.0
    for floor in rows:
        drawing.parts.append(
            f'<rect x="12" y="{y:g}" width="956" height="{len(floor) * 44 + 8}" rx="10" fill="#f5f7fa"/>'
        )
        for row in floor:
            widths = [wide_enough([name], 70) for name in row]
            x = (980 - sum(widths) - GAP * (len(row) - 1)) / 2
            for name, width in zip(row, widths, strict=True):
                drawing.box(Box(x, y + 8, width, 34, (name,), "ours" if name.startswith("amends") else "plain"))
                x += width + GAP
            y += 44
        y += 18
    return drawing


def _rows(floor: list[str]) -> list[list[str]]:
    """Split a floor into rows that are narrow enough."""
    rows: list[list[str]] = [[]]
    used = 0.0
    for name in floor:
        width = wide_enough([name], 70) + GAP
        if rows[-1] and used + width > 940:
            rows.append([])
            used = 0.0
        rows[-1].append(name)
        used += width
    return rows


def calls() -> Drawing:
    """Draw the deployables of the charts, an arrow for each call that a network policy allows."""
    allowed = _allowed()
    columns = _columns(allowed)
    tallest = max(len(column) for column in columns)
    drawing = Drawing(
        len(columns) * 250 + 120, tallest * 84 + 70, "Which deployable calls which, as the network policies allow it"
    )
    drawing.text(20, 28, "An arrow is a call that the charts' network policies allow. They refuse every other one.")
    boxes: dict[str, Box] = {}
    for number, column in enumerate(columns):
        top = 50 + (tallest - len(column)) * 42
        for row, name in enumerate(column):
            boxes[name] = Box(40 + number * 250, top + row * 84, 150, 50, (name,), "ours" if name in OURS else "plain")
    for caller, callees in sorted(allowed.items()):
        for callee in sorted(callees):
            _arrow(drawing, boxes, caller, callee, both=caller in allowed.get(callee, ()))
    for box in boxes.values():
        drawing.box(box)
    return drawing


OURS = frozenset({"monitor", "operator", "orchestrator"})


def _allowed() -> Mapping[str, set[str]]:
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "charts").glob("*/values.yaml")):
        values = yaml.safe_load(path.read_text()) or {}
        for edge in values.get("access", ()):
            found.setdefault(edge["from"]["name"], set()).add(path.parent.name)
        for callee in (values.get("networkPolicy") or {}).get("calls", ()):
            found.setdefault(path.parent.name, set()).add(callee["name"])
    return found


def _columns(allowed: Mapping[str, set[str]]) -> list[list[str]]:
    """Put each deployable one column to the right of the first one that calls it."""
    names = {*allowed, *(name for callees in allowed.values() for name in callees)}
    here = sorted(name for name in names if not any(name in callees for callees in allowed.values()))
    columns: list[list[str]] = []
    placed: set[str] = set()
    while here:
        columns.append(here)
        placed |= {*here}
        here = sorted({callee for name in here for callee in allowed.get(name, ())} - placed)
    return columns


def _arrow(drawing: Drawing, boxes: Mapping[str, Box], caller: str, callee: str, *, both: bool) -> None:
    here, there = boxes[caller], boxes[callee]
    if both and caller > callee:
        return  # drawn once, with two heads
    if here.x == there.x:
        x = here.x + here.width
        drawing.curve((x, here.middle[1]), (x + 70, (here.middle[1] + there.middle[1]) / 2), (x, there.middle[1]))
        return
    drawing.line([here.edge_towards(there.middle), there.edge_towards(here.middle)], both=both)
