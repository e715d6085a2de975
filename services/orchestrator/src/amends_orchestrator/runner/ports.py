"""What a live run needs from the process around it. `Fleet` is the one implementation in production."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

from amends_saga.journal import idempotency_key
from amends_saga.plan import Expressions, Plan

from amends_orchestrator.calls.metadata import Metadata
from amends_orchestrator.calls.ports import Answer
from amends_orchestrator.calls.router import Way
from amends_orchestrator.journal.records import Refusal
from amends_orchestrator.journal.writer import JournalWriter


class Definition(Expressions, Protocol):
    """A compiled saga, as far as driving its runs needs it."""

    @property
    def plan(self) -> Plan:
        """The graph and the facts of its methods."""
        ...


class RunInfo:
    """What a run is, as long as it lives. Keys are worked out once: every call needs them."""

    __slots__ = ("_keys", "_secret", "id", "name", "namespace", "saga", "traceparent")

    def __init__(self, run_id: UUID, namespace: str, saga: str, traceparent: str, secret: bytes | None) -> None:
        """`secret` is what its keys are made with, see `amends_saga.journal.secret_for`."""
        self._secret = secret
        self.id = run_id
        self.name = str(run_id)
        self.namespace = namespace
        self.saga = saga
        self.traceparent = traceparent
        self._keys: dict[str, str] = {}

    def key(self, step: str) -> str:
        """The idempotency key of a step's calls."""
        key = self._keys.get(step)
        if key is None:
            key = self._keys[step] = idempotency_key(self.name, step, self._secret)
        return key


class Ground(Protocol):
    """The process around the runs."""

    writer: JournalWriter
    passivate_after: timedelta

    def now(self) -> datetime:
        """The database's time, as far as it is known here."""
        ...

    @property
    def roomy(self) -> bool:
        """Whether at least half of the memory for runs is free."""
        ...

    @property
    def at_leisure(self) -> bool:
        """Whether there is time to work ahead: so few runs are under way that the processor waits for them."""
        ...

    def when_sent(self, work: Callable[..., None], *arguments: Any) -> None:
        """Does some work when the call or row that was just begun is on its way."""
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

    def send(self, way: Way, request: bytes, metadata: Metadata, traceparent: str) -> Awaitable[Answer]:
        """Makes one attempt; raises nothing but CancelledError."""
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
