"""Finds the orchestrator, calls it, and turns its errors into sentences. Called by every command that needs a server.

grpc is imported only when a channel is opened: `amends check` without a server must not pay for it.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from amends_cli import cluster, output
from amends_cli.certificates import FILES, own_certificates
from amends_cli.certificates import VARIABLE as TLS_DIR
from amends_cli.failure import CliError, Exit, usage

if TYPE_CHECKING:
    import grpc

    from amends.events.v1.webhooks_pb2_grpc import WebhookServiceStub
    from amends.saga.v1.definition_service_pb2_grpc import DefinitionServiceStub
    from amends.saga.v1.run_service_pb2_grpc import RunServiceStub

VARIABLE = "AMENDS_ADDRESS"
LEFT_BY_UP = Path(".amends") / "address"
DEFAULT = "127.0.0.1:7400"
"""Where `amends dev` listens unless told otherwise."""
CALL_TIMEOUT = timedelta(seconds=15)
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
CHANNEL = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # A box on the way may forget a connection without a word. Then the ping gets no answer, and the call ends.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
)

RUN_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
PREFIX = re.compile(r"[0-9a-f]{1,8}|[0-9a-f]{8}-[0-9a-f-]{0,27}")
"""How a run's id may be shortened."""
ADDRESS = re.compile(r"[A-Za-z0-9._:/\[\]-]*:[0-9]{1,5}")
_ENDED_AT_ONCE = ("socket closed", "connection reset", "broken pipe")
"""What a server that wants TLS looks like to a client that has none."""
TOO_LARGE = re.compile(r"larger than max \((\d+) vs\. (\d+)\)")

HINTS = {
    "SAGA_UNKNOWN": "`amends list sagas` shows those in force; `amends apply FILE` puts one in force.",
    "SAGA_NOT_READY": "`amends get saga/NAME` says why.",
    "INPUT_INVALID": "The input must be canonical protobuf JSON of the saga's input message.",
    "KEY_REUSED": "Choose another --key, or give the same saga and input as at first.",
    "RUN_UNKNOWN": "`amends list` shows the runs; give --key and --namespace to find one by its key.",
    "RUN_ENDED": "Nothing can be decided about it any more; `amends watch RUN` tells what happened.",
    "STATE_CHANGED": "The run has changed since you looked: read `amends get RUN` and decide again.",
    "RESOLUTION_NOT_ALLOWED": "`amends get RUN` lists what is allowed now.",
    "EFFECT_REQUIRED": "Find out whether the call had its effect and say so: --effect happened or --effect none.",
    "RESULT_REQUIRED": "An expression uses this step's response: give it with --result '{...}'.",
    "RUN_NOT_PARKED": "`amends resolve RUN retry` tries it now; `amends resolve RUN park` stops a stalled one.",
    "WEBHOOK_UNKNOWN": "`amends webhooks list` shows those that there are.",
    "EVENT_UNKNOWN": "`amends webhooks parked` shows the events that wait.",
    "EVENT_NOT_PARKED": "`amends webhooks parked` shows the events that wait.",
    "PAST_PIVOT": "The point of no return is passed: the run goes forward to its end.",
}

AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="HOST:PORT",
        envvar=VARIABLE,
        help=f"The orchestrator; left out: a running `amends dev`, what `make up` left in .amends, or {DEFAULT}.",
        show_envvar=True,
    ),
]


def resolve(address: str | None, start: Path | None = None) -> tuple[str, str]:
    """Return the address to use, and in words where it was found.

    An `amends dev` that runs is preferred to a shop that `make up` left running: it was started later, and by name.
    """
    if address:
        return address, f"--address or {VARIABLE}"
    from amends_cli import devs  # files and locks, which a check without a server does not need

    if running := devs.running():
        return running[0].address, "`amends dev`"
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        left = folder / LEFT_BY_UP
        if left.is_file():
            return left.read_text().strip(), str(left)
    return DEFAULT, "the default"


class OrchestratorConnection:
    """An open channel. Make it with `connect`."""

    def __init__(self, channel: "grpc.Channel", forward: cluster.Forward | None = None) -> None:
        self._channel = channel
        self._forward = forward

    def mend(self) -> None:
        """After a call was cut off: forwards the port again if that was why. Raises CliError."""
        if self._forward is not None:
            self._forward.ensure()

    @property
    def runs(self) -> "RunServiceStub":
        """Return the stub of RunService."""
        from amends.saga.v1.run_service_pb2_grpc import RunServiceStub

        return RunServiceStub(self._channel)

    @property
    def definitions(self) -> "DefinitionServiceStub":
        """Return the stub of DefinitionService."""
        from amends.saga.v1.definition_service_pb2_grpc import DefinitionServiceStub

        return DefinitionServiceStub(self._channel)

    @property
    def webhooks(self) -> "WebhookServiceStub":
        """Return the stub of WebhookService."""
        from amends.events.v1.webhooks_pb2_grpc import WebhookServiceStub

        return WebhookServiceStub(self._channel)


