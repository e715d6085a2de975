"""The cost of the chassis for a service, and of mutual TLS, measured with an empty handler and 64 calls in flight."""

import json
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from amends_embedded import Child, Children
from amends_embedded.authority import Authority, spiffe
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


async def tls_vs_plain_text(options: SuiteOptions, progress: Progress) -> list[Comparison]:
    """Measure calls per second with mutual TLS and rules of who may call what, and in plain text."""
    subject = "an empty handler on the chassis with mutual TLS and rules"
    comparison = Comparison("tls-vs-plain-text", subject, "the same in plain text", "per second", 0.90)
    with TemporaryDirectory(prefix="amends-bench-") as scratch:
        folder = Path(scratch)
        authority = Authority.make()
        for name in ("echo", "load"):
            authority.certify(folder / name, spiffe("bench", name))
        rule = {"identities": [spiffe("bench", "load")], "methods": ["/shop.inventory.v1.InventoryService/GetStock"]}
        (folder / "access.json").write_text(json.dumps({"rules": [rule]}))
        secret = {"AMENDS_TLS_DIR": str(folder / "echo"), "AMENDS_ACCESS": str(folder / "access.json")}
        async with Children(grace=timedelta(seconds=5)) as children, LoadGenerator() as load:
            with_tls = await _start(children, "chassis", folder, "tls", secret)
            plain = await _start(children, "chassis", folder)
            subject_round = _round(load, with_tls, options, folder / "load")
            reference_round = _round(load, plain, options)
            await subject_round()
            await reference_round()
            await alternate(comparison, subject_round, reference_round, options.rounds, progress)
    return [comparison]


def _round(load: LoadGenerator, address: str, options: SuiteOptions, certificates: Path | None = None) -> Round:
    async def one() -> Mapping[str, Any]:
        return await load.round("echo", [address], IN_FLIGHT, options.duration, certificates=certificates)

    return one


async def _start(
    children: Children, kind: str, folder: Path, name: str = "", more: Mapping[str, str] | None = None
) -> str:
    name = name or kind
    child = Child.start(
        name,
        [sys.executable, "-m", "amends_bench.echo"],
        log=folder / f"{name}.log",
        report=folder / f"{name}.json",
        environment={"AMENDS_BENCH_ECHO": kind, **(more or {})},
    )
    children.add(child)
    return str((await child.ready())["grpc"])
