"""What a live run needs from the process around it. `Fleet` is the one implementation in production."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

from amends_saga.plan import Expressions, Plan

from amends_orchestrator.calls.metadata import Metadata
from amends_orchestrator.calls.router import Way
from amends_orchestrator.journal.records import Refusal
from amends_orchestrator.journal.writer import JournalWriter


class Definition(Expressions, Protocol):
    """A compiled saga, as far as driving its runs needs it."""

    @property
    def plan(self) -> Plan:
        """The graph and the facts of its methods."""
        ...


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What a run is, as long as it lives."""

    id: UUID
    namespace: str
    saga: str
    traceparent: str

    @property
    def name(self) -> str:
        """The run id as text."""
        return str(self.id)


class Settled(Protocol):
    """A run that left the memory of this process."""

    @property
    def info(self) -> RunInfo:
        """Which run."""
        ...


class Ground(Protocol):
    """The process around the runs."""

    writer: JournalWriter
    passivate_after: timedelta

    def now(self) -> datetime:
        """The database's time, as far as it is known here."""
        ...

    def leased(self) -> bool:
        """Whether this process may assume that its runs are still its own."""
        ...

    def way(self, namespace: str, service: str, method: str) -> Way:
        """How to call a method now. Raises RouteError."""
        ...

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Starts a call; it runs to its end even when its run is gone."""
        ...

    async def send(self, way: Way, request: bytes, metadata: Metadata, traceparent: str, step: str) -> Any:
        """Makes one attempt and returns its Answer."""
        ...

    def settled(self, run_id: UUID) -> None:
        """A run has ended, is parked, or was let go, durably."""
        ...

    def lost(self, run_id: UUID, refusal: Refusal) -> None:
        """The journal took no more rows of a run."""
        ...

    def broken(self, run_id: UUID, error: Exception) -> None:
        """The engine or an expression failed in a way that no rule foresees."""
        ...
