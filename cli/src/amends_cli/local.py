"""The processes behind `amends dev`: an embedded Postgres and one orchestrator. Called by `amends_cli.commands.dev`."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import tempfile
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import typer
from amends_chassis.dial import dial
from amends_embedded import Child, ChildDied, Children, Postgres, PostgresAlreadyRunning, PostgresError, ReportTimeout
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from amends_cli import output
from amends_cli.connection import DEFAULT
from amends_cli.failure import Failure, usage

READY = timedelta(seconds=60)
HELP = """
  amends apply participant.yaml saga.yaml      put a saga in force (--descriptors FILE for services without reflection)
  amends start SAGA --input '{...}' --watch    run it and see its timeline
  amends list                                  the runs
"""


def refuse_taken(port: int) -> None:
    """Raises Failure (wrong use) when somebody listens on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            hint = "Choose one with --port; 0 takes a free one."
            raise usage(f"port {port} cannot be used: {error.strerror}", hint) from None


def run(data: Path | None, environment: dict[str, str]) -> None:
    """Serves until Ctrl-C or SIGTERM. Without `data` everything is gone afterwards. Raises Failure."""
    if data is not None:
        asyncio.run(_serve(data, environment, kept=True))
        return
    with tempfile.TemporaryDirectory(prefix="amends-dev-") as scratch:
        asyncio.run(_serve(Path(scratch), environment, kept=False))


async def _serve(data: Path, environment: dict[str, str], *, kept: bool) -> None:
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


def _orchestrator(data: Path, environment: dict[str, str]) -> Child:
    passed = {name: value for name, value in os.environ.items() if name.startswith(("AMENDS_OTLP", "AMENDS_TRACE"))}
    return Child.start(
        "orchestrator",
        [sys.executable, "-m", "amends_orchestrator"],
        log=data / "orchestrator.log",
        report=data / "orchestrator.json",
        environment=passed | environment,
    )


async def _ready(orchestrator: Child) -> str:
    try:
        address = str((await orchestrator.ready(READY))["grpc"])
        await _serving(orchestrator, address)
        return address
    except (ChildDied, ReportTimeout) as error:
        raise Failure(str(error), f"Its log is {orchestrator.log}.") from None


async def _serving(orchestrator: Child, address: str) -> None:
    """It reports as soon as it listens; ready it is when its tables are there."""
    end = asyncio.get_running_loop().time() + READY.total_seconds()
    async with dial(address) as channel:
        health: Any = HealthStub(channel)
        while orchestrator.alive and asyncio.get_running_loop().time() < end:
            with contextlib.suppress(grpc.aio.AioRpcError):
                answer = await health.Check(HealthCheckRequest(service="readiness"), timeout=1, wait_for_ready=True)
                if answer.status == HealthCheckResponse.SERVING:
                    return
            await asyncio.sleep(0.05)
    raise ChildDied(f"the orchestrator does not become ready\n{orchestrator.tail()}")


async def _until_stopped(stop: asyncio.Event, orchestrator: Child, postgres: Postgres) -> None:
    while not stop.is_set():
        if not orchestrator.alive:
            raise Failure(f"the orchestrator ended with {orchestrator.exit_code}\n{orchestrator.tail()}")
        if not postgres.running:
            raise Failure(f"Postgres ended; its log is {postgres.log}")
        try:
            await asyncio.wait_for(stop.wait(), timeout=0.5)
        except TimeoutError:
            continue


def _greet(address: str, url: str, data: Path | None, orchestrator: Child) -> None:
    typer.secho(f"The orchestrator listens on {address}", bold=True)
    if address != DEFAULT:
        typer.echo(f"  export AMENDS_ADDRESS={address}")
    typer.echo(HELP)
    typer.echo(f"database  {url}")
    typer.echo(f"log       {orchestrator.log}")
    typer.echo(f"data      {data if data else 'gone at the end; keep it with --data DIR'}")
    typer.echo("Ctrl-C stops both.")
