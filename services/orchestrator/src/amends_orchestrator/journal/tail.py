"""The end of one run's journal, as its present owner writes it, and the listener for its rows.

The runner makes one for each run it owns; the writer closes it when the journal takes no more rows from this owner.
"""

from __future__ import annotations

from typing import Protocol
from uuid import UUID

from amends_orchestrator.journal.records import JournalRefusal


class Listener(Protocol):
    """Hears about the rows of a run. The writer calls it between two statements and never awaits it: be quick."""

    def durable(self, seq: int) -> None:
        """Take note that all rows up to `seq` are committed."""

    def refused(self, refusal: JournalRefusal) -> None:
        """Take note that the rows that are not durable yet never will be, under this owner."""


class _Nobody:
    """The listener of a run that has left this process: it ignores everything."""

    def durable(self, seq: int) -> None:
        """Ignore the commit, because the run has left this process."""

    def refused(self, refusal: JournalRefusal) -> None:
        """Ignore the refusal, because the run has left this process."""


_NOBODY = _Nobody()


class Tail:
    """The queue of one run's rows. Once closed it stays closed: every later row is refused."""

    __slots__ = ("fence", "id", "listener", "refusal", "size")

    def __init__(self, run_id: UUID, fence: int, listener: Listener) -> None:
        self.id = run_id
        self.fence = fence
        self.listener = listener
        self.refusal: JournalRefusal | None = None
        self.size = 0
        """Bytes of the run's records, as far as this process has seen them."""

    def close(self, refusal: JournalRefusal) -> None:
        """Refuse the queued rows and all later ones; tell the listener once."""
        if self.refusal is None:
            self.refusal = refusal
            self.listener.refused(refusal)

    def let_go(self) -> None:
        """Forget the listener: the run has left this process, and the two would keep each other in memory."""
        self.listener = _NOBODY
