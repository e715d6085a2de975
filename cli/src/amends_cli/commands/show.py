"""`amends get` and `amends list`: shows runs, sagas, participants, retry policies and choreographies."""

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any

import typer

from amends_cli import connection, monitor, options, output, runids, suggestions
from amends_cli.connection import CALL_TIMEOUT
from amends_cli.durations import age_in_words
from amends_cli.failure import usage
from amends_cli.output import Column, Format, Listing, OutputRow, Styled, field
from amends_cli.resources import ALSO, SINGULAR, ListedKind, absent, fetch, kind_of, plain, plain_run, resource_of

PAYLOAD_TIMEOUT = timedelta(minutes=1)


class StateChoice(StrEnum):
    """States of runs, as people write them."""

    RUNNING = "running"
    COMPENSATING = "compensating"
    PARKED = "parked"
    COMPLETED = "completed"
    COMPENSATED = "compensated"


def _count(*path: str) -> Any:
    def read(row: OutputRow) -> str:
        digests = row.get("digests", [])
        return str(sum(int(use.get(path[0], 0)) for use in digests))

    return read


def _flows(state: str) -> Any:
    return lambda row: str(row.get("flows", {}).get(state, 0))


def _ready(row: OutputRow) -> str:
    return "yes" if row.get("ready") else f"no: {row.get('message', '')}"


def _age(row: OutputRow) -> str:
    if "startedAt" not in row:
        return ""
    return age_in_words(datetime.now(UTC) - datetime.fromisoformat(row["startedAt"]))


def _message(row: OutputRow) -> str:
    """Return what a row's state does not say."""
    return str(row.get("message", "")).removeprefix(_state(row)).lstrip(": ")


def _state(row: OutputRow) -> str:
    return str(row.get("state", "")).removeprefix("RUN_STATE_")


COLUMNS = {
    ListedKind.RUNS: [
        Column("RUN", field("runId")),
        Column("NAMESPACE", field("namespace")),
        Column("SAGA", field("saga")),
        Column("STATE", lambda row: _state(row) + (" (stalled)" * ("stalled" in row))),
        Column("AGE", _age),
        Column("MESSAGE", _message, cut=True),
        Column("STARTED", field("startedAt"), wide=True),
        Column("KEY", field("idempotencyKey"), wide=True),
        Column("ENDED", field("endedAt"), wide=True),
        Column("SEQ", field("seq"), wide=True),
        Column("DIGEST", lambda row: row.get("digest", "")[:12], wide=True),
    ],
    ListedKind.SAGAS: [
        Column("NAMESPACE", field("namespace")),
        Column("NAME", field("name")),
        Column("READY", _ready),
        Column("STEPS", lambda row: " ".join(row.get("steps", []))),
        Column("RUNNING", _count("running")),
        Column("PARKED", _count("parked")),
        Column("DIGEST", lambda row: row.get("digest", "")[:12], wide=True),
        Column("APPLIED", field("appliedAt"), wide=True),
        Column("PARTICIPANTS", lambda row: " ".join(row.get("participants", [])), wide=True),
    ],
    ListedKind.PARTICIPANTS: [
        Column("NAMESPACE", field("namespace")),
        Column("NAME", field("name")),
        Column("SERVICE", field("service")),
        Column("TARGET", field("target")),
        Column("READY", _ready),
        Column("SAGAS", lambda row: " ".join(row.get("sagas", [])), wide=True),
        Column(
            "METHODS",
            lambda row: " ".join(
                f"{method['name']}:{method['kind']}" for method in row.get("methods", []) if method.get("callable")
            ),
            wide=True,
        ),
    ],
    ListedKind.POLICIES: [
        Column("NAMESPACE", field("namespace")),
        Column("NAME", field("name")),
        Column("ATTEMPTS", field("attempts")),
        Column("TIMEOUT", field("timeout")),
        Column("PARTICIPANTS", lambda row: " ".join(row.get("participants", [])) or "all"),
        Column("METHODS", lambda row: " ".join(row.get("methods", [])) or "all"),
        Column("CONFLICTS", lambda row: " ".join(row.get("conflicts", []))),
    ],
    ListedKind.CHOREOGRAPHIES: [
        Column("NAMESPACE", field("namespace")),
        Column("NAME", field("name")),
        Column("RUNNING", _flows("running")),
        Column("LATE", _flows("late")),
        Column("WELL", _flows("endedWell")),
        Column("UNDONE", _flows("endedUndone")),
        Column("CONTRADICTORY", _flows("contradictory")),
        Column("UNREAD TOPICS", lambda row: " ".join(row.get("unreadTopics", []))),
        Column("DIGEST", lambda row: row.get("digest", "")[:12], wide=True),
        Column("APPLIED", field("appliedAt"), wide=True),
    ],
}


