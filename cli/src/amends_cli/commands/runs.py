"""`amends start`, `watch`, `resolve` and `cancel`: what people do with runs."""

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

from amends_cli import connection, manifests, options, output, runids, suggestions
from amends_cli.connection import CALL_TIMEOUT
from amends_cli.durations import duration
from amends_cli.failure import CliError, Exit, usage
from amends_cli.output import Format, Styled
from amends_cli.resources import ListedKind, fetch_all, plain_run

if TYPE_CHECKING:
    from amends.saga.v1.run_service_pb2 import WatchRunResponse

RECONNECT = timedelta(milliseconds=200)
LONGEST_RECONNECT = timedelta(seconds=5)
IN_VAIN = 8
"""After this many streams without a record, one after the other, the command gives up: the network is not the cause."""
FOREVER = timedelta(days=1)
"""How long to wait for the end of a run when nothing was said."""


class DecisionChoice(StrEnum):
    """The decisions that a person can take about a parked run."""

    RETRY = "retry"
    SKIP = "skip"
    COMPENSATE = "compensate"
    AMEND = "amend"
    PARK = "park"


class EffectChoice(StrEnum):
    """What a person knows about the effect of a plain call."""

    HAPPENED = "happened"
    NONE = "none"


RunId = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="The run's id, or how it begins; with kubectl also the name of a SagaRun.",
        autocompletion=suggestions.runs,
    ),
]
ReasonOption = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; kept in the journal for ever.")]


def start(
    saga: Annotated[str, typer.Argument(metavar="SAGA", help="The saga's name.", autocompletion=suggestions.sagas)],
    given: Annotated[
        str, typer.Option("-i", "--input", metavar="JSON|@FILE|-", help="The input message as protobuf JSON.")
    ] = "{}",
    key: Annotated[
        str,
        typer.Option(
            "--key", metavar="KEY", help="The same key starts nothing twice; left out: a new one is made and printed."
        ),
    ] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the run has ended or is parked.")] = False,
    follow: Annotated[
        bool, typer.Option("--watch", help="Show the timeline until the run has ended or is parked.")
    ] = False,
    timeout: Annotated[
        timedelta,
        typer.Option(
            "--timeout", metavar="DURATION", parser=duration, show_default="1m", help="How long to wait at most."
        ),
    ] = timedelta(minutes=1),
    namespace: options.SagaNamespace = "default",
    form: output.Output = Format.TABLE,
    address: connection.AddressOption = None,
) -> None:
    """Start a run of a saga.

    With --wait or --watch the exit code tells how it stands: 0 COMPLETED, 4 COMPENSATED, 5 PARKED, 6 still under way.
    """
    from amends.saga.v1 import run_service_pb2

    request = run_service_pb2.StartRunRequest(
        namespace=namespace, saga=saga, idempotency_key=key or str(uuid.uuid4()), json_text=_json("--input", given)
    )
    if wait and not follow:
        request.wait = True
        request.wait_timeout.FromTimedelta(timeout)
    with _naming(saga, namespace, address), connection.connect(address) as server:
        answer = server.runs.StartRun(request, timeout=(timeout + CALL_TIMEOUT).total_seconds())
        run = answer.run
        if not answer.created:
            output.say(f"a run with the key {run.idempotency_key} was there already")
        if follow:
            if form in (Format.TABLE, Format.WIDE):
                output.say(f"run {run.run_id}, key {run.idempotency_key}")
            run = _follow(server, run.run_id, timeout, form, until_parked=True)
    _report(run, form, told=follow)
    if wait or follow:
        _exit_by(run)


@contextmanager
def _naming(saga: str, namespace: str, address: str | None) -> Iterator[None]:
    """Say which saga does not exist, and which one may have been meant."""
    from difflib import get_close_matches

    try:
        yield
    except CliError as failure:
        if failure.reason != "SAGA_UNKNOWN":
            raise
        with connection.connect(address) as server:
            known = fetch_all(server, ListedKind.SAGAS, "")
        elsewhere = sorted(other.namespace for other in known if other.name == saga)
        near = get_close_matches(saga, [other.name for other in known if other.namespace == namespace], n=1)
        hint = f"Did you mean `{near[0]}`?" if near else failure.hint
        if elsewhere:
            hint = f"There is one in the namespace {elsewhere[0]}: add `-n {elsewhere[0]}`."
        raise CliError(f"there is no saga {namespace}/{saga}", hint) from None


