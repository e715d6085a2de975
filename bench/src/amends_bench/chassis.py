"""The cost of the chassis for a service, measured with an empty handler and 64 calls in flight."""

import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from amends_embedded import Child, Children
from rich.progress import Progress

from amends_bench.generator import LoadGenerator
from amends_bench.suite import Comparison, Round, SuiteOptions, alternate

IN_FLIGHT = 64
KINDS = ("chassis", "bare", "usual")


async def chassis_vs_grpc(options: SuiteOptions, progress: Progress) -> list[Comparison]:
    """Measure calls per second of a service on the chassis and of a service on plain gRPC."""
    subject = "an empty handler on the chassis"
    against_bare = Comparison("chassis-vs-grpc bare", subject, "bare grpc.aio", "per second", 0.80)
    usual = "grpc.aio, OpenTelemetry's interceptor, a Prometheus wrapper"
    against_usual = Comparison("chassis-vs-grpc usual", subject, usual, "per second", 1.25)
    with TemporaryDirectory(prefix="amends-bench-") as scratch:
        async with Children(grace=timedelta(seconds=5)) as children, LoadGenerator() as load:
            rounds: dict[str, Round] = {}
            for kind in KINDS:
                address = await _start(children, kind, Path(scratch))
                rounds[kind] = _round(load, address, options)
                await rounds[kind]()
            await alternate(against_bare, rounds["chassis"], rounds["bare"], options.rounds, progress)
            await alternate(against_usual, rounds["chassis"], rounds["usual"], options.rounds, progress)
    return [against_bare, against_usual]


def _round(load: LoadGenerator, address: str, options: SuiteOptions) -> Round:
    async def one() -> Mapping[str, Any]:
        return await load.round("echo", [address], IN_FLIGHT, options.duration)

    return one


async def _start(children: Children, kind: str, folder: Path) -> str:
    child = Child.start(
        kind,
        [sys.executable, "-m", "amends_bench.echo"],
        log=folder / f"{kind}.log",
        report=folder / f"{kind}.json",
        environment={"AMENDS_BENCH_ECHO": kind},
    )
    children.add(child)
    return str((await child.ready())["grpc"])