def list_(
    kind: Annotated[
        ListedKind,
        typer.Argument(
            metavar="KIND",
            help="runs, sagas, participants, policies or choreographies.",
            parser=kind_of,
            autocompletion=lambda: list(ListedKind),
        ),
    ] = ListedKind.RUNS,
    namespace: options.EveryNamespace = "",
    everywhere: Annotated[bool, typer.Option("-A", "--all-namespaces", help="Of all namespaces.")] = False,
    saga: Annotated[
        str, typer.Option("--saga", metavar="NAME", help="Only runs of this saga.", autocompletion=suggestions.sagas)
    ] = "",
    state: Annotated[
        list[StateChoice] | None,
        typer.Option(
            "--state",
            metavar="STATE",
            help=f"Only runs in this state; may be repeated. One of {', '.join(StateChoice)}.",
        ),
    ] = None,
    stalled: Annotated[bool, typer.Option("--stalled", help="Only runs in which a step has waited too long.")] = False,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", min=1, max=100_000, help="At most this many runs, up to 100000.")
    ] = 50,
    form: output.NamedOutput = Listing.TABLE,
    address: connection.AddressOption = None,
    watching: monitor.MonitorOption = None,
) -> None:
    """List runs (newest first), or the resources of a kind."""
    namespace = "" if everywhere else namespace
    if kind is not ListedKind.RUNS and (saga or state or stalled):
        raise usage("--saga, --state and --stalled select runs", f"`amends list {kind}` takes --namespace.")
    if kind is ListedKind.RUNS:
        with connection.connect(address) as server:
            messages = _runs(server, namespace, saga, state or [], stalled, limit)
    else:
        messages = fetch(kind, namespace, address, watching)
    if form is Listing.NAME:
        for message in messages:
            output.line(_name(kind, message))
        return
    output.emit_rows([plain(message) for message in messages], COLUMNS[kind], form, empty=f"no {kind}")


def _name(kind: ListedKind, message: Any) -> str:
    """Return the name by which `amends get` finds a resource."""
    return str(message.run_id) if kind is ListedKind.RUNS else f"{SINGULAR[kind]}/{message.name}"


def _runs(
    server: connection.OrchestratorConnection,
    namespace: str,
    saga: str,
    states: list[StateChoice],
    stalled: bool,
    limit: int,
) -> list[Any]:
    from amends.saga.v1 import run_pb2, run_service_pb2

    found: list[Any] = []
    request = run_service_pb2.ListRunsRequest(
        namespace=namespace,
        saga=saga,
        states=[run_pb2.RunState.Value(f"RUN_STATE_{state.upper()}") for state in states],
        stalled=stalled,
    )
    while len(found) < limit:
        request.page_size = min(1000, limit - len(found))
        page = server.runs.ListRuns(request, timeout=CALL_TIMEOUT.total_seconds())
        found += page.runs
        request.page_token = page.next_page_token
        if not page.next_page_token:
            break
    return found