def watch(
    context: typer.Context,
    run: RunId,
    until_parked: Annotated[bool, typer.Option("--until-parked", help="End when the run waits for a person.")] = False,
    timeout: Annotated[
        timedelta,
        typer.Option(
            "--timeout", metavar="DURATION", parser=duration, show_default="1d", help="How long to watch at most."
        ),
    ] = FOREVER,
    namespace: options.RunNamespace = "default",
    form: output.Output = Format.TABLE,
    address: connection.AddressOption = None,
) -> None:
    """Show the timeline of a run live, until it has ended.

    Exit code: 0 COMPLETED, 4 COMPENSATED, 5 PARKED, 6 still under way. A parked run is waited for on a terminal only.
    """
    with connection.connect(address) as server:
        run = runids.find(server, context, run)
        until_parked = until_parked or not sys.stdout.isatty()
        last = _follow(server, run, timeout, form, until_parked=until_parked)
    _exit_by(last)


def resolve(
    context: typer.Context,
    run: RunId,
    decision: Annotated[DecisionChoice, typer.Argument(metavar="|".join(DecisionChoice), help="The decision to take.")],
    reason: ReasonOption,
    amendment: Annotated[
        str, typer.Argument(metavar="[AMENDMENT]", help="For amend: which of the saga's `afterPivot` to do instead.")
    ] = "",
    actor: options.Actor = "",
    effect: Annotated[
        EffectChoice | None, typer.Option("--effect", help="For a plain call in doubt: whether it had its effect.")
    ] = None,
    result: Annotated[
        str,
        typer.Option(
            "--result", metavar="JSON|@FILE|-", help="The response of the stuck step, where an expression uses it."
        ),
    ] = "",
    seq: Annotated[
        int | None,
        typer.Option(
            "--seq",
            metavar="N",
            min=0,
            max=2**63 - 1,
            help="The sequence number of the parked record that the decision is about.",
        ),
    ] = None,
    namespace: options.RunNamespace = "default",
    form: output.Output = Format.TABLE,
    address: connection.AddressOption = None,
) -> None:
    """Decide what a parked run does next, or retry a waiting one.

    Who decided, and why, is kept in the run's journal. `amends get RUN` shows what is allowed now.
    """
    from amends.saga.v1 import run_service_pb2 as api

    request = api.ResolveRunRequest(
        amendment=_amendment(decision, amendment),
        resolution=api.Resolution.Value(f"RESOLUTION_{decision.upper()}"),
        reason=reason,
        actor=actor or options.me(),
        effect=api.Effect.Value(f"EFFECT_{effect.upper()}") if effect else api.EFFECT_UNSPECIFIED,
    )
    if result:
        request.result_json = _json("--result", result)
    with connection.connect(address) as server:
        request.run_id = runids.find(server, context, run)
        # Without --seq the decision is about what is there now; the orchestrator refuses it if that changes meanwhile.
        seen = seq if seq is not None else runids.fetch(server, request.run_id, payloads=False).parked.seq
        request.expected_seq = seen
        answer = server.runs.ResolveRun(request, timeout=CALL_TIMEOUT.total_seconds())
    _report_wish(answer, form)


def _amendment(decision: DecisionChoice, name: str) -> str:
    if bool(name) is not (decision is DecisionChoice.AMEND):
        raise usage(
            "amend needs the name of an amendment, and no other decision takes one",
            "Write `amends resolve RUN amend NAME`; `amends get RUN` shows the names.",
        )
    return name


def cancel(
    context: typer.Context,
    run: RunId,
    reason: ReasonOption,
    actor: options.Actor = "",
    namespace: options.RunNamespace = "default",
    form: output.Output = Format.TABLE,
    address: connection.AddressOption = None,
) -> None:
    """Ask a run to undo what it did, up to its pivot."""
    from amends.saga.v1 import run_service_pb2

    request = run_service_pb2.CancelRunRequest(reason=reason, actor=actor or options.me())
    with connection.connect(address) as server:
        request.run_id = runids.find(server, context, run)
        answer = server.runs.CancelRun(request, timeout=CALL_TIMEOUT.total_seconds())
    _report_wish(answer, form)


