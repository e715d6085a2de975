"""The cost of a saga when something grows: processes, steps, bytes, history. Called by `make bench-growth`.

One curve for each, with everything else as in sagas-vs-dbos. Between its rounds a front makes three bare calls for each
request, which no curve changes: the ratio of both is free of what else the machine does. Kept in
bench/results/growth.json; the page and its plots are made of that. Called by `command` with the argument `growth`.
"""

import asyncio
import json
import os
import shutil
import statistics
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
from amends_orchestrator.journal.partitions import drop_old
from rich.console import Console
from rich.progress import Progress

from amends_bench import history, machine, page, world
from amends_bench.generator import LoadGenerator
from amends_bench.verify import audit

IN_FLIGHT = 64
PROCESSES = (1, 2, 4)
STEPS = (3, 10, 50)
PAYLOADS = (0, 1024, 100 * 1024)
"""Bytes by which an input is larger than an order, which has about 150."""
FINISHED = (0, 1_000_000, 10_000_000)
BYTES_OF_A_RUN = 2_100
"""On disk, with indexes and its share of the write-ahead log that is kept: measured with a million."""
WEEK = 7
A_DAY = 150_000
SAGA = world.FOLDER / "saga.yaml"

Point = dict[str, Any]


class NoRoomError(RuntimeError):
    """The disk has too little room for the history that is asked for."""


async def growth(rounds: int, duration: timedelta, finished: Sequence[int], console: Console) -> dict[str, Any]:
    """Measure all curves. Raises NoRoomError."""
    check_room(max(finished, default=0))
    where, began = machine.describe(), time.perf_counter()
    curves: dict[str, list[Point]] = {}
    with Progress(console=console) as progress:
        parts = (("processes", _processes), ("steps", _steps), ("payload", _payload))
        bar = progress.add_task("growth", total=len(parts) + 2)
        for name, measure in parts:
            progress.update(bar, description=name)
            curves[name] = await measure(rounds, duration)
            progress.advance(bar)
        progress.update(bar, description="finished runs")
        curves["finished"] = await _finished(rounds, duration, finished)
        progress.advance(bar)
        progress.update(bar, description="a week of retention")
        curves["week"] = await _week(rounds, duration)
        progress.advance(bar)
    where["seconds"] = round(time.perf_counter() - began)
    return {"machine": where, "rounds": rounds, "curves": curves}


def check_room(runs: int, folder: Path | None = None) -> None:
    """Raise NoRoomError unless there is room for a history of so many runs, twice over."""
    at = folder or Path(os.environ.get("TMPDIR", "/tmp"))
    needed, free = 2 * runs * BYTES_OF_A_RUN, shutil.disk_usage(at).free
    if free < needed:
        raise NoRoomError(
            f"a history of {runs:,} runs needs {needed / 1e9:.0f} GB in {at}, of which {free / 1e9:.0f} GB are free: "
            "set TMPDIR to another disk, or ask for less with --finished"
        )


def of_steps(count: int) -> str:
    """Return a saga of so many steps: all but the last reserve, the last ships."""
    head, _, steps = SAGA.read_text().partition("  steps:\n")
    parts = steps.split("    - name: ")[1:]
    reserve, ship = parts[0], parts[-1]
    made = "".join(f"    - name: {reserve.replace('reserve', f's{n}', 1)}" for n in range(count - 1))
    return f"{head}  steps:\n{made}    - name: {ship}"