def get(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="RUN|KIND",
            help="A run's id, or how it begins (with kubectl also a SagaRun's name), or saga/NAME, saga NAME, "
            "participant NAME, policy NAME, choreography NAME.",
            autocompletion=suggestions.resources,
        ),
    ] = "",
    resource: Annotated[str | None, typer.Argument(metavar="NAME", help="The resource's name, after its kind.")] = None,
    key: Annotated[str, typer.Option("--key", metavar="KEY", help="Find the run by the key it was started with.")] = "",
    payload: Annotated[
        str,
        typer.Option(
            "--payload", metavar="input|STEP", help="Print the run's input, or the response of a step, however large."
        ),
    ] = "",
    namespace: options.RunNamespace = "default",
    form: output.NamedOutput = Listing.TABLE,
    address: connection.AddressOption = None,
    watching: monitor.MonitorOption = None,
) -> None:
    """Show one run with its steps, or one resource."""
    if bool(name) == bool(key):
        raise usage("name one run", "Give its id, or --key with --namespace.")
    kind = ListedKind.RUNS
    if not key and (resource is not None or "/" in name):
        kind, name = resource_of(name, resource)
    elif name.lower() in ALSO:
        hint = f"Give its name: `amends get {name} NAME`; `amends list {ALSO[name.lower()]}` shows all."
        raise usage(f"which {name}?", hint)
    if kind is not ListedKind.RUNS:
        for message in fetch(kind, namespace, address, watching):
            if message.name == name:
                _show_resource(message, kind, form)
                return
        raise absent(fetch(kind, "", address, watching), kind, namespace, name)
    with connection.connect(address) as server:
        run_id = runids.find_by_key(server, namespace, key) if key else runids.find(server, context, name)
        if payload:
            _print_payload(server, run_id, payload)
            return
        run = runids.fetch(server, run_id)
    if form is Listing.NAME:
        output.line(run.run_id)
    elif not output.emit(plain_run(run), form):
        _show_run(run, Format(form))


def _print_payload(server: connection.OrchestratorConnection, run_id: str, payload: str) -> None:
    """Print one payload as it arrives. grpc errors pass through."""
    from amends.saga.v1 import run_service_pb2

    step = "" if payload == "input" else payload
    request = run_service_pb2.ReadPayloadRequest(run_id=run_id, step=step)
    for piece in server.runs.ReadPayload(request, timeout=PAYLOAD_TIMEOUT.total_seconds()):
        output.emit_piece(piece.text)
    output.line()


def _show_resource(message: Any, kind: ListedKind, form: Listing) -> None:
    row = plain(message)
    if form is Listing.NAME:
        output.line(_name(kind, message))
    elif not output.emit(row, form):
        output.emit_rows([row], COLUMNS[kind], Format.WIDE, empty="")


def _show_run(run: Any, form: Format) -> None:
    from amends_cli import timeline

    output.line(Styled(f"{run.namespace}/{run.saga}", bold=True), f" {run.run_id}  key {run.idempotency_key}")
    output.line(*timeline.final_line(run))
    if run.failure.code:
        cause = f"{run.failure.step} answered {run.failure.code} {run.failure.reason}".rstrip()
        output.line(Styled(f"failure: {cause}", "yellow"))
    for line in timeline.parked_lines(run):
        output.line(Styled(line, "magenta"))
    for request in run.wishes:
        said = f"{request.kind} asked for by {request.actor}: {request.reason}; not yet decided"
        output.line(Styled(said, "yellow"))
    if run.HasField("stalled"):
        output.line(Styled(f"stalled: {run.stalled.step} waits: {run.stalled.reason}", "yellow"))
    rows = [
        {
            **step,
            "state": step.get("state", "").removeprefix("STEP_STATE_"),
        }
        for step in plain_run(run).get("steps", ())
    ]
    columns = [
        Column("STEP", field("name")),
        Column("STATE", field("state")),
        Column("ATTEMPTS", lambda row: str(row.get("attempts", 0))),
        Column("MESSAGE", field("message")),
        Column("RESPONSE", field("response"), wide=True),
    ]
    output.emit_rows(rows, columns, form, empty="no steps")
