"""`amends probe`: proves the barrier's promises against a running service, or says which does not hold."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from amends_cli import contracts, descriptors, output
from amends_cli.durations import duration
from amends_cli.failure import CliError, Exit, usage
from amends_cli.output import Column, Format, field

if TYPE_CHECKING:
    from google.protobuf.descriptor import MethodDescriptor
    from google.protobuf.descriptor_pb2 import FileDescriptorSet
    from google.protobuf.descriptor_pool import DescriptorPool

    from amends_cli.probe.requests import Make
    from amends_cli.probe.verdict import QuestionResult
    from amends_cli.probe.wire import ProbeChannel

COLUMNS = [
    Column("PROMISE", field("promise")),
    Column("QUESTION", field("question")),
    Column("RESULT", field("result")),
    Column("WHAT WAS SEEN", field("detail")),
]
LONGEST = timedelta(hours=1)
RequestOption = Annotated[
    Path | None,
    typer.Option(
        "--request",
        metavar="FILE",
        help="The action's request as JSON, with ${unique} where each call differs; otherwise generated.",
    ),
]


def probe(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="The running service, host:port.")],
    method: Annotated[str, typer.Argument(metavar="SERVICE/METHOD", help="The method to test, the action.")],
    request: RequestOption = None,
    compensated_by: Annotated[
        str | None,
        typer.Option(
            "--compensated-by", metavar="METHOD", help="The method that undoes it; otherwise as the contract says."
        ),
    ] = None,
    compensation_request: Annotated[
        Path | None,
        typer.Option("--compensation-request", metavar="FILE", help="The same for the method that undoes it."),
    ] = None,
    observe: Annotated[
        str | None,
        typer.Option(
            "--observe",
            metavar="SERVICE/METHOD",
            help="A read whose answer depends on the effects alone, e.g. a balance or a stock.",
        ),
    ] = None,
    observe_request: Annotated[
        Path | None, typer.Option("--observe-request", metavar="FILE", help="The request of --observe, as JSON.")
    ] = None,
    timeout: Annotated[
        timedelta,
        typer.Option(
            "--timeout", metavar="DURATION", parser=duration, show_default="10s", help="How long one call may take."
        ),
    ] = timedelta(seconds=10),
    descriptor_files: descriptors.DescriptorsOption = None,
    protos: descriptors.Protos = None,
    form: output.Output = Format.TABLE,
) -> None:
    """Prove that a running service keeps the barrier's promises.

    A method and its compensation are called, in order and out of order. Effects are left behind.
    Exit code 0 only if every promise was shown to hold, with its effects observed.
    """
    if timeout > LONGEST:
        raise usage("--timeout is at most an hour")
    known = descriptors.load(descriptor_files, protos)
    _refuse_silence(target, timeout)
    if observe_request is not None and observe is None:
        raise usage("--observe-request needs --observe SERVICE/METHOD")
    asked = ProbeRequest(target, method, request, compensated_by, compensation_request, observe, observe_request)
    verdicts = asyncio.run(asked.run(known, timeout))
    _show(verdicts, form)
    if any(verdict.state.value != "held" for verdict in verdicts):
        raise typer.Exit(Exit.FAILED)


def _refuse_silence(target: str, timeout: timedelta) -> None:
    """Raise CliError when nothing listens at host:port; later it would look like a fault of the contract."""
    import socket

    host, colon, port = target.rpartition(":")
    if not colon or not port.isdecimal() or not port.isascii() or int(port) > 65535 or "/" in host:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), min(timeout.total_seconds(), 5)).close()
    except ConnectionRefusedError:
        raise CliError(f"nothing listens at {target}", "Start the service.", Exit.UNREACHABLE) from None
    except (OSError, UnicodeError) as error:
        said = getattr(error, "strerror", None) or "no answer"
        raise CliError(f"{target} cannot be reached: {said}", "Look at the address.", Exit.UNREACHABLE) from None


def _show(verdicts: "list[QuestionResult]", form: Format) -> None:
    rows = [
        {
            "promise": str(v.promise) if v.promise else "all",
            "question": v.question,
            "result": v.state.value,
            "detail": v.detail,
        }
        for v in verdicts
    ]
    output.emit_rows(rows, COLUMNS, form, empty="")
    if form in (Format.TABLE, Format.WIDE):
        held = sum(v.state.value == "held" for v in verdicts)
        output.line(f"{held} of {len(verdicts)} held")


@dataclass(frozen=True, slots=True)
class ProbeRequest:
    """What the command line asks for: the service, its methods, and files with their requests."""

    target: str
    method: str
    request: Path | None
    compensated_by: str | None
    compensation_request: Path | None
    observe: str | None
    observe_request: Path | None

    async def run(self, known: "FileDescriptorSet | None", timeout: timedelta) -> "list[QuestionResult]":
        """Find the contracts, then ask every question."""
        from amends_cli.probe import cases, requests
        from amends_cli.probe.wire import ProbeChannel

        wire = ProbeChannel(self.target, timeout)
        try:
            pool = await _pool(
                known, wire, [_service(self.method)] + ([_service(self.observe)] if self.observe else [])
            )
            action = _find(pool, self.method)
            undo = self._undo(pool, action)
            subject = cases.Subject(
                wire,
                f"/{action.containing_service.full_name}/{action.name}",
                f"/{undo.containing_service.full_name}/{undo.name}",
                _make(self.request, action),
                _make(self.compensation_request, undo),
            )
            if self.observe:
                read = _find(pool, self.observe)
                subject.observe = f"/{read.containing_service.full_name}/{read.name}"
                subject.make_observe = (
                    requests.from_file(self.observe_request, read.input_type)
                    if self.observe_request
                    else requests.generated(read.input_type)
                )
            return await cases.ask_all(subject)
        finally:
            await wire.close()

    def _undo(self, pool: "DescriptorPool", action: "MethodDescriptor") -> "MethodDescriptor":
        name = self.compensated_by or _declared(action)
        if not name:
            raise usage(
                f"{self.method} does not say what undoes it",
                "Give --compensated-by METHOD, or set option (amends.options.v1.method).compensated_by.",
            )
        own = action.containing_service.full_name
        if name.rpartition("/")[0] not in ("", own):
            raise usage(f"{name} is of another service", f"Action and compensation are of one service, here {own}.")
        return _find(pool, f"{own}/{name.rpartition('/')[2]}")


async def _pool(known: "FileDescriptorSet | None", wire: "ProbeChannel", services: list[str]) -> "DescriptorPool":
    """Return all contracts: the given ones, else those that the service's reflection has."""
    from amends_saga.descriptors import DescriptorError, build_pool

    sets = [known] if known is not None else [await contracts.reflect(wire.channel, name) for name in services]
    files = {file.name: file for contract in sets for file in contract.file}
    try:
        return build_pool(files.values())
    except DescriptorError as error:
        raise usage(
            f"the contracts cannot be used: {error}",
            "Write them again with everything that they import: protoc --include_imports.",
        ) from None


