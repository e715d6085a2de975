"""`amends start`, `watch`, `resolve` and `cancel`: what people do with runs."""

import getpass
import socket
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from amends_cli import connection, output
from amends_cli.connection import CALL_TIMEOUT
from amends_cli.failure import Exit, Failure, usage
from amends_cli.output import Format

if TYPE_CHECKING:
    from amends.saga.v1.run_service_pb2 import WatchRunResponse

RECONNECT = timedelta(milliseconds=200)
FOREVER = timedelta(days=1)
"""How long to wait for the end of a run when nothing was said."""


class Decision(StrEnum):
    """What a person can decide about a run."""

    RETRY = "retry"
    SKIP = "skip"
    COMPENSATE = "compensate"
    PARK = "park"


class Effect(StrEnum):
    """What a person knows about a plain call."""

    HAPPENED = "happened"
    NONE = "none"


RunId = Annotated[str, typer.Argument(metavar="RUN", help="The run's id; with kubectl also the name of a SagaRun.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept in the journal for ever.")]
Actor = Annotated[str, typer.Option("--actor", help="Who decides; left out: user@host.")]


def start(
    saga: Annotated[str, typer.Argument(help="The saga's name.")],
    given: Annotated[
        str, typer.Option("-i", "--input", metavar="JSON|@FILE|-", help="The input message as protobuf JSON.")
    ] = "{}",
    key: Annotated[
        str, typer.Option("--key", help="The same key starts nothing twice; left out: a new one is made and printed.")
    ] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the run has ended or is parked.")] = False,
    follow: Annotated[
        bool, typer.Option("--watch", help="Show the timeline until the run has ended or is parked.")
    ] = False,
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds to wait at most.")] = 60.0,
    namespace: connection.Namespace = "default",
    form: output.Output = Format.TABLE,
    address: connection.Address = None,
) -> None:
    """Start a run of a saga."""
    from amends.saga.v1 import run_service_pb2

    request = run_service_pb2.StartRunRequest(
        namespace=namespace, saga=saga, idempotency_key=key or str(uuid.uuid4()), json_text=_json("--input", given)
    )
    limit = timedelta(seconds=timeout)
    if wait and not follow:
        request.wait = True
        request.wait_timeout.FromTimedelta(limit)
    with _naming(saga, namespace, address), connection.connect(address) as server:
        answer = server.runs.StartRun(request, timeout=(limit + CALL_TIMEOUT).total_seconds())
        run = answer.run
        if not answer.created:
            output.say(f"a run with the key {run.idempotency_key} was there already")
        if follow:
            if form in (Format.TABLE, Format.WIDE):
                output.say(f"run {run.run_id}, key {run.idempotency_key}")
            run = _follow(server, run.run_id, limit, form, until_parked=True)
    _report(run, form, told=follow)
    if wait or follow:
        _exit_by(run)


@contextmanager
def _naming(saga: str, namespace: str, address: str | None) -> Iterator[None]:
    """Says which saga is not there, and which one may have been meant."""
    from difflib import get_close_matches

    from amends_cli.commands.show import Kind, resources

    try:
        yield
    except Failure as failure:
        if failure.reason != "SAGA_UNKNOWN":
            raise
        with connection.connect(address) as server:
            known = resources(server, Kind.SAGAS, "")
        elsewhere = sorted(other.namespace for other in known if other.name == saga)
        near = get_close_matches(saga, [other.name for other in known if other.namespace == namespace], n=1)
        hint = f"Did you mean `{near[0]}`?" if near else failure.hint
        if elsewhere:
            hint = f"There is one in the namespace {elsewhere[0]}: add `-n {elsewhere[0]}`."
        raise Failure(f"there is no saga {namespace}/{saga}", hint) from None


def watch(
    run: RunId,
    until_parked: Annotated[bool, typer.Option("--until-parked", help="End when the run waits for a person.")] = False,
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds to watch at most; left out: a day.")] = (
        FOREVER.total_seconds()
    ),
    namespace: connection.Namespace = "default",
    form: output.Output = Format.TABLE,
    address: connection.Address = None,
) -> None:
    """Show the timeline of a run live, until it has ended. Exit code 0 when it is COMPLETED, else 1."""
    run = connection.run_id(run, namespace)
    with connection.connect(address) as server:
        last = _follow(server, run, timedelta(seconds=timeout), form, until_parked=until_parked)
    _exit_by(last)


def resolve(
    run: RunId,
    decision: Annotated[Decision, typer.Argument(help="What to do.")],
    reason: Reason,
    actor: Actor = "",
    effect: Annotated[
        Effect | None, typer.Option("--effect", help="For a plain call in doubt: whether it had its effect.")
    ] = None,
    result: Annotated[
        str,
        typer.Option(
            "--result", metavar="JSON|@FILE|-", help="The response of the stuck step, where an expression uses it."
        ),
    ] = "",
    seq: Annotated[
        int | None, typer.Option("--seq", help="The sequence number of the parked record that the decision is about.")
    ] = None,
    namespace: connection.Namespace = "default",
    form: output.Output = Format.TABLE,
    address: connection.Address = None,
) -> None:
    """Decide what a parked run does next; kept in its journal with who and why."""
    from amends.saga.v1 import run_service_pb2 as api
    from amends_cli.commands import show

    run = connection.run_id(run, namespace)
    request = api.ResolveRunRequest(
        run_id=run,
        resolution=api.Resolution.Value(f"RESOLUTION_{decision.upper()}"),
        reason=reason,
        actor=actor or _me(),
        effect=api.Effect.Value(f"EFFECT_{effect.upper()}") if effect else api.EFFECT_UNSPECIFIED,
    )
    if result:
        request.result_json = _json("--result", result)
    with connection.connect(address) as server:
        # Without --seq the decision is about what is there now; the orchestrator refuses it if that changes meanwhile.
        request.expected_seq = seq if seq is not None else show.fetch(server, run, payloads=False).parked.seq
        answer = server.runs.ResolveRun(request, timeout=CALL_TIMEOUT.total_seconds())
    _report_wish(answer, form)


