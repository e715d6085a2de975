"""`amends dev`: a real Postgres and an orchestrator on this machine, for people with services of their own."""

import asyncio
import os
import signal
import socket
import sys
import tempfile
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from amends_cli import output
from amends_cli.connection import DEFAULT
from amends_cli.failure import Failure, usage

if TYPE_CHECKING:
    from amends_embedded import Child, Postgres

READY = timedelta(seconds=60)
PORT = int(DEFAULT.rsplit(":", 1)[1])
HELP = """
  amends apply participant.yaml saga.yaml      put a saga in force (--descriptors FILE for services without reflection)
  amends start SAGA --input '{...}' --watch    run it and see its timeline
  amends list                                  the runs
"""


def dev(
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="Keep everything here; left out: gone at the end.")
    ] = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Where to listen; 0 takes a free port.")] = PORT,
    metrics_port: Annotated[int, typer.Option("--metrics-port", min=0, max=65535, help="For Prometheus.")] = 0,
    log_level: Annotated[str, typer.Option("--log-level", help="debug, info, warning or error.")] = "info",
) -> None:
    """Run Postgres and an orchestrator here until Ctrl-C. Its participants may listen on this machine only."""
    _refuse_taken(port)
    environment = {
        "AMENDS_PORT": str(port),
        "AMENDS_METRICS_PORT": str(metrics_port),
        "AMENDS_LOG_LEVEL": log_level,
        "AMENDS_TARGETS": "loopback",
    }
    if data is not None:
        asyncio.run(_serve(data, environment, kept=True))
        return
    with tempfile.TemporaryDirectory(prefix="amends-dev-") as scratch:
        asyncio.run(_serve(Path(scratch), environment, kept=False))


def _refuse_taken(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise usage(
                f"port {port} cannot be used: {error.strerror}", "Choose one with --port; 0 takes a free one."
            ) from None


async def _serve(data: Path, environment: dict[str, str], *, kept: bool) -> None:
    from amends_embedded import Children, Postgres, PostgresAlreadyRunning, PostgresError

    stop = asyncio.Event()
    for order in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(order, stop.set)
    async with AsyncExitStack() as stack:
        try:
            postgres = await stack.enter_async_context(await Postgres.start(data / "postgres"))
            url = await postgres.create("orchestrator", "orchestrator")
        except PostgresAlreadyRunning as error:
            raise Failure(str(error), "Another `amends dev` uses this folder.") from None
        except PostgresError as error:
            raise Failure(str(error)) from None
        children = await stack.enter_async_context(Children())
        orchestrator = children.add(_orchestrator(data, environment | {"AMENDS_DATABASE_URL": url}))
        address = await _ready(orchestrator)
        _greet(address, url, data if kept else None, orchestrator)
        await _until_stopped(stop, orchestrator, postgres)
        output.say("stopping")


def _orchestrator(data: Path, environment: dict[str, str]) -> "Child":
    from amends_embedded import Child

    passed = {name: value for name, value in os.environ.items() if name.startswith(("AMENDS_OTLP", "AMENDS_TRACE"))}
    return Child.start(
        "orchestrator",
        [sys.executable, "-m", "amends_orchestrator"],
        log=data / "orchestrator.log",
        report=data / "orchestrator.json",
        environment=passed | environment,
    )


async def _ready(orchestrator: "Child") -> str:
    from amends_embedded import ChildDied, ReportTimeout

    try:
        return str((await orchestrator.ready(READY))["grpc"])
    except (ChildDied, ReportTimeout) as error:
        raise Failure(str(error), f"Its log is {orchestrator.log}.") from None


async def _until_stopped(stop: asyncio.Event, orchestrator: "Child", postgres: "Postgres") -> None:
    while not stop.is_set():
        if not orchestrator.alive:
            raise Failure(f"the orchestrator ended with {orchestrator.exit_code}\n{orchestrator.tail()}")
        if not postgres.running:
            raise Failure(f"Postgres ended; its log is {postgres.log}")
        try:
            await asyncio.wait_for(stop.wait(), timeout=0.5)
        except TimeoutError:
            continue


def _greet(address: str, url: str, data: Path | None, orchestrator: "Child") -> None:
    typer.secho(f"The orchestrator listens on {address}", bold=True)
    if address != DEFAULT:
        typer.echo(f"  export AMENDS_ADDRESS={address}")
    typer.echo(HELP)
    typer.echo(f"database  {url}")
    typer.echo(f"log       {orchestrator.log}")
    typer.echo(f"data      {data if data else 'gone at the end; keep it with --data DIR'}")
    typer.echo("Ctrl-C stops both.")
