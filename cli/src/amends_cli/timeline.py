"""Tells the story of a run, record by record, as it becomes durable. Called by `watch` and `start --watch`."""

import json
from datetime import datetime
from typing import Any

import typer
from google.protobuf import json_format

from amends.saga.v1 import run_pb2
from amends.saga.v1.run_service_pb2 import WatchRunResponse

OUTCOME_STYLE = {"ok": "green", "rejected": "red", "unknown": "yellow", "voided": "magenta"}
STATE_STYLE = {
    "RUNNING": "cyan",
    "COMPENSATING": "yellow",
    "PARKED": "bold magenta",
    "COMPLETED": "bold green",
    "COMPENSATED": "bold yellow",
}
ENDED = (run_pb2.RUN_STATE_COMPLETED, run_pb2.RUN_STATE_COMPENSATED)


def state_name(state: int) -> str:
    """RUN_STATE_RUNNING as RUNNING; a state that this version does not know by its number."""
    try:
        return run_pb2.RunState.Name(state).removeprefix("RUN_STATE_")  # type: ignore[arg-type]
    except ValueError:
        return f"STATE_{state}"


def styled_state(state: int) -> str:
    """The state's name with its colour."""
    name = state_name(state)
    return f"[{STATE_STYLE.get(name, 'white')}]{name}[/]"


def operation_name(operation: int) -> str:
    """action, compensation, void; empty when nothing is meant."""
    name = run_pb2.Operation.Name(operation).removeprefix("OPERATION_").lower()  # type: ignore[arg-type]
    return "" if name == "unspecified" else name


def event_line(event: run_pb2.RunEvent, began: datetime) -> str:
    """One line of a timeline, with rich markup: when, what of which step, how it ended, and what was said."""
    from rich.markup import escape

    since = (event.at.ToDatetime() - began).total_seconds()
    what = event.kind.lower().replace("_", " ")
    operation = operation_name(event.operation)
    subject = event.step if operation in ("", "action") else f"{event.step} {operation}"
    style = OUTCOME_STYLE.get(event.outcome, "white")
    outcome = f"[{style}]{event.outcome}[/]" if event.outcome else ""
    code = event.code if event.code not in ("", "OK") else ""
    actor = f"by {event.actor}" if event.actor else ""
    said = escape(" ".join(part for part in (code, event.message, actor) if part))
    return (
        f"[dim]{since:+9.3f}s[/] [dim]{event.seq:>3}[/] {what:<16} {escape(subject):<24} {outcome:<8} {said}".rstrip()
    )


def final_line(run: run_pb2.Run) -> str:
    """How a run stands, in one line with rich markup."""
    from rich.markup import escape

    # The message begins with the state for people who read it alone.
    name = state_name(run.state)
    said = run.message.removeprefix(name) if run.message.startswith(name) else f": {run.message}"
    return f"{styled_state(run.state)}{escape(said.rstrip(': '))}"


def parked_lines(run: run_pb2.Run) -> list[str]:
    """What a person who meets a parked run wants to know, with the commands to copy."""
    if not run.HasField("parked"):
        return []
    parked = run.parked
    lines = [f"{parked.step or 'the run'} is stuck: {parked.message or parked.reason} ({parked.reason})"]
    return lines + [f"  amends resolve {run.run_id} {resolution} --reason '...'" for resolution in parked.resolutions]


class Story:
    """Follows one run and prints each record once: as a line for people, or as one line of JSON."""

    def __init__(self, printer: Any, *, as_json: bool = False) -> None:
        self._printer = printer
        self._as_json = as_json
        self._began: datetime | None = None
        self.run: run_pb2.Run | None = None
        """As it stood last."""

    def tell(self, answer: WatchRunResponse) -> None:
        """Takes one answer of WatchRun."""
        if answer.HasField("event"):
            self._tell_event(answer.event)
        if answer.HasField("run"):
            was_parked = self.run is not None and self.run.state == run_pb2.RUN_STATE_PARKED
            self.run = answer.run
            if self.run.state == run_pb2.RUN_STATE_PARKED and not was_parked and not self._as_json:
                for line in parked_lines(self.run):
                    self._printer.print(line, style="magenta", markup=False)

    def end(self) -> None:
        """Prints how it stands when nothing more will come."""
        if self.run is not None and not self._as_json:
            self._printer.print(final_line(self.run))

    def _tell_event(self, event: run_pb2.RunEvent) -> None:
        if self._as_json:
            typer.echo(json.dumps(json_format.MessageToDict(event), ensure_ascii=False))
            return
        self._began = self._began or event.at.ToDatetime()
        self._printer.print(event_line(event, self._began))
