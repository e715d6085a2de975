"""Writes the tables of docs/reference/performance.md and of the README from what was kept in bench/results.

Called by `command`. The text is written by people; what stands between two marks is replaced.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

from amends_bench import peers
from amends_bench.table import BENCHMARKS

ROOT = Path(__file__).resolve().parents[3]
RESULTS = ROOT / "bench" / "results"
PAGE = ROOT / "docs" / "reference" / "performance.md"
README = ROOT / "README.md"
PLOTS = PAGE.parent / "plots"
BEGIN, END = "<!-- figures: made by make bench -->", "<!-- end of figures -->"
GROWTH_BEGIN, GROWTH_END = "<!-- growth: made by make bench-growth -->", "<!-- end of growth -->"
X = {
    "processes": "orchestrator processes",
    "steps": "steps of a saga",
    "payload": "bytes of input beside an order's 150",
    "finished": "finished runs in the journal",
    "week": "history",
}


def write() -> None:
    """Replace the figures on both pages, and draw the plots where the peers' environment is installed."""
    _replace(PAGE, BEGIN, END, figures())
    _replace(README, BEGIN, END, sentence())
    if _has("growth"):
        _replace(PAGE, GROWTH_BEGIN, GROWTH_END, growth())
    if peers.PYTHON.exists():
        plot = peers.BENCH / "peers" / "plot.py"
        subprocess.run([str(peers.PYTHON), str(plot), str(RESULTS), str(PLOTS), *BENCHMARKS], check=True)


def _replace(page: Path, begin: str, end: str, new: str) -> None:
    head, _, rest = page.read_text(encoding="utf-8").partition(begin)
    _, _, tail = rest.partition(end)
    page.write_text(f"{head}{begin}\n\n{new}\n{end}{tail}", encoding="utf-8")


def growth() -> str:
    """Return a table for each thing that grows."""
    kept = json.loads((RESULTS / "growth.json").read_text())
    lines: list[str] = []
    for name, points in kept["curves"].items():
        lines += [
            f"| {X[name]} | of the bare calls | least to most | sagas a second "
            "| p50 | p99 | memory of the orchestrators | tables |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
            *(_point(point) for point in points),
            "",
        ]
    where = kept["machine"]
    taken = f"{where['at'][:16].replace('T', ' ')}, load before {where['load_before']:.1f}"
    build = f"revision {where['revision']}, engine {where['engine']}"
    return "\n".join([*lines, f"Taken {taken}, {build}, {kept['rounds']} rounds each."]) + "\n"


def _point(point: dict[str, Any]) -> str:
    at = point["x"]
    spread = f"{point['least']:.2f} to {point['most']:.2f}" if "least" in point else ""
    tables = f"{point['run_table'] + point['journal_table']:,.0f} MB" if "run_table" in point else ""
    if "dropped" in point:
        tables = f"{point['dropped']} partitions in {point['dropped_in']:.1f} s"
    cells = [
        f"{at:,}" if isinstance(at, int) else at,
        f"**{point['ratio']:.2f}**" if "ratio" in point else "",
        spread,
        f"{point['rate']:,.0f}",
        f"{point['p50']:,.0f} ms" if "p50" in point else "",
        f"{point['p99']:,.0f} ms",
        f"{point['memory']:,.0f} MB" if "memory" in point else "",
        tables,
    ]
    return f"| {' | '.join(cells)} |"


def sentence() -> str:
    """Return the two ratios that a reader in a hurry wants, as one sentence for the README."""
    kept = {one["name"]: one["ratio"]["median"] for result in _kept().values() for one in result["comparisons"]}
    dbos, bare = kept["sagas-vs-dbos"], kept["sagas-vs-plain-calls"]
    return (
        f"On one machine of two cores {dbos:.1f} sagas of three steps end in the time in which DBOS ends one workflow "
        f"of three steps, and {bare:.2f} in the time of the same calls without any durability.\n"
    )


def _kept() -> dict[str, Any]:
    return {name: json.loads((RESULTS / f"{name}.json").read_text()) for name in BENCHMARKS if _has(name)}


def figures() -> str:
    """One table of ratios, and where each was taken."""
    kept = _kept()
    lines = [
        "| | subject | peer | ratio | least to greatest | target | | subject alone | peer alone | command |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, result in kept.items():
        lines += [_row(name, one) for one in result["comparisons"]]
    lines += ["", "Where they were taken:", ""]
    lines += [
        "| | when | cores | load before | Python | engine | Postgres | grpcio | flushes per second | revision |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [_machine(name, result["machine"]) for name, result in kept.items()]
    return "\n".join(lines) + "\n"


def _has(name: str) -> bool:
    return (RESULTS / f"{name}.json").exists()


def _row(name: str, one: dict[str, Any]) -> str:
    ratio = one["ratio"]
    cells = [
        one["name"],
        one["subject"],
        one["peer"],
        f"**{ratio['median']:.2f}**",
        f"{ratio['min']:.2f} to {ratio['max']:.2f}",
        _bound(one),
        one["verdict"],
        _figure(one["subject_median"], one["unit"]),
        _figure(one["peer_median"], one["unit"]),
        f"`make bench-{name}`",
    ]
    return f"| {' | '.join(cells)} |"


def _bound(one: dict[str, Any]) -> str:
    return "" if one["target"] is None else f"{'≤' if one['at_most'] else '≥'} {one['target']:g}"


def _figure(value: float, unit: str) -> str:
    if unit == "seconds":
        return f"{value * 1000:.1f} ms"
    return f"{value:,.0f}/s" if unit.startswith("per ") else f"{value:,.0f} {unit}"


def _machine(name: str, where: dict[str, Any]) -> str:
    cells = [
        name,
        where["at"][:16].replace("T", " "),
        str(where["cores"]),
        f"{where['load_before']:.1f}",
        where["python"],
        where.get("engine", "source"),
        where["postgres"],
        where["versions"]["grpcio"],
        f"{where['fsync_per_second']:,.0f}",
        where["revision"],
    ]
    return f"| {' | '.join(cells)} |"
