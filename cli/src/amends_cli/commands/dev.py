"""`amends dev`: a real Postgres and an orchestrator on this machine, for people with services of their own."""

from pathlib import Path
from typing import Annotated

import typer

from amends_cli.connection import DEFAULT

PORT = int(DEFAULT.rsplit(":", 1)[1])


def dev(
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="Keep everything here; left out: gone at the end.")
    ] = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Where to listen; 0 takes a free port.")] = PORT,
    metrics_port: Annotated[int, typer.Option("--metrics-port", min=0, max=65535, help="For Prometheus.")] = 0,
    log_level: Annotated[str, typer.Option("--log-level", help="debug, info, warning or error.")] = "info",
) -> None:
    """Run Postgres and an orchestrator here until Ctrl-C. Its participants may listen on this machine only."""
    from amends_cli import local  # processes and event loops, which no other command needs

    environment = {
        "AMENDS_PORT": str(port),
        "AMENDS_METRICS_PORT": str(metrics_port),
        "AMENDS_LOG_LEVEL": log_level,
        "AMENDS_TARGETS": "loopback",
    }
    local.refuse_taken(port)
    local.run(data, environment)