def _follow(
    server: connection.OrchestratorConnection, run_id: str, limit: timedelta, form: Format, *, until_parked: bool
) -> Any:
    """Show the records of a run to its end; return the run as it stood last. Raises CliError when it takes too long."""
    from amends_cli import timeline

    story = timeline.Timeline(form)
    was_parked = False
    for answer in _records(server, run_id, limit):
        story.tell(answer)
        if story.parked and not was_parked and _parked_now(server, story.run):
            story.tell_parked()
            if until_parked:
                break
            output.say("waiting for a person's decision; Ctrl-C stops watching")
        was_parked = story.parked
    story.end()
    return story.run


def _parked_now(server: connection.OrchestratorConnection, run: Any) -> bool:
    """Return whether a run is still parked where it was when the record was written: the record may be an old one."""
    current = runids.fetch(server, run.run_id, payloads=False)
    return bool(current.state == run.state and current.parked.seq == run.parked.seq)


def _records(server: connection.OrchestratorConnection, run_id: str, limit: timedelta) -> Iterator["WatchRunResponse"]:
    """Yield the records of a run, each once; go on where it was when the connection, or the replica, is gone."""
    import grpc

    from amends.saga.v1 import run_service_pb2

    request = run_service_pb2.WatchRunRequest(run_id=run_id, payloads=run_service_pb2.PAYLOADS_NONE)
    end = time.monotonic() + limit.total_seconds()
    seen, in_vain = False, 0
    while True:
        stream = server.runs.WatchRun(request, timeout=max(0.0, end - time.monotonic()))
        try:
            for answer in stream:
                seen, in_vain = True, 0
                request.after_seq = max(request.after_seq, answer.event.seq)
                yield answer
            return
        except grpc.RpcError as error:
            if time.monotonic() >= end and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                hint = f"`amends watch {run_id}` goes on watching."
                raise CliError(f"the run has not ended within {_in_words(limit)}", hint, Exit.RUNNING) from None
            in_vain += 1
            away = error.code() is grpc.StatusCode.UNAVAILABLE  # it may take long to come back
            if not seen or not _cut_off(error) or (in_vain > IN_VAIN and not away):
                raise
            if in_vain == 1:
                output.say("the connection is lost; reconnecting")
            pause = min(RECONNECT * 2 ** (in_vain - 1), LONGEST_RECONNECT)
            time.sleep(max(0.0, min(pause.total_seconds(), end - time.monotonic())))
            server.mend()
        finally:
            stream.cancel()


def _cut_off(error: Any) -> bool:
    """Return whether the stream was cut on its way to the orchestrator: proxies use status codes of their own for that.

    The orchestrator gives a reason with every refusal; what it does not refuse it may be asked again.
    """
    import grpc

    ends = {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    }
    return error.code() in ends and not connection.reason_of(error)


def _in_words(limit: timedelta) -> str:
    from amends_resilience.durations import format_duration

    return format_duration(limit)


def _report(run: Any, form: Format, *, told: bool = False) -> None:
    from amends_cli import timeline

    if told or output.emit(plain_run(run), form):
        return
    output.line(f"{run.run_id}  ", *timeline.final_line(run))
    for line in timeline.parked_lines(run):
        output.line(Styled(line, "magenta"))


def _report_wish(answer: Any, form: Format) -> None:
    """Show the run after a decision, and say when what was asked is not decided yet."""
    _report(answer.run, form)
    if answer.pending:
        output.say(
            "asked for, but not yet decided: the owner of the run has not answered, and may still refuse it. "
            f"`amends get {answer.run.run_id}` tells."
        )


def _exit_by(run: Any) -> None:
    from amends_cli import timeline

    code = timeline.exit_of(run) if run is not None else Exit.RUNNING
    if code is not Exit.OK:
        raise typer.Exit(code)


def _json(option: str, text: str) -> str:
    """Read the JSON object given on the command line, in a file (@FILE) or on standard input (-); return its text.

    The text is sent as it is, so that every digit arrives. Raises CliError (wrong use).
    """
    from amends_saga.jsonform import InputError, read_object

    example = f'For example: {option} \'{{"orderId": "o-1"}}\'.'
    try:
        if text == "-":
            text = manifests.read_input(option)
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