@contextmanager
def connect(address: str | None, *, silent: bool = False) -> Iterator[OrchestratorConnection]:
    """Open a channel for a block of calls. Raises CliError for every way in which a call can fail.

    Where the address was found is said on stderr when nobody gave it, unless `silent`.
    """
    through = cluster.current()
    if through is None or address:
        target, found = resolve(address)
        if not address and found != "the default" and not silent:
            _say_once(f"orchestrator {target}, from {found}")
        with _open(target, found) as connection:
            yield connection
        return
    service = through.orchestrator()
    with cluster.Forward(through, service) as forward, _open(forward.address, str(service), forward) as connection:
        yield connection


_said: set[str] = set()


def _say_once(text: str) -> None:
    if text not in _said:  # a command may connect more than once
        _said.add(text)
        output.say(text)


def check_address(target: str) -> None:
    """Raise CliError (wrong use) for what is no address of a server."""
    if "://" in target and not target.startswith(("dns:", "ipv4:", "ipv6:", "unix:")):
        raise usage(f"`{target}` is no address", f"Leave out `{target.partition('://')[0]}://`: give host:port.")
    if target.count(":") > 1 and "[" not in target and "//" not in target and not target.startswith("unix:"):
        host, _, port = target.rpartition(":")
        raise usage(f"`{target}` is no address", f"Write an IPv6 address in brackets: [{host}]:{port}.")
    if not ADDRESS.fullmatch(target) and not target.startswith("unix:"):
        raise usage(f"`{target}` is no address", "Give host:port, e.g. --address 127.0.0.1:7400 or [::1]:7400.")


@contextmanager
def _open(target: str, found: str, forward: cluster.Forward | None = None) -> Iterator[OrchestratorConnection]:
    check_address(target)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its own log lines are no answer to a person
    import grpc
    from amends_chassis.dial import dial_blocking

    with dial_blocking(target, CHANNEL, certificates=own_certificates()) as channel:
        try:
            yield OrchestratorConnection(channel, forward)
        except grpc.RpcError as error:
            raise _failure(error, target, found) from None


def _failure(error: Any, target: str, found: str) -> CliError:
    import grpc

    code, text = error.code(), error.details() or ""
    reason = reason_of(error)
    if code is grpc.StatusCode.UNAVAILABLE and not reason:
        return CliError(
            f"no orchestrator answers at {target} ({found}): {cause_of(text)}",
            "Start one with `amends dev` or `make up`, or say where it is with --address.",
            Exit.UNREACHABLE,
        )
    if code is grpc.StatusCode.DEADLINE_EXCEEDED and not reason:
        return CliError(
            f"the orchestrator at {target} did not answer in time",
            "Try again; `amends list` shows the state.",
            Exit.UNREACHABLE,
        )
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and not reason and (sizes := TOO_LARGE.search(text)):
        return CliError(
            f"the message is too large: {int(sizes[1]):,} bytes, {int(sizes[2]):,} at most",
            "Send a reference instead of the content; the orchestrator's limit is AMENDS_MAX_MESSAGE_BYTES.",
        )
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return CliError(f"the server at {target} is no orchestrator of this version", "Look at --address.")
    label = reason or code.name
    return CliError(f"{text or code.name} ({label})", HINTS.get(reason, ""), reason=reason)


def cause_of(text: str) -> str:
    """Return why a connection failed, from what gRPC says of it."""
    from amends_chassis.dial import cause

    said = cause(text) or (text.splitlines() or ["the connection failed"])[0][:200]
    if own_certificates() is None and any(sign in text.lower() for sign in _ENDED_AT_ONCE):
        said += f"; if it speaks TLS, {TLS_DIR} must name {FILES}"
    return said


def reason_of(error: Any) -> str:
    """Return the reason in ErrorInfo; empty without one."""
    from google.rpc import error_details_pb2  # type: ignore[import-untyped]
    from grpc_status import rpc_status

    status = rpc_status.from_call(error)
    for detail in status.details if status is not None else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
            return str(info.reason)
    return ""
