"""Tells the story of a run, record by record, as it becomes durable. Called by `watch` and `start --watch`."""

import shlex
from datetime import datetime

from google.protobuf import json_format

from amends.saga.v1 import run_pb2
from amends.saga.v1.run_service_pb2 import WatchRunResponse
from amends_cli import cluster, output
from amends_cli.failure import Exit
from amends_cli.output import Format, Styled

OUTCOME_COLOUR = {"ok": "green", "rejected": "red", "unknown": "yellow", "voided": "magenta"}
STATE_COLOUR = {
    "RUNNING": "cyan",
    "COMPENSATING": "yellow",
    "PARKED": "magenta",
    "COMPLETED": "green",
    "COMPENSATED": "yellow",
}
ENDED = (run_pb2.RUN_STATE_COMPLETED, run_pb2.RUN_STATE_COMPENSATED)
EXITS = {
    run_pb2.RUN_STATE_COMPLETED: Exit.OK,
    run_pb2.RUN_STATE_COMPENSATED: Exit.COMPENSATED,
    run_pb2.RUN_STATE_PARKED: Exit.PARKED,
}
"""How a command that waited for a run ends; every other state means that it is still under way."""


def exit_of(run: run_pb2.Run) -> Exit:
    """Return the exit code that tells how a run stands."""
    return EXITS.get(run.state, Exit.RUNNING)


def state_name(state: int) -> str:
    """RUN_STATE_RUNNING as RUNNING; a state that this version does not know by its number."""
    try:
        return run_pb2.RunState.Name(state).removeprefix("RUN_STATE_")  # type: ignore[arg-type]
    except ValueError:
        return f"STATE_{state}"


def styled_state(state: int) -> Styled:
    """Return the state's name with its colour."""
    name = state_name(state)
    return Styled(name, STATE_COLOUR.get(name, "white"), bold=state in EXITS)


def operation_name(operation: int) -> str:
    """Return action, compensation or void; empty when the record has no operation."""
    name = run_pb2.Operation.Name(operation).removeprefix("OPERATION_").lower()  # type: ignore[arg-type]
    return "" if name == "unspecified" else name


def event_line(event: run_pb2.RunEvent, began: datetime) -> list[str | Styled]:
    """Return the parts of one line of a timeline: when, which operation of which step, its outcome and its message."""
    since = (event.at.ToDatetime() - began).total_seconds()
    what = event.kind.lower().replace("_", " ")
    operation = operation_name(event.operation)
    subject = event.step if operation in ("", "action") else f"{event.step} {operation}"
    code = event.code if event.code not in ("", "OK") else ""
    actor = f"by {event.actor}" if event.actor else ""
    return [
        Styled(f"{since:+9.3f}s {event.seq:>3}", dim=True),
        f" {what:<16} {subject:<24} ",
        Styled(f"{event.outcome:<8}", OUTCOME_COLOUR.get(event.outcome, "white")),
        " ",
        " ".join(part for part in (code, event.message, actor) if part),
    ]


def final_line(run: run_pb2.Run) -> list[str | Styled]:
    """Return the parts of the line that says how a run stands."""
    # The message begins with the state for people who read it alone.
    name = state_name(run.state)
    said = run.message.removeprefix(name) if run.message.startswith(name) else f": {run.message}"
    return [styled_state(run.state), said.rstrip(": ")]


def parked_lines(run: run_pb2.Run) -> list[str]:
    """Return what a person who meets a parked run wants to know, with commands that work as they stand."""
    if not run.HasField("parked"):
        return []
    parked = run.parked
    lines = [f"{parked.step or 'the run'} is stuck: {parked.message or parked.reason} ({parked.reason})"]
    # An orchestrator of an earlier version names no choices, only decisions.
    choices = list(parked.choices) or [run_pb2.Choice(resolution=one) for one in parked.resolutions]
    return lines + [f"  {command(run.run_id, choice)}" for choice in choices]


def command(run_id: str, choice: run_pb2.Choice) -> str:
    """Return the command line that takes a decision; `...` stands where a person has something to say."""
    program = ["amends"] if cluster.current() is None else ["kubectl", "amends"]
    words = [*program, "resolve", run_id, choice.resolution]
    if choice.amendment:
        words.append(choice.amendment)
    if choice.effect:
        words += ["--effect", choice.effect]
    if choice.result_example:
        words += ["--result", choice.result_example]
    return f"{shlex.join(words)} --reason '...'"


class Timeline:
    """Follows one run and prints each record once: as a line for people, or as one record of JSON or YAML."""

    def __init__(self, form: Format) -> None:
        self._form = form
        self._for_people = form in (Format.TABLE, Format.WIDE)
        self._began: datetime | None = None
        self.run: run_pb2.Run | None = None
        """As it stood last."""

    def tell(self, answer: WatchRunResponse) -> None:
        """Take one answer of WatchRun."""
        if answer.HasField("event"):
            self._tell_event(answer.event)
        if answer.HasField("run"):
            self.run = answer.run

    @property
    def parked(self) -> bool:
        """Return whether the run waits for a person."""
        return self.run is not None and self.run.state == run_pb2.RUN_STATE_PARKED

    def tell_parked(self) -> None:
        """Print what a person can do about it."""
        if self.run is not None and self._for_people:
            for told in parked_lines(self.run):
                output.line(Styled(told, "magenta"))

    def end(self) -> None:
        """Print how it stands when nothing more will come."""
        if self.run is not None and self._for_people:
            output.line(*final_line(self.run))

    def _tell_event(self, event: run_pb2.RunEvent) -> None:
        if not self._for_people:
            output.emit_record(json_format.MessageToDict(event), self._form)
            return
        self._began = self._began or event.at.ToDatetime()
        output.line(*event_line(event, self._began))
