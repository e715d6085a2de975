"""Writes the tables of docs/reference/performance.md from what was kept in bench/results. Called by `command`.

The page's text is written by people; what stands between the two marks is replaced.
"""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
RESULTS = ROOT / "bench" / "results"
PAGE = ROOT / "docs" / "reference" / "performance.md"
BEGIN, END = "<!-- figures: made by make bench -->", "<!-- end of figures -->"
ORDER = ("p1", "p2", "p2b", "p3", "p4", "p5", "p6", "p9", "p10")


def write() -> None:
    """Replaces the figures on the page."""
    text = PAGE.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    PAGE.write_text(f"{head}{BEGIN}\n\n{figures()}\n{END}{tail}", encoding="utf-8")


def figures() -> str:
    """One table of ratios, and where each was taken."""
    kept = {name: json.loads((RESULTS / f"{name}.json").read_text()) for name in ORDER if _has(name)}
    lines = [
        "| | subject | peer | ratio | least to greatest | target | | subject alone | peer alone | command |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, result in kept.items():
        lines += [_row(name, one) for one in result["comparisons"]]
    lines += ["", "Where they were taken:", ""]
    lines += [
        "| | when | cores | load before | Python | Postgres | grpcio | flushes per second | revision |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [_machine(name, result["machine"]) for name, result in kept.items()]
    return "\n".join(lines) + "\n"


def _has(name: str) -> bool:
    return (RESULTS / f"{name}.json").exists()


def _row(name: str, one: dict[str, Any]) -> str:
    ratio, target = one["ratio"], one["target"]
    bound = "" if target is None else f"{'≤' if one['at_most'] else '≥'} {target:g}"
    cells = [
        one["name"],
        one["subject"],
        one["peer"],
        f"**{ratio['median']:.2f}**",
        f"{ratio['min']:.2f} to {ratio['max']:.2f}",
        bound,
        one["verdict"],
        _figure(one["subject_median"], one["unit"]),
        _figure(one["peer_median"], one["unit"]),
        f"`make bench-{name}`",
    ]
    return f"| {' | '.join(cells)} |"


def _figure(value: float, unit: str) -> str:
    return f"{value * 1000:.1f} ms" if unit == "seconds" else f"{value:,.0f}/s"


def _machine(name: str, where: dict[str, Any]) -> str:
    cells = [
        name,
        where["at"][:16].replace("T", " "),
        str(where["cores"]),
        f"{where['load_before']:.1f}",
        where["python"],
        where["postgres"],
        where["versions"]["grpcio"],
        f"{where['fsync_per_second']:,.0f}",
        where["revision"],
    ]
    return f"| {' | '.join(cells)} |"
