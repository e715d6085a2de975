"""What live runs need of others: the definition that a run is pinned to, and the keeper of all runs."""

from __future__ import annotations

from datetime import timedelta
from typing import Protocol
from uuid import UUID

from amends_saga.journal import idempotency_key
from amends_saga.plan import Expressions, Plan

from amends_orchestrator.journal.records import JournalRefusal


class PinnedDefinition(Expressions, Protocol):
    """A compiled saga, as far as driving its runs needs it."""

    @property
    def plan(self) -> Plan:
        """Return the graph and the facts of its methods."""
        ...


class PinnedDefinitions(Protocol):
    """Finds the definitions that runs are pinned to."""

    async def pinned(self, digest: bytes) -> PinnedDefinition:
        """Return the definition with that digest. Raises DefinitionError if it is gone or unreadable here."""
        ...


class DefinitionError(Exception):
    """The definition does not exist, or this version cannot read it. The text is for people."""


class RunInfo:
    """The facts about a run that never change. Keys are computed once, because every call needs them."""

    __slots__ = ("_keys", "_secret", "caller_key", "id", "name", "namespace", "saga", "traceparent")

    def __init__(
        self, run_id: UUID, namespace: str, saga: str, caller_key: str, traceparent: str, secret: bytes | None
    ) -> None:
        """Set the facts. `secret` is what its keys are made with, see `amends_saga.journal.secret_for`."""
        self._secret = secret
        self.id = run_id
        self.name = str(run_id)
        self.namespace = namespace
        self.saga = saga
        self.caller_key = caller_key
        """The key with which the caller started it."""
        self.traceparent = traceparent
        self._keys: dict[str, str] = {}

    def key(self, step: str) -> str:
        """Return the idempotency key of a step's calls."""
        key = self._keys.get(step)
        if key is None:
            key = self._keys[step] = idempotency_key(self.name, step, self._secret)
        return key


class RunKeeper(Protocol):
    """The owner of all live runs of a process, as one of them sees it."""

    passivate_after: timedelta

    @property
    def roomy(self) -> bool:
        """Return whether at least half of the memory for runs is free."""
        ...

    @property
    def at_leisure(self) -> bool:
        """Return whether so few runs are under way that the processor has time to work ahead."""
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
