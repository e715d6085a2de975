"""The processes behind `amends dev`: an embedded Postgres and one orchestrator. Called by `amends_cli.commands.dev`."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc.aio
from amends_chassis.dial import dial
from amends_embedded import (
    Child,
    ChildDiedError,
    Children,
    Postgres,
    PostgresAlreadyRunningError,
    PostgresError,
    ReportTimeoutError,
)
from amends_embedded.process import until
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from amends_cli import devs, output
from amends_cli.connection import DEFAULT
from amends_cli.failure import CliError, usage
from amends_cli.output import Styled

READY = timedelta(seconds=60)
STOPPED = timedelta(seconds=30)
REPORT = "AMENDS_REPORT_FILE"
PASSED = ("AMENDS_OTLP", "AMENDS_TRACE", "AMENDS_WEBHOOK")
"""Settings of the environment that the orchestrator is given as they are, by how they begin."""
HELP = """
  amends apply participant.yaml saga.yaml      put a saga in force (--descriptors FILE for services without reflection)
  amends start SAGA --input '{...}' --watch    run it and see its timeline
  amends list                                  the runs
"""


def refuse_taken(port: int) -> None:
    """Raise CliError (wrong use) when somebody listens on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            hint = "Choose one with --port; 0 takes a free one."
            raise usage(f"port {port} cannot be used: {error.strerror}", hint) from None


def check_folder(data: Path) -> None:
    """Raise CliError (wrong use) when the folder cannot hold data; make it when it does not exist."""
    try:
        data.mkdir(parents=True, exist_ok=True)
        if not os.access(data, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise usage(f"--data {data} cannot be used: {error.strerror}", "Name a folder of your own.") from None


def run(data: Path | None, environment: dict[str, str]) -> None:
    """Serve until Ctrl-C or SIGTERM. Without `data` everything is gone afterwards. Raises CliError."""
    if data is not None:
        asyncio.run(_serve(data, environment, kept=True))
        return
    with tempfile.TemporaryDirectory(prefix="amends-dev-") as scratch:
        asyncio.run(_serve(Path(scratch), environment, kept=False))


def _passed() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(PASSED)}


def detach(arguments: list[str]) -> None:
    """Start `amends dev` in the background and return when it is ready. Raises CliError."""
    home = Path(tempfile.mkdtemp(prefix="amends-dev-log-"))
    command = [sys.executable, "-m", "amends_cli", "dev", *arguments]
    log, report = home / "dev.log", home / "ready.json"
    child = Child.start("amends dev", command, log=log, report=report, environment=_passed(), outlives_us=True)
    try:
        asyncio.run(child.ready(READY))
    except (ChildDiedError, ReportTimeoutError) as error:
        child.kill()
        raise CliError(str(error)) from None
    output.lines(child.log.read_text(encoding="utf-8", errors="replace"))


def stop(port: int | None) -> None:
    """Stop the `amends dev` of this user, or the one on a port, and wait for its end. Raises CliError."""
    running = [dev for dev in devs.running() if port is None or dev.address.endswith(f":{port}")]
    if not running:
        raise CliError("no `amends dev` runs", "`amends dev` starts one.")
    if len(running) > 1:
        ports = ", ".join(dev.address.rpartition(":")[2] for dev in running)
        raise usage("several `amends dev` run", f"Name one with --port: {ports}.")
    os.kill(running[0].pid, signal.SIGTERM)
    if not asyncio.run(until(lambda: running[0] not in devs.running(), STOPPED)):
        raise CliError(f"process {running[0].pid} has not stopped within {STOPPED.total_seconds():g} s")
    output.say(f"stopped the orchestrator at {running[0].address}")


async def _serve(data: Path, environment: dict[str, str], *, kept: bool) -> None:
    stop = asyncio.Event()
    for order in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(order, stop.set)
    async with AsyncExitStack() as stack:
        try:
            await _run(stack, stop, data, environment, kept=kept)
        except PostgresAlreadyRunningError as error:
            raise CliError(str(error), "Another `amends dev` uses this folder.") from None
        except PostgresError as error:
            raise CliError(str(error)) from None
        output.say("stopping")