async def _rate(
    shop: world.BenchProcesses, load: LoadGenerator, rounds: int, duration: timedelta, *, padding: int = 0
) -> dict[str, float]:
    """Return the median of the rounds: sagas a second, their ratio to bare calls, milliseconds; memory in MB."""
    await load.round("saga", shop.orchestrators, IN_FLIGHT, duration / 2, padding=padding)
    await load.round("bare", shop.fronts[:1], IN_FLIGHT, duration / 2)
    said, ratios = [], []
    for _ in range(rounds):
        said.append(await load.round("saga", shop.orchestrators, IN_FLIGHT, duration, padding=padding))
        bare = await load.round("bare", shop.fronts[:1], IN_FLIGHT, duration / 2)
        ratios.append(said[-1]["rate"] / bare["rate"])
    if any(one["failed"] for one in said):
        raise RuntimeError(f"sagas failed: {[one['failures'] for one in said]}")
    return {
        "rate": statistics.median(one["rate"] for one in said),
        "ratio": statistics.median(ratios),
        "least": min(ratios),
        "most": max(ratios),
        "p50": statistics.median(one["p50"] for one in said) * 1000,
        "p99": statistics.median(one["p99"] for one in said) * 1000,
        "memory": shop.memory() / 1e6,
    }


async def _processes(rounds: int, duration: timedelta) -> list[Point]:
    points = []
    for count in PROCESSES:
        async with world.running(orchestrators=count) as shop, LoadGenerator() as load:
            points.append({"x": count} | await _rate(shop, load, rounds, duration))
            await audit(shop)
    return points


async def _steps(rounds: int, duration: timedelta) -> list[Point]:
    points = []
    for count in STEPS:
        async with world.running() as shop, LoadGenerator() as load:
            await shop.apply_saga(of_steps(count))
            points.append({"x": count} | await _rate(shop, load, rounds, duration))
            await audit(shop)
    return points


async def _payload(rounds: int, duration: timedelta) -> list[Point]:
    points = []
    for padding in PAYLOADS:
        async with world.running() as shop, LoadGenerator() as load:
            points.append({"x": padding} | await _rate(shop, load, rounds, duration, padding=padding))
            await audit(shop)
    return points


async def _finished(rounds: int, duration: timedelta, counts: Sequence[int]) -> list[Point]:
    """One world for all: the history only grows."""
    points = []
    async with world.running() as shop, LoadGenerator() as load, _connected(shop) as connection:
        for count in sorted(counts):
            before = int(await connection.fetchval("SELECT count(*) FROM run WHERE namespace = 'past'"))
            took = await _timed(partial(history.add, connection, count - before, days=1))
            point = {"x": count, "generated_in": took} | await _rate(shop, load, rounds, duration)
            points.append(point | await history.sizes(connection))
        await audit(shop, since="10m")
    return points


async def _week(rounds: int, duration: timedelta) -> list[Point]:
    """Measure a week of days full of runs that have ended; then let retention drop them."""
    points: list[Point] = []
    async with world.running() as shop, LoadGenerator() as load, _connected(shop) as connection:
        points.append({"x": "an empty journal"} | await _rate(shop, load, rounds, duration))
        await history.add(connection, WEEK * A_DAY, days=WEEK)
        full: Point = {"x": f"a week of {A_DAY:,} runs a day"} | await _rate(shop, load, rounds, duration)
        points.append(full | await history.sizes(connection))
        dropped: list[str] = []

        async def drop() -> None:
            dropped.extend(await drop_old(connection, timedelta(days=1)))

        beside = asyncio.create_task(load.round("saga", shop.orchestrators, IN_FLIGHT, duration * 2))
        took = await _timed(drop)
        during = await beside
        point = {"x": "while it is dropped", "rate": during["rate"], "dropped_in": took, "dropped": len(dropped)}
        points.append(point | {"p99": during["p99"] * 1000})
        after: Point = {"x": "after it was dropped"} | await _rate(shop, load, rounds, duration)
        points.append(after | await history.sizes(connection))
        await audit(shop, since="10m")
    return points


async def _timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    await work()
    return round(time.perf_counter() - began, 1)


@asynccontextmanager
async def _connected(shop: world.BenchProcesses) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(shop.databases["orchestrator"])
    try:
        yield connection
    finally:
        await connection.close()


def keep(measured: dict[str, Any]) -> None:
    """Write what was measured, and the page."""
    page.RESULTS.mkdir(exist_ok=True)
    (page.RESULTS / "growth.json").write_text(json.dumps(measured, indent=1) + "\n")
    page.write()