def _service(method: str) -> str:
    service, slash, name = method.strip("/").partition("/")
    if not slash or not name or not service:
        raise usage(f"`{method}` is no SERVICE/METHOD", "For example shop.payments.v1.PaymentService/Charge.")
    return service


def _find(pool: "DescriptorPool", method: str) -> "MethodDescriptor":
    from difflib import get_close_matches

    service_name, name = _service(method), method.strip("/").partition("/")[2]
    try:
        service = pool.FindServiceByName(service_name)
    except KeyError:
        raise usage(f"the contracts know no service {service_name}") from None
    found = service.methods_by_name.get(name)
    if found is None:
        near = get_close_matches(name, list(service.methods_by_name), n=1)
        raise usage(f"{service_name} has no method {name}", f"Did you mean {near[0]}?" if near else "")
    if found.client_streaming or found.server_streaming:
        raise usage(f"{name} is a stream", "A step of a saga is one request and one response.")
    return found


def _declared(action: "MethodDescriptor") -> str:
    """Return the method that the contract says undoes this one; empty when it says nothing."""
    from google.protobuf.descriptor_pb2 import MethodOptions

    from amends.options.v1 import options_pb2

    options = MethodOptions.FromString(action.GetOptions().SerializeToString())
    return str(options.Extensions[options_pb2.method].compensated_by)


def _make(path: Path | None, method: "MethodDescriptor") -> "Make":
    from amends_cli.probe import requests

    if path is None:
        return requests.generated(method.input_type)
    make = requests.from_file(path, method.input_type)
    if not requests.is_unique(path):
        raise usage(f"{path} has no ${{unique}} in it", "Put it where two operations differ, e.g. in the order's id.")
    return make