async def _run(
    stack: AsyncExitStack, stop: asyncio.Event, data: Path, environment: dict[str, str], *, kept: bool
) -> None:
    announce = stack.enter_context(devs.registered())
    # Not cut off: what has begun to start must be known before it can be stopped. It takes two seconds.
    postgres = await stack.enter_async_context(await Postgres.start(data / "postgres"))
    url = await postgres.create("orchestrator", "orchestrator")
    children = await stack.enter_async_context(Children())
    orchestrator = children.add(_orchestrator(data, environment | {"AMENDS_DATABASE_URL": url}))
    address = await _unless_stopped(stop, _ready(orchestrator))
    if address is None:
        return
    announce(address)
    _greet(address, url, data if kept else None, orchestrator)
    output.finish()
    _report_ready()
    await _until_stopped(stop, orchestrator, postgres)


def _report_ready() -> None:
    """Tell the process that started this one in the background, and waits, that all is ready."""
    if REPORT in os.environ:
        report = Path(os.environ[REPORT])
        draft = report.with_name(f".{report.name}.{os.getpid()}")  # it is there whole, or not at all
        draft.write_text("{}", encoding="utf-8")
        draft.replace(report)


async def _unless_stopped(stop: asyncio.Event, work: Coroutine[Any, Any, str]) -> str | None:
    """Return what the work returns; None when a person asks for the end first, which ends the work too."""
    task, stopped = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        stopped.cancel()
        task.cancel()


def _orchestrator(data: Path, environment: dict[str, str]) -> Child:
    return Child.start(
        "orchestrator",
        [sys.executable, "-m", "amends_orchestrator"],
        log=data / "orchestrator.log",
        report=data / "orchestrator.json",
        environment=_passed() | environment,
    )


async def _ready(orchestrator: Child) -> str:
    try:
        address = str((await orchestrator.ready(READY))["grpc"])
        await _serving(orchestrator, address)
        return address
    except (ChildDiedError, ReportTimeoutError) as error:
        raise CliError(str(error), f"Its log is {orchestrator.log}.") from None


async def _serving(orchestrator: Child, address: str) -> None:
    """Wait until the tables exist: the orchestrator reports earlier, as soon as it listens."""
    end = asyncio.get_running_loop().time() + READY.total_seconds()
    async with dial(address) as channel:
        health: Any = HealthStub(channel)
        while orchestrator.alive and asyncio.get_running_loop().time() < end:
            with contextlib.suppress(grpc.aio.AioRpcError):
                answer = await health.Check(HealthCheckRequest(service="readiness"), timeout=1, wait_for_ready=True)
                if answer.status == HealthCheckResponse.SERVING:
                    return
            await asyncio.sleep(0.05)
    raise ChildDiedError(f"the orchestrator does not become ready\n{orchestrator.tail()}")


async def _until_stopped(stop: asyncio.Event, orchestrator: Child, postgres: Postgres) -> None:
    while not stop.is_set():
        if not orchestrator.alive:
            raise CliError(f"the orchestrator ended with {orchestrator.exit_code}\n{orchestrator.tail()}")
        if not postgres.running:
            raise CliError(f"Postgres ended; its log is {postgres.log}")
        try:
            await asyncio.wait_for(stop.wait(), timeout=0.5)
        except TimeoutError:
            continue


def _greet(address: str, url: str, data: Path | None, orchestrator: Child) -> None:
    output.line(Styled(f"The orchestrator listens on {address}", bold=True))
    if address != DEFAULT:
        output.line(f"  export AMENDS_ADDRESS={address}")
    output.lines(HELP)
    output.line(f"database  {url}")
    output.line(f"log       {orchestrator.log}")
    output.line(f"data      {data if data else 'gone at the end; keep it with --data DIR'}")
    detached = REPORT in os.environ
    output.line(f"{'' if detached else 'Ctrl-C, or '}`amends dev --stop`{'' if detached else ','} stops both.")
