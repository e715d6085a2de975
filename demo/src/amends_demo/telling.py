"""The printing of the stories: titles, timelines and claims that hold or do not. Called by stories and proof."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from amends_chassis.text import escape
from amends_events import BrokerError
from rich import markup
from rich.console import Console

if TYPE_CHECKING:
    from amends.saga.v1.run_service_pb2_grpc import RunServiceAsyncStub

import grpc
import grpc.aio
from amends_embedded import ChildDiedError, ReportTimeoutError

from amends.saga.v1 import run_pb2, run_service_pb2

COLOURS = {"ok": "green", "rejected": "red", "unknown": "yellow", "voided": "magenta"}
STATES = {
    run_pb2.RUN_STATE_COMPLETED: "[bold green]COMPLETED[/]",
    run_pb2.RUN_STATE_COMPENSATED: "[bold yellow]COMPENSATED[/]",
    run_pb2.RUN_STATE_PARKED: "[bold magenta]PARKED[/]",
}
WATCH = timedelta(seconds=40)


@dataclass(slots=True)
class Telling:
    """Prints, and remembers which claims did not hold."""

    console: Console
    broken: list[str] = field(default_factory=list)
    stories: int = 0
    """How many have begun."""

    def title(self, text: str, what: str) -> None:
        """Print the title with which a story begins, with its number."""
        self.stories += 1
        self.console.print()
        self.console.rule(f"[bold]{self.stories}. {text}[/]", align="left")
        self.console.print(what, style="dim")

    def say(self, text: str) -> None:
        """One line of the story, as it is."""
        self.console.print(escape(text), markup=False, soft_wrap=True)

    def claim(self, text: str, holds: bool, seen: object = "") -> None:
        """Something that must hold; what was seen instead is shown when it does not."""
        if holds:
            self.console.print(f"  [green]holds[/]  {shown(text)}", soft_wrap=True)
        else:
            self.broken.append(text)
            self.console.print(f"  [bold red]BROKEN[/] {shown(text)}: saw {shown(repr(seen))}", soft_wrap=True)

    @contextmanager
    def surviving(self, story: str) -> Iterator[None]:
        """Note a story that fails as broken, so that the other stories are still told."""
        try:
            yield
        except (grpc.RpcError, BrokerError, LookupError, ChildDiedError, ReportTimeoutError, TimeoutError) as error:
            why = error.details() if isinstance(error, grpc.aio.AioRpcError) else str(error)
            self.claim(
                f"the story `{story.replace('_', ' ')}` can be told to its end", False, why or type(error).__name__
            )

    async def timeline(
        self, runs: "RunServiceAsyncStub", run_id: str, *, until_parked: bool = False, after: int = 0
    ) -> run_pb2.Run:
        """Show a run record by record, those up to `after` left out, until it has ended (or parks).

        Returns it as it stands then. Raises AioRpcError, with DEADLINE_EXCEEDED when it does not end in time.
        """
        began: datetime | None = None
        owner, last = 0, run_pb2.Run()
        stream = runs.WatchRun(
            run_service_pb2.WatchRunRequest(run_id=run_id, after_seq=after), timeout=WATCH.total_seconds()
        )
        async for answer in stream:
            if answer.HasField("event"):
                event = answer.event
                began = began or (answer.run.started_at if after else event.at).ToDatetime()
                if owner and event.fence > owner:
                    self.console.print("  [bold]  another replica owns the run from here[/]")
                owner = event.fence
                self.console.print(line(event, began), soft_wrap=True)
            if answer.HasField("run"):
                last = answer.run
            if until_parked and last.state == run_pb2.RUN_STATE_PARKED:
                stream.cancel()
                break
        name = run_pb2.RunState.Name(last.state).removeprefix("RUN_STATE_")
        said = last.message.removeprefix(name)
        self.console.print(f"  {STATES.get(last.state, name)}{shown(said)}", soft_wrap=True)
        return last


def shown(text: str) -> str:
    """Return a text of others as rich markup that shows it and obeys nothing in it."""
    return markup.escape(escape(text))


def line(event: run_pb2.RunEvent, began: datetime) -> str:
    """One record as a line with rich markup."""
    since = (event.at.ToDatetime() - began).total_seconds()
    operation = run_pb2.Operation.Name(event.operation).removeprefix("OPERATION_").lower()
    subject = event.step if operation in ("unspecified", "action") else f"{event.step} ({operation})"
    outcome = f"[{COLOURS.get(event.outcome, 'white')}]{event.outcome:<8}[/]" if event.outcome else " " * 8
    said = [
        event.code if event.code not in ("", "OK") else "",
        event.message,
        f"by {event.actor}" if event.actor else "",
    ]
    text = shown(" ".join(part for part in said if part))
    kind = event.kind.lower().replace("_", " ")
    return f"  [dim]{since:+8.3f}s[/] {kind:<16} {shown(subject):<22} {outcome} {text}".rstrip()
