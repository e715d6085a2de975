"""The end of one run's journal, as its present owner writes it; and who hears what became of the rows.

The runner makes one for each run it owns; the writer closes it when the journal takes no more rows from this owner.
"""

from __future__ import annotations

from typing import Protocol
from uuid import UUID

from amends_orchestrator.journal.records import Refusal


class Listener(Protocol):
    """Who waits for rows of a run. Called by the writer between two statements, never awaited: be quick."""

    def durable(self, seq: int) -> None:
        """All rows up to `seq` are committed."""

    def refused(self, refusal: Refusal) -> None:
        """The rows that are not known to be durable never will be, under this owner."""


class _Nobody:
    """Hears what concerns nobody any more."""

    def durable(self, seq: int) -> None:
        """Nothing waits for it."""

    def refused(self, refusal: Refusal) -> None:
        """Nothing rests on it."""


_NOBODY = _Nobody()


class Tail:
    """Where the rows of one run go. Once closed it stays closed: every later row is refused."""

    __slots__ = ("fence", "id", "listener", "refusal", "size")

    def __init__(self, run_id: UUID, fence: int, listener: Listener) -> None:
        self.id = run_id
        self.fence = fence
        self.listener = listener
        self.refusal: Refusal | None = None
        self.size = 0
        """Bytes of the run's records, as far as this process has seen them."""

    def close(self, refusal: Refusal) -> None:
        """Refuses what is queued and what will come; tells the listener once."""
        if self.refusal is None:
            self.refusal = refusal
            self.listener.refused(refusal)

    def let_go(self) -> None:
        """The run has left this process. Without this it and its tail would hold each other until a collection."""
        self.listener = _NOBODY
