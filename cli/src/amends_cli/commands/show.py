"""`amends get` and `amends list`: shows runs, sagas, participants and retry policies."""

import json
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any

import typer

from amends_cli import connection, output
from amends_cli.cluster import NAMESPACE_VARIABLE
from amends_cli.connection import CALL_TIMEOUT
from amends_cli.failure import Failure, usage
from amends_cli.output import Column, Format, Row, field

EVERY_NAMESPACE = Annotated[
    str,
    typer.Option(
        "-n",
        "--namespace",
        envvar=NAMESPACE_VARIABLE,
        help="Only of this namespace; left out: of all (with kubectl: -A).",
    ),
]


PAYLOAD_TIMEOUT = timedelta(minutes=1)


class Kind(StrEnum):
    """What can be listed."""

    RUNS = "runs"
    SAGAS = "sagas"
    PARTICIPANTS = "participants"
    POLICIES = "policies"


BY_NAME = {"saga": Kind.SAGAS, "participant": Kind.PARTICIPANTS, "policy": Kind.POLICIES}
"""What stands before the name of one resource."""


class State(StrEnum):
    """States of runs, as people write them."""

    RUNNING = "running"
    COMPENSATING = "compensating"
    PARKED = "parked"
    COMPLETED = "completed"
    COMPENSATED = "compensated"


def _count(*path: str) -> Any:
    def read(row: Row) -> str:
        digests = row.get("digests", [])
        return str(sum(int(use.get(path[0], 0)) for use in digests))

    return read


def _ready(row: Row) -> str:
    return "yes" if row.get("ready") else f"no: {row.get('message', '')}"


