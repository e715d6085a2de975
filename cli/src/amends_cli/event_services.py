"""The services that `amends events` asks: which they are, and calls to one or several of them.

One that is asked for something which another has says so, and the next one is asked. Called by `commands.events`.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from amends_cli import cluster, connection, output
from amends_cli.certificates import own_certificates
from amends_cli.connection import CALL_TIMEOUT
from amends_cli.failure import CliError, Exit, usage

if TYPE_CHECKING:
    from amends.events.v1.events_service_pb2_grpc import EventsServiceStub

VARIABLE = "AMENDS_EVENTS_ADDRESS"
LEFT_BY_UP = Path(".amends") / "state.json"
HINTS = {
    "BROKER_AWAY": "Is the broker up? The service's log, and AMENDS_BROKER there, say where it should be.",
    "TOPIC_MISSING": "`amends events ensure` makes topics.",
    "CONSUMER_UNKNOWN": "`amends events lag` shows the consumers.",
    "TOPIC_UNKNOWN": "`amends events topics` shows the topics.",
    "PARKED_UNKNOWN": "`amends events parked list` shows what waits.",
    "PARKED_BEHIND_ANOTHER": "Decide about that one; those behind it follow.",
    "DECIDED_ALREADY": "`amends events parked show NAME` shows what becomes of it.",
    "RELEASED_ALREADY": "`amends events decisions` shows who decided what.",
    "LOSS_NOT_ACCEPTED": "If nobody has them any more, go on without: --accept-loss.",
    "NOT_REPEATABLE": "Leave out --force: what was not handled is handled, and nothing twice.",
    "MOVED_MEANWHILE": "Look again with --dry-run.",
    "OUTBOX_EVENT_UNKNOWN": "`amends events outbox` shows what waits.",
    "NOT_KEPT": "Without it, ask the service for an export, or go on with the loss (`replay --accept-loss`).",
    "NO_ACCESS": "Add a rule for your certificate to the service's `access`.",
}

AddressesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--address",
        metavar="HOST:PORT",
        envvar=VARIABLE,
        help="A service; may be repeated. Left out: all that `make up` left in .amends.",
        show_envvar=True,
    ),
]
ServicesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--service", metavar="NAMESPACE/NAME", help="With kubectl: a Service of the cluster; may be repeated."
    ),
]


@dataclass(frozen=True, slots=True)
class AskedService:
    """A service that can be asked."""

    name: str
    """As people know it: its process of `make up`, its Service in the cluster, or its address."""
    address: str
    stub: "EventsServiceStub"
    given: bool
    """Whether somebody named it: one that was found need not have events."""

    def ask(self, method: str, request: Any) -> Any:
        """Call a method. Raises CliError."""
        import grpc

        try:
            return getattr(self.stub, method)(request, timeout=CALL_TIMEOUT.total_seconds())
        except grpc.RpcError as error:
            raise self._failure(error) from None

    def _failure(self, error: Any) -> CliError:
        import grpc

        code, reason = error.code(), connection.reason_of(error)
        if code is grpc.StatusCode.UNIMPLEMENTED:
            return CliError(f"{self.name} has no events", "It neither publishes nor consumes any.", reason=NO_EVENTS)
        if code is grpc.StatusCode.UNAVAILABLE and not reason:
            where = self.name if self.name == self.address else f"{self.name} ({self.address})"
            return CliError(
                f"{where} does not answer: {connection.cause_of(error.details() or '')}",
                "Is it up? Look at --address.",
                Exit.UNREACHABLE,
            )
        if code is grpc.StatusCode.DEADLINE_EXCEEDED and not reason:
            return CliError(f"{self.name} did not answer in time", "Try again.", Exit.UNREACHABLE)
        away = reason == "BROKER_AWAY"
        text = (error.details() or code.name).rstrip(".")
        return CliError(
            f"{self.name}: {text} ({reason or code.name})",
            HINTS.get(reason, ""),
            Exit.UNREACHABLE if away else Exit.FAILED,
            reason=reason,
        )


NO_EVENTS = "NO_EVENTS"
"""The reason of a failure because a service serves no events; the CLI's own."""


@contextmanager
def asked(addresses: list[str] | None, services: list[str] | None) -> Iterator[list[AskedService]]:
    """Open channels to the services that were named, or found. Raises CliError."""
    from amends_chassis.dial import dial_blocking

    from amends.events.v1.events_service_pb2_grpc import EventsServiceStub

    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its own log lines are no answer to a person
    with ExitStack() as stack:
        found = []
        for name, address, given in _targets(stack, addresses or [], services or []):
            connection.check_address(address)
            channel = dial_blocking(address, connection.CHANNEL, certificates=own_certificates())
            found.append(AskedService(name, address, EventsServiceStub(stack.enter_context(channel)), given))
        yield found


def _targets(stack: ExitStack, addresses: list[str], services: list[str]) -> Iterator[tuple[str, str, bool]]:
    """Yield name and address of each service, and whether somebody named it. Raises CliError."""
    through = cluster.current()
    if services and through is None:
        raise usage("--service names a Service of a cluster", "Call `kubectl amends events`, or give --address.")
    for name in services:
        assert through is not None
        forward = stack.enter_context(cluster.Forward(through, through.service(name)))
        yield name, forward.address, True
    for address in addresses:
        yield address, address, True
    if addresses or services:
        return
    if through is not None:
        raise usage("which service?", "Name each with --service NAMESPACE/NAME, for example --service shop/payments.")
    yield from _left_by_up()


def _left_by_up() -> Iterator[tuple[str, str, bool]]:
    here = Path.cwd().resolve()
    path = next((one for folder in (here, *here.parents) if (one := folder / LEFT_BY_UP).is_file()), None)
    if path is None:
        raise usage("which service?", f"Give --address HOST:PORT or {VARIABLE}, or run `make up` first.")
    output.say(f"services from {path}")
    databases = set()
    for name, process in json.loads(path.read_text(encoding="utf-8"))["processes"].items():
        if "metrics" in process and process["database"] not in databases:  # replicas answer alike
            databases.add(process["database"])
            yield name, process["address"], False


def ask_all(services: Sequence[AskedService], method: str, request: Any) -> Iterator[tuple[AskedService, Any]]:
    """Yield the answers of those that answer; then raise CliError when one did not."""
    failures = []
    for service in services:
        try:
            yield service, service.ask(method, request)
        except CliError as failure:
            if failure.reason != NO_EVENTS or service.given:
                failures.append(failure)
    for one in failures[:-1]:
        output.say(f"error: {one.message}")
    if failures:
        raise failures[-1]


def ask_first(
    services: Sequence[AskedService], call: Callable[[AskedService], Any], unknown: Sequence[str]
) -> tuple[AskedService, Any]:
    """Return the first service that knows what it is asked for, and its answer. Raises CliError.

    `unknown` are the reasons with which one says that it does not know.
    """
    said: CliError | None = None
    for service in services:
        try:
            return service, call(service)
        except CliError as failure:
            passed_by = failure.reason == NO_EVENTS and not service.given
            if failure.reason not in unknown and not passed_by:
                raise
            said = said if passed_by and said is not None else failure
    assert said is not None
    raise said
