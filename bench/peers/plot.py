"""Draws what bench/results has, as SVG files beside the page. Run by `amends_bench.page` with the peers' Python.

Here and not in the benchmarks' own environment, because nothing else needs matplotlib.
"""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

matplotlib.rcParams.update(
    {"svg.hashsalt": "amends", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
)
BLUE, GREY, RED = "#2a6f97", "#9aa5b1", "#b23a48"


def main(results: Path, target: Path, names: list[str]) -> None:
    """Draw all plots for which there are results, the benchmarks in the order of their names here."""
    target.mkdir(parents=True, exist_ok=True)
    kept = [results / f"{name}.json" for name in names if (results / f"{name}.json").exists()]
    rows = [one for path in kept for one in json.loads(path.read_text())["comparisons"] if one["target"] is not None]
    if rows:
        ratios(rows, target / "ratios.svg")
    if (results / "growth.json").exists():
        curves = json.loads((results / "growth.json").read_text())["curves"]
        growth(curves, target / "growth.svg")


def ratios(rows: list[dict], path: Path) -> None:
    """Draw how far each ratio is from its target, on a scale where 1 is the target and more is better."""
    figure, axes = plt.subplots(figsize=(7, 0.32 * len(rows) + 0.8))
    for place, one in enumerate(reversed(rows)):
        values = [one["ratio"][name] / one["target"] for name in ("min", "median", "max")]
        if one["at_most"]:
            values = sorted(1 / value for value in values)
        axes.plot(values[::2], [place, place], color=GREY, linewidth=3, solid_capstyle="round")
        axes.plot(values[1], place, "o", color=BLUE if values[1] >= 1 else RED)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [one["name"] for one in reversed(rows)])
    axes.set_xscale("log")
    axes.set_xticks([0.5, 0.7, 1, 1.5, 2, 3], ["0.5", "0.7", "target", "1.5", "2", "3 times better"])
    axes.minorticks_off()
    save(figure, path)


def growth(curves: dict, path: Path) -> None:
    """Draw the ratio to bare calls, with one panel for each thing that grows."""
    titles = {
        "processes": "orchestrator processes",
        "steps": "steps of a saga",
        "payload": "bytes of input more",
        "finished": "finished runs in the journal",
    }
    figure, panels = plt.subplots(2, 2, figsize=(7, 5))
    for axes, (name, title) in zip(panels.flat, titles.items(), strict=True):
        points = curves[name]
        places = range(len(points))
        low = [point["ratio"] - point["least"] for point in points]
        high = [point["most"] - point["ratio"] for point in points]
        axes.errorbar(places, [point["ratio"] for point in points], yerr=[low, high], fmt="o-", color=BLUE, capsize=3)
        axes.set_xticks(places, [f"{point['x']:,}" for point in points])
        axes.set_ylim(bottom=0)
        axes.set_xlabel(title)
        axes.set_ylabel("of the rate of bare calls")
    save(figure, path)


def save(figure: plt.Figure, path: Path) -> None:
    """Without the day on which it was drawn, so that the same figures give the same file."""
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
