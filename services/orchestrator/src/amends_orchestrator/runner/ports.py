"""The interface of a live run to the process around it. `Fleet` implements it in production."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

from amends_saga.journal import idempotency_key
from amends_saga.plan import Expressions, Plan

from amends_orchestrator.calls.metadata import CallMetadata
from amends_orchestrator.calls.ports import Answer
from amends_orchestrator.calls.router import ProtectedRoute
from amends_orchestrator.journal.records import JournalRefusal
from amends_orchestrator.journal.writer import JournalWriter


class PinnedDefinition(Expressions, Protocol):
    """A compiled saga, as far as driving its runs needs it."""

    @property
    def plan(self) -> Plan:
        """Return the graph and the facts of its methods."""
        ...


class RunInfo:
    """The facts about a run that never change. Keys are computed once, because every call needs them."""

    __slots__ = ("_keys", "_secret", "id", "name", "namespace", "saga", "traceparent")

    def __init__(self, run_id: UUID, namespace: str, saga: str, traceparent: str, secret: bytes | None) -> None:
        """Set the facts. `secret` is what its keys are made with, see `amends_saga.journal.secret_for`."""
        self._secret = secret
        self.id = run_id
        self.name = str(run_id)
        self.namespace = namespace
        self.saga = saga
        self.traceparent = traceparent
        self._keys: dict[str, str] = {}

    def key(self, step: str) -> str:
        """Return the idempotency key of a step's calls."""
        key = self._keys.get(step)
        if key is None:
            key = self._keys[step] = idempotency_key(self.name, step, self._secret)
        return key


class RunHost(Protocol):
    """The process around the runs."""

    writer: JournalWriter
    passivate_after: timedelta

    def now(self) -> datetime:
        """Return the database's time, as this process estimates it."""
        ...

    @property
    def roomy(self) -> bool:
        """Return whether at least half of the memory for runs is free."""
        ...

    @property
    def at_leisure(self) -> bool:
        """Return whether so few runs are under way that the processor has time to work ahead."""
        ...

    def when_sent(self, work: Callable[..., None], *arguments: Any) -> None:
        """Do some work after the call or row just begun is sent."""
        ...

    def leased(self) -> bool:
        """Return whether our lease is still valid, so that the runs are still ours."""
        ...

    def route(self, namespace: str, service: str, method: str) -> ProtectedRoute:
        """Return how to call a method now. Raises RouteError."""
        ...

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Start a call; it runs to its end even if its run leaves this process."""
        ...

    def send(
        self, protected: ProtectedRoute, request: bytes, metadata: CallMetadata, traceparent: str
    ) -> Awaitable[Answer]:
        """Make one attempt. Raises only CancelledError."""
        ...

    def settled(self, run_id: UUID) -> None:
        """Forget a run that has ended, is parked or was released, durably."""
        ...

    def lost(self, run_id: UUID, refusal: JournalRefusal) -> None:
        """Drop a run whose rows the journal refused."""
        ...

    def broken(self, run_id: UUID, error: Exception) -> None:
        """Release a run whose engine or expression failed in a way that no rule foresees."""
        ...