COLUMNS = {
    Kind.RUNS: [
        Column("RUN", field("runId")),
        Column("NAMESPACE", field("namespace")),
        Column("SAGA", field("saga")),
        Column(
            "STATE", lambda row: row.get("state", "").removeprefix("RUN_STATE_") + (" (stalled)" * ("stalled" in row))
        ),
        Column("STARTED", field("startedAt")),
        Column("MESSAGE", field("message")),
        Column("KEY", field("idempotencyKey"), wide=True),
        Column("ENDED", field("endedAt"), wide=True),
        Column("SEQ", field("seq"), wide=True),
        Column("DIGEST", lambda row: row.get("digest", "")[:12], wide=True),
    ],
    Kind.SAGAS: [
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
    Kind.PARTICIPANTS: [
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
    Kind.POLICIES: [
        Column("NAMESPACE", field("namespace")),
        Column("NAME", field("name")),
        Column("ATTEMPTS", field("attempts")),
        Column("TIMEOUT", field("timeout")),
        Column("PARTICIPANTS", lambda row: " ".join(row.get("participants", [])) or "all"),
        Column("METHODS", lambda row: " ".join(row.get("methods", [])) or "all"),
        Column("CONFLICTS", lambda row: " ".join(row.get("conflicts", []))),
    ],
}


def plain(message: Any) -> dict[str, Any]:
    """A message as canonical protobuf JSON."""
    from google.protobuf.json_format import MessageToDict

    data: dict[str, Any] = MessageToDict(message)
    return data


def plain_run(run: Any) -> dict[str, Any]:
    """A run as canonical protobuf JSON, with its payloads as the orchestrator wrote them: 1 is 1 and not 1.0."""
    data = plain(run)
    _unfold(data, "input")
    for step in data.get("steps", ()):
        _unfold(step, "response")
    return data


def _unfold(data: dict[str, Any], name: str) -> None:
    text = data.pop(f"{name}Json", "")
    if text:
        data[name] = json.loads(text)


def list_(
    kind: Annotated[Kind, typer.Argument(help="What to list.")] = Kind.RUNS,
    namespace: EVERY_NAMESPACE = "",
    everywhere: Annotated[bool, typer.Option("-A", "--all-namespaces", help="Of all namespaces.")] = False,
    saga: Annotated[str, typer.Option("--saga", help="Only runs of this saga.")] = "",
    state: Annotated[
        list[State] | None, typer.Option("--state", help="Only runs in this state; may be repeated.")
    ] = None,
    stalled: Annotated[bool, typer.Option("--stalled", help="Only runs in which a step has waited too long.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100_000, help="At most this many runs.")] = 50,
    form: output.Output = Format.TABLE,
    address: connection.Address = None,
) -> None:
    """List runs (newest first), sagas, participants or retry policies."""
    namespace = "" if everywhere else namespace
    if kind is not Kind.RUNS and (saga or state or stalled):
        raise usage("--saga, --state and --stalled select runs", f"`amends list {kind}` takes --namespace.")
    with connection.connect(address) as server:
        if kind is Kind.RUNS:
            messages = _runs(server, namespace, saga, state or [], stalled, limit)
        else:
            messages = resources(server, kind, namespace)
    output.emit_rows([plain(message) for message in messages], COLUMNS[kind], form, empty=f"no {kind}")


def resources(server: connection.Connection, kind: Kind, namespace: str) -> list[Any]:
    """Reads all sagas, participants or policies; an empty namespace means all. grpc errors pass through."""
    from amends.saga.v1 import definition_service_pb2 as api

    timeout = CALL_TIMEOUT.total_seconds()
    if kind is Kind.SAGAS:
        return list(server.definitions.ListSagas(api.ListSagasRequest(namespace=namespace), timeout=timeout).sagas)
    if kind is Kind.PARTICIPANTS:
        participants = api.ListParticipantsRequest(namespace=namespace)
        return list(server.definitions.ListParticipants(participants, timeout=timeout).participants)
    policies = api.ListRetryPoliciesRequest(namespace=namespace)
    return list(server.definitions.ListRetryPolicies(policies, timeout=timeout).retry_policies)


def _runs(
    server: connection.Connection, namespace: str, saga: str, states: list[State], stalled: bool, limit: int
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
    name: Annotated[
        str,
        typer.Argument(
            help="A run's id (with kubectl also a SagaRun's name), or saga/NAME, participant/NAME, policy/NAME."
        ),
    ] = "",
    key: Annotated[str, typer.Option("--key", help="Find the run by the key it was started with.")] = "",
    payload: Annotated[
        str,
        typer.Option(
            "--payload", metavar="input|STEP", help="Print the run's input, or the response of a step, however large."
        ),
    ] = "",
    namespace: connection.Namespace = "default",
    form: output.Output = Format.TABLE,
    address: connection.Address = None,
) -> None:
    """Show one run with its steps, or one resource."""
    if bool(name) == bool(key):
        raise usage("name one run", "Give its id, or --key with --namespace.")
    kind, _, resource = name.rpartition("/")
    name = name if key or kind else connection.run_id(name, namespace)
    with connection.connect(address) as server:
        if kind:
            _show_resource(server, kind, resource, namespace, form)
            return
        if payload:
            run_id = fetch(server, name, namespace, key, payloads=False).run_id if key else name
            _print_payload(server, run_id, payload)
            return
        run = fetch(server, name, namespace, key)
    if not output.emit(plain_run(run), form):
        _show_run(run, form)


def _print_payload(server: connection.Connection, run_id: str, payload: str) -> None:
    """Prints one payload as it arrives. grpc errors pass through."""
    from amends.saga.v1 import run_service_pb2

    step = "" if payload == "input" else payload
    request = run_service_pb2.ReadPayloadRequest(run_id=run_id, step=step)
    for piece in server.runs.ReadPayload(request, timeout=PAYLOAD_TIMEOUT.total_seconds()):
        typer.echo(piece.text, nl=False)
    typer.echo()


def fetch(
    server: connection.Connection, run_id: str, namespace: str = "", key: str = "", *, payloads: bool = True
) -> Any:
    """Reads one run by its id, or by namespace and key. grpc errors pass through."""
    from amends.saga.v1 import run_service_pb2

    request = run_service_pb2.GetRunRequest(run_id=run_id, namespace=namespace if key else "", idempotency_key=key)
    request.payloads = run_service_pb2.PAYLOADS_TEXT if payloads else run_service_pb2.PAYLOADS_NONE
    return server.runs.GetRun(request, timeout=CALL_TIMEOUT.total_seconds()).run


def _show_resource(server: connection.Connection, kind: str, name: str, namespace: str, form: Format) -> None:
    if kind not in BY_NAME:
        raise usage(f"`{kind}` is no kind", "Use saga/NAME, participant/NAME or policy/NAME.")
    for message in resources(server, BY_NAME[kind], namespace):
        if message.name == name:
            row = plain(message)
            if not output.emit(row, form):
                output.emit_rows([row], COLUMNS[BY_NAME[kind]], Format.WIDE, empty="")
            return
    raise absent(kind, namespace, name)


def absent(kind: str, namespace: str, name: str) -> Failure:
    """What to say of a resource that is not there."""
    hint = f"`amends list {BY_NAME[kind]}` shows those that are there."
    return Failure(f"there is no {kind} {namespace}/{name}", hint)


def _show_run(run: Any, form: Format) -> None:
    from amends_cli import timeline

    printer = output.console()
    printer.print(f"[bold]{run.namespace}/{run.saga}[/] {run.run_id}  key {run.idempotency_key}", markup=True)
    printer.print(timeline.final_line(run))
    for line in timeline.parked_lines(run):
        printer.print(line, style="magenta", markup=False)
    for wish in run.wishes:
        line = f"{wish.kind} asked for by {wish.actor}: {wish.reason}; not yet decided"
        printer.print(line, style="yellow", markup=False)
    if run.HasField("stalled"):
        printer.print(f"stalled: {run.stalled.step} waits: {run.stalled.reason}", style="yellow", markup=False)
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
        Column("RESPONSE", lambda row: json.dumps(row.get("response", ""), ensure_ascii=False), wide=True),
    ]
    output.emit_rows(rows, columns, form, empty="no steps")
