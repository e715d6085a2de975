"""A real orchestrator whose ports tell where it is: the journal's connections, the calls, the start of a run.

The process is the one that `python -m amends_orchestrator` is; only what it is given from outside is wrapped.
"""

import os
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from amends_chassis.service import Runtime, run
from amends_orchestrator.assemble import Orchestrator
from amends_orchestrator.calls.metadata import CallMetadata
from amends_orchestrator.calls.ports import Answer
from amends_orchestrator.calls.router import ProtectedRoute
from amends_orchestrator.journal.connection import Connect
from amends_orchestrator.journal.statements import ROW, START
from amends_orchestrator.settings import Settings
from amends_simulation.carried import carried, is_batch

from amends.saga.v1 import journal_pb2

from . import clock
from .places import CallPlaces
from .points import Points

CALLS = {"action": "action", "compensation": "compensation", "void": "void"}


STATUS = {status.value[0]: status for status in grpc.StatusCode}


class Told:
    """A connection of the journal that tells before a statement is sent and after it has committed."""

    def __init__(self, inner: Any, points: Points) -> None:
        self._inner = inner
        self._points = points

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def fetch(self, query: str, *parameters: Any) -> Any:
        """One statement of the writer or of the claimer."""
        if query.lstrip().startswith("WITH due AS"):
            return await self._claim(query, *parameters)
        if query.startswith("SELECT run_id, seq, fence, record FROM journal"):
            rows = await self._inner.fetch(query, *parameters)
            self._points.reached("claim.read")
            return rows
        labels = labels_of(query, parameters)
        for label in labels:
            self._points.reached(f"journal.sent:{label}")
        rows = await self._inner.fetch(query, *parameters)
        for label in labels:
            self._points.reached(f"journal.committed:{label}")
        return rows

    async def _claim(self, query: str, *parameters: Any) -> Any:
        self._points.reached("claim.sent")
        rows = await self._inner.fetch(query, *parameters)
        if rows:
            self._points.reached("claim.committed")
        return rows


def labels_of(query: str, parameters: tuple[Any, ...]) -> list[str]:
    """Return the labels of the records that the writer's statement carries: kind of the record, step, call."""
    if not is_batch(query):
        return []
    found = carried(query, parameters)
    records = [row[list(ROW).index("record")] for row in found.rows]
    records += [start[list(START).index("record")] for start in found.starts]
    return [label_of(journal_pb2.JournalRecord.FromString(record)) for record in records]


def label_of(record: journal_pb2.JournalRecord) -> str:
    """`answered:charge:compensation`, `decided`, `started`."""
    kind: str = record.WhichOneof("event") or "unknown"
    event = getattr(record, kind)
    parts = [kind]
    if kind in ("intent", "skipped", "attempt_failed", "answered"):
        parts.append(event.step)
    if kind in ("attempt_failed", "answered"):
        parts.append(journal_pb2.Call.Name(event.call).removeprefix("CALL_").lower())
    return ":".join(parts)


class Calls:
    """The calls of the orchestrator, told before they are sent and when they are answered."""

    def __init__(self, inner: Callable[..., Awaitable[Answer]], points: Points) -> None:
        self._inner = inner
        self._points = points

    async def send(self, protected: ProtectedRoute, request: bytes, metadata: CallMetadata, traceparent: str) -> Answer:
        """One attempt."""
        said = dict(metadata)
        places = CallPlaces(said["amends-step"], said["amends-operation"])
        self._points.reached(places.sent)
        answer: Answer = await self._inner(protected, request, metadata, traceparent)
        self._points.reached(places.answered)
        self._points.reached(places.answer(STATUS[answer.code], answer.reason))
        return answer


def told(connect: Connect, points: Points) -> Connect:
    """Wrap the connections so that each statement reports where the process is."""

    async def connected() -> Any:
        return Told(await connect(), points)

    return connected


async def assemble(runtime: Runtime) -> None:
    """Put an orchestrator together whose ports report where the process is."""
    points = Points.of_environment()
    assert isinstance(runtime.settings, Settings)
    orchestrator = Orchestrator(runtime, runtime.settings)
    host, starts = orchestrator.host, orchestrator.starts
    writer, claimer = orchestrator.writer, orchestrator._claimer
    writer._connect = told(writer._connect, points)
    claimer._connect = told(claimer._connect, points)
    host.send = Calls(host.send, points).send
    begin = starts.begin

    async def beginning(*arguments: Any, **named: Any) -> Any:
        points.reached("start.asked")
        begun = await begin(*arguments, **named)
        points.reached("start.acknowledged")
        return begun

    starts.begin = beginning  # type: ignore[method-assign]
    await orchestrator.start()


def main() -> None:
    """The whole life of the process."""
    if "FAULTS_CLOCK_RATE" in os.environ:
        clock.bend(float(os.environ["FAULTS_CLOCK_RATE"]))
    run(Settings(), assemble)
