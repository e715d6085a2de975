"""Finds the monitor, and opens a channel to it. Called by `flows` and `apply`."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from amends_cli import cluster, connection, output
from amends_cli.certificates import own_certificates
from amends_cli.failure import CliError, Exit, usage

if TYPE_CHECKING:
    from amends.monitor.v1.monitor_service_pb2_grpc import MonitorServiceStub

VARIABLE = "AMENDS_MONITOR_ADDRESS"
LEFT_BY_UP = Path(".amends") / "state.json"
_HELP = "The monitor; left out: that of the shop that `make up` left running."

MonitorAddress = Annotated[
    str | None,
    typer.Option("--address", metavar="HOST:PORT", envvar=VARIABLE, help=_HELP, show_envvar=True),
]
MonitorOption = Annotated[
    str | None,
    typer.Option(
        "--monitor", metavar="HOST:PORT", envvar=VARIABLE, help=f"For Choreographies. {_HELP}", show_envvar=True
    ),
]


@contextmanager
def connect(address: str | None) -> Iterator["MonitorServiceStub"]:
    """Open a channel for a block of calls. Raises CliError for every way in which a call can fail."""
    through = cluster.current()
    if through is None or address:
        with _open(address or _left_by_up()) as stub:
            yield stub
        return
    with cluster.Forward(through, through.monitor()) as forward, _open(forward.address) as stub:
        yield stub


def _left_by_up() -> str:
    here = Path.cwd().resolve()
    path = next((one for folder in (here, *here.parents) if (one := folder / LEFT_BY_UP).is_file()), None)
    processes = {} if path is None else json.loads(path.read_text(encoding="utf-8"))["processes"]
    if "monitor" not in processes:
        raise usage(
            "where is the monitor?", f"Give its HOST:PORT as {VARIABLE}, or as an option, or run `make up` first."
        )
    output.say(f"monitor {processes['monitor']['address']}, from {path}")
    return str(processes["monitor"]["address"])


@contextmanager
def _open(target: str) -> Iterator["MonitorServiceStub"]:
    connection.check_address(target)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its own log lines are no answer to a person
    import grpc
    from amends_chassis.dial import dial_blocking

    from amends.monitor.v1.monitor_service_pb2_grpc import MonitorServiceStub

    with dial_blocking(target, connection.CHANNEL, certificates=own_certificates()) as channel:
        try:
            yield MonitorServiceStub(channel)
        except grpc.RpcError as error:
            raise _failure(error, target) from None


def _failure(error: Any, target: str) -> CliError:
    import grpc

    code, text, reason = error.code(), error.details() or "", connection.reason_of(error)
    if code is grpc.StatusCode.UNAVAILABLE and not reason:
        said = f"no monitor answers at {target}: {connection.cause_of(text)}"
        return CliError(said, "Say where it is with --address.", Exit.UNREACHABLE)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED and not reason:
        return CliError(f"the monitor at {target} did not answer in time", "Try again.", Exit.UNREACHABLE)
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return CliError(f"the server at {target} is no monitor of this version", "Look at --address.")
    return CliError(f"{text or code.name} ({reason or code.name})", reason=reason)
