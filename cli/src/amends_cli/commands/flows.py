"""`amends flows`: where choreographies stand, and what is missing in one that is late."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from amends_cli import monitor, options, output
from amends_cli.connection import CALL_TIMEOUT
from amends_cli.durations import age_in_words
from amends_cli.failure import CliError
from amends_cli.output import Column, Listing, OutputRow, Styled, field
from amends_cli.resources import plain

if TYPE_CHECKING:
    from amends.monitor.v1 import monitor_service_pb2 as api
    from amends.monitor.v1.monitor_service_pb2_grpc import MonitorServiceStub

COLOUR = {"RUNNING": "cyan", "LATE": "red", "ENDED_WELL": "green", "ENDED_UNDONE": "yellow", "CONTRADICTORY": "magenta"}
PAGE = 1000


class FlowChoice(StrEnum):
    """States of flows, as people write them."""

    RUNNING = "running"
    LATE = "late"
    WELL = "well"
    UNDONE = "undone"
    CONTRADICTORY = "contradictory"


_ENDED = (FlowChoice.WELL, FlowChoice.UNDONE)


def _state(row: OutputRow) -> str:
    return str(row.get("state", "")).removeprefix("FLOW_STATE_")


def _short(event: str) -> str:
    return event.rpartition(".")[2]


def _first_missing(row: OutputRow) -> str:
    missing = row.get("missing") or [None]
    if missing[0] is None:
        return str(row.get("contradiction", ""))
    first = missing[0]
    due = datetime.fromisoformat(first["dueAt"])
    more = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
    return f"{_names(first['events'])} by {first['by']}, {_when(due)}{more}"


def _when(due: datetime) -> str:
    """Return when something is due, or since when it is overdue."""
    over = datetime.now(UTC) - due
    return f"overdue for {age_in_words(over)}" if over > timedelta() else f"due in {age_in_words(-over)}"


def _age(row: OutputRow) -> str:
    return age_in_words(datetime.now(UTC) - datetime.fromisoformat(row["beganAt"]))


COLUMNS = (
    Column("KEY", field("key")),
    Column("NAMESPACE", field("namespace")),
    Column("CHOREOGRAPHY", field("choreography")),
    Column("STATE", _state),
    Column("AGE", _age),
    Column("MISSING", _first_missing, cut=True),
    Column("BEGAN", field("beganAt"), wide=True),
    Column("LAST EVENT", field("lastAt"), wide=True),
)


def flows(
    key: Annotated[
        str, typer.Argument(metavar="KEY", help="Of this key alone, e.g. an order's id, with its events.")
    ] = "",
    namespace: options.EveryNamespace = "",
    everywhere: Annotated[bool, typer.Option("-A", "--all-namespaces", help="Of all namespaces.")] = False,
    choreography: Annotated[
        str, typer.Option("--choreography", metavar="NAME", help="Only of this choreography.")
    ] = "",
    state: Annotated[
        list[FlowChoice] | None,
        typer.Option(
            "--state",
            metavar="STATE",
            help=f"Only in this state; may be repeated. One of {', '.join(FlowChoice)}.",
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", min=1, max=100_000, help="At most this many, up to 100000.")
    ] = 50,
    form: output.NamedOutput = Listing.TABLE,
    address: monitor.MonitorAddress = None,
) -> None:
    """Show where choreographies stand, late ones first.

    Of one key all events are shown in their order, and what is missing.
    """
    with monitor.connect(address) as stub:
        found = _list(stub, "" if everywhere else namespace, choreography, key, state or [], limit)
        if key:
            found = [_get(stub, flow) for flow in found]
    if key and not found:
        hint = "`amends flows` lists those that there are."
        raise CliError(f"there is no flow of {key}", hint, reason="FLOW_UNKNOWN")
    if form is Listing.NAME:
        for flow in found:
            output.line(flow.key)
    elif key and form in (Listing.TABLE, Listing.WIDE):
        for number, flow in enumerate(found):
            output.line() if number else None
            _show(flow, wide=form is Listing.WIDE)
    else:
        output.emit_rows([plain(flow) for flow in found], COLUMNS, form, empty="no flows")


def _list(
    stub: "MonitorServiceStub",
    namespace: str,
    choreography: str,
    key: str,
    states: Iterable[FlowChoice],
    limit: int,
) -> "list[api.Flow]":
    from amends.monitor.v1 import monitor_service_pb2 as api

    names = [f"FLOW_STATE_ENDED_{one.upper()}" if one in _ENDED else f"FLOW_STATE_{one.upper()}" for one in states]
    request = api.ListFlowsRequest(
        namespace=namespace, choreography=choreography, key=key, states=[api.FlowState.Value(name) for name in names]
    )
    found: list[api.Flow] = []
    while len(found) < limit:
        request.page_size = min(PAGE, limit - len(found))
        page = stub.ListFlows(request, timeout=CALL_TIMEOUT.total_seconds())
        found += page.flows
        request.page_token = page.next_page_token
        if not page.next_page_token:
            break
    return found


def _get(stub: "MonitorServiceStub", flow: "api.Flow") -> "api.Flow":
    from amends.monitor.v1 import monitor_service_pb2 as api

    request = api.GetFlowRequest(namespace=flow.namespace, choreography=flow.choreography, key=flow.key)
    return stub.GetFlow(request, timeout=CALL_TIMEOUT.total_seconds()).flow


def _show(flow: Any, *, wide: bool) -> None:
    row = plain(flow)
    name = _state(row)
    output.line(Styled(f"{flow.namespace}/{flow.choreography}", bold=True), f" {flow.key}")
    output.line(
        Styled(name, COLOUR.get(name, "white"), bold=True), f": {flow.contradiction}" * bool(flow.contradiction)
    )
    began = flow.began_at.ToDatetime(UTC)
    for event in flow.events:
        more = f"  {event.source} {event.event_id}" if wide else ""
        output.line(
            Styled(_since(event.occurred_at.ToDatetime(UTC), began), dim=True),
            f" {_short(event.event):<20} {event.by}{more}",
        )
    for missing in flow.missing:
        due = missing.due_at.ToDatetime(UTC)
        upon = f" upon {_short(missing.upon)}" if missing.upon else ""
        said = f"{_names(missing.events)} by {missing.by}{upon}, {_when(due)}"
        output.line(
            Styled(_since(due, began), dim=True), " ", Styled(f"missing: {said}", "red" if missing.late else "cyan")
        )


def _names(events: Iterable[str]) -> str:
    return " or ".join(map(_short, events))


def _since(at: datetime, began: datetime) -> str:
    return f"{(at - began).total_seconds():+9.3f}s"