def cancel(
    run: RunId,
    reason: Reason,
    actor: Actor = "",
    namespace: connection.Namespace = "default",
    form: output.Output = Format.TABLE,
    address: connection.Address = None,
) -> None:
    """Ask a run to undo what it did; refused once it is past its pivot."""
    from amends.saga.v1 import run_service_pb2

    run = connection.run_id(run, namespace)
    request = run_service_pb2.CancelRunRequest(run_id=run, reason=reason, actor=actor or _me())
    with connection.connect(address) as server:
        answer = server.runs.CancelRun(request, timeout=CALL_TIMEOUT.total_seconds())
    _report_wish(answer, form)


def _follow(server: connection.Connection, run_id: str, limit: timedelta, form: Format, *, until_parked: bool) -> Any:
    """Tells the story of a run to its end; returns it as it stood last. Raises Failure when that takes too long."""
    from amends.saga.v1 import run_pb2
    from amends_cli import timeline

    story = timeline.Story(output.console(), as_json=form in (Format.JSON, Format.YAML))
    for answer in _records(server, run_id, limit):
        story.tell(answer)
        if until_parked and story.run is not None and story.run.state == run_pb2.RUN_STATE_PARKED:
            break
    story.end()
    return story.run


def _records(server: connection.Connection, run_id: str, limit: timedelta) -> Iterator["WatchRunResponse"]:
    """The records of a run, each once; goes on where it was when the replica that sent them is gone."""
    import grpc

    from amends.saga.v1 import run_service_pb2

    request = run_service_pb2.WatchRunRequest(run_id=run_id, payloads=run_service_pb2.PAYLOADS_NONE)
    end = time.monotonic() + limit.total_seconds()
    seen = False
    while True:
        stream = server.runs.WatchRun(request, timeout=max(0.0, end - time.monotonic()))
        try:
            for answer in stream:
                seen = True
                request.after_seq = max(request.after_seq, answer.event.seq)
                yield answer
            return
        except grpc.RpcError as error:
            code = error.code()
            if code is grpc.StatusCode.DEADLINE_EXCEEDED:
                hint = f"`amends watch {run_id}` goes on watching."
                raise Failure(f"the run has not ended within {limit.total_seconds():g} s", hint) from None
            if code is not grpc.StatusCode.UNAVAILABLE or not seen:
                raise
            time.sleep(RECONNECT.total_seconds())
            server.mend()
        finally:
            stream.cancel()


def _report(run: Any, form: Format, *, told: bool = False) -> None:
    from amends_cli import timeline
    from amends_cli.commands.show import plain_run

    if told or output.emit(plain_run(run), form):
        return
    printer = output.console()
    printer.print(f"{run.run_id}  {timeline.final_line(run)}")
    for line in timeline.parked_lines(run):
        printer.print(line, style="magenta", markup=False)


def _report_wish(answer: Any, form: Format) -> None:
    """Shows the run after a decision, and says when what was asked is not decided yet."""
    _report(answer.run, form)
    if answer.pending:
        output.say(
            "asked for, but not yet decided: the owner of the run has not answered, and may still refuse it. "
            f"`amends get {answer.run.run_id}` tells."
        )


def _exit_by(run: Any) -> None:
    from amends.saga.v1 import run_pb2

    if run is None or run.state != run_pb2.RUN_STATE_COMPLETED:
        raise typer.Exit(Exit.FAILED)


def _json(option: str, text: str) -> str:
    """Reads the JSON object given on the command line, in a file (@FILE) or on standard input (-); returns its text.

    The text is sent as it is, so that every digit arrives. Raises Failure (wrong use).
    """
    from amends_saga.jsonform import InputError, read_object

    example = f'For example: {option} \'{{"orderId": "o-1"}}\'.'
    try:
        if text == "-":
            text = sys.stdin.read()
        elif text.startswith("@"):
            text = Path(text[1:]).read_text(encoding="utf-8-sig")
        text.encode()
        read_object(text)
    except OSError as error:
        raise usage(f"{option}: {error.filename} cannot be read: {error.strerror}") from None
    except UnicodeError:
        raise usage(f"{option} is no text in UTF-8", example) from None
    except InputError as error:
        place = f" at {error.path}" if error.path else ""
        sentence = error.message[:1].lower() + error.message[1:].rstrip(".")
        raise usage(f"{option} cannot be used{place}: {sentence}", example) from None
    return text


def _me() -> str:
    return f"{getpass.getuser()}@{socket.gethostname()}"
