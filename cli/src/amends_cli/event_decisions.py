"""Decisions about parked events, and what comes of them. Called by `commands.events`."""

import time
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from amends_cli import output
from amends_cli.event_services import AskedService, ask_first
from amends_cli.failure import CliError, Exit

if TYPE_CHECKING:
    from amends.events.v1 import events_service_pb2 as pb

LOOK_EVERY = timedelta(milliseconds=200)


def get(known: Sequence[AskedService], name: str) -> "tuple[AskedService, pb.GetParkedResponse]":
    """Find a parked event by its name. Raises CliError."""
    from amends.events.v1 import events_service_pb2 as pb

    return ask_first(
        known, lambda service: service.ask("GetParked", pb.GetParkedRequest(name=name)), ("PARKED_UNKNOWN",)
    )


def decide_all(found: Sequence[tuple[AskedService, str]], request: "pb.DecideParkedRequest", wait: timedelta) -> Exit:
    """Decide about events, say what comes of each, and return the worst exit code.

    All are decided before the first is waited for: it takes their services a moment. Raises CliError for one that is
    alone; of several, those that are refused are named, and the others go on.
    """
    worst, decided = Exit.OK, []
    for service, name in found:
        request.name = name
        try:
            decided.append((service, name, service.ask("DecideParked", request)))
        except CliError as failure:
            if len(found) == 1:
                raise
            output.say(f"error: {failure.message}")
            worst = Exit.FAILED
    end = time.monotonic() + wait.total_seconds()
    for service, name, answer in decided:
        worst = max(worst, _tell(service, name, answer, end))
    return worst


def _tell(service: AskedService, name: str, answer: "pb.DecideParkedResponse", end: float) -> Exit:
    """Wait until an event is released or parked again, say so, and return what that means for the exit code."""
    from amends.events.v1 import events_service_pb2 as pb

    behind = f"; {answer.behind} behind it follow" if answer.behind else ""
    while True:
        now = service.ask("GetParked", pb.GetParkedRequest(name=name)).parked
        if now.HasField("released_at"):
            done = "left out" if answer.parked.decision == pb.PARKED_DECISION_SKIP else "handled"
            output.line(f"{name} is {done}{behind}")
            return Exit.OK
        if not now.decision:
            output.line(f"{name} is parked again, after {now.attempts} attempts: {_first_line(now.detail)}")
            return Exit.PARKED
        if time.monotonic() >= end:
            output.line(f"{name} is decided; no process of {now.consumer} has taken it up yet{behind}")
            return Exit.RUNNING
        time.sleep(LOOK_EVERY.total_seconds())


def _first_line(text: Any) -> str:
    return (str(text).split("\n") or [""])[0]
