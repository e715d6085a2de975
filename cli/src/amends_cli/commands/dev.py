"""`amends dev`: a real Postgres and an orchestrator on this machine, for people with services of their own."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from amends_cli.connection import DEFAULT
from amends_cli.failure import usage

PORT = int(DEFAULT.rsplit(":", 1)[1])


class Level(StrEnum):
    """The least severe lines that a log shows."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def dev(
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", metavar="DIR", help="Keep all data in this folder; left out: the data is deleted at the end."
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            metavar="N",
            min=0,
            max=65535,
            show_default=str(PORT),
            help="Where to listen; 0 takes a free port.",
        ),
    ] = None,
    metrics_port: Annotated[
        int,
        typer.Option("--metrics-port", metavar="N", min=0, max=65535, help="The port where Prometheus reads metrics."),
    ] = 0,
    log_level: Annotated[Level, typer.Option("--log-level", help="What the orchestrator logs.")] = Level.INFO,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when it is ready, and leave it running.")
    ] = False,
    stop: Annotated[bool, typer.Option("--stop", help="Stop the one that runs; with --port the one there.")] = False,
) -> None:
    """Run Postgres and an orchestrator here until Ctrl-C.

    Its participants may listen on this machine only. Commands find a running one by themselves, before a shop that
    `make up` started.
    """
    from amends_cli import local  # processes and event loops, which no other command needs

    if stop:
        if detach or data is not None:
            raise usage("--stop goes with --port alone", "Start one in another command.")
        local.stop(port)
        return
    listen = PORT if port is None else port
    environment = {
        "AMENDS_PORT": str(listen),
        "AMENDS_METRICS_PORT": str(metrics_port),
        "AMENDS_LOG_LEVEL": log_level.value,
        "AMENDS_TARGETS": "loopback",
    }
    local.refuse_taken(listen)
    if data is not None:
        local.check_folder(data)
    if detach:
        given = [] if data is None else [f"--data={data}"]
        options = (f"--port={listen}", f"--metrics-port={metrics_port}", f"--log-level={log_level.value}")
        local.detach([*given, *options])
        return
    local.run(data, environment)
