"""The bulkhead: bounds how many calls to one participant are under way, and how many wait for their turn.

One per participant and process. Called by the orchestrator's call path and the chassis' clients; a
refused call is no attempt. Written out instead of using asyncio.Semaphore because the queue must be
bounded, first in first out, and loss of a slot by cancellation impossible.
"""

from collections import deque
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Self

from amends_resilience.policy import BulkheadPolicy

if TYPE_CHECKING:
    import asyncio


class BulkheadFullError(Exception):
    """Refused by the bulkhead: the queue is full, or the wait was too long. Nothing was sent."""


class BulkheadSlot:
    """The right to have one call under way. Give it back with `release`, or use it as a context manager."""

    __slots__ = ("_bulkhead",)

    def __init__(self, bulkhead: "Bulkhead") -> None:
        self._bulkhead: Bulkhead | None = bulkhead

    def release(self) -> None:
        """Give the slot back; a second time does nothing."""
        bulkhead, self._bulkhead = self._bulkhead, None
        if bulkhead is not None:
            bulkhead._leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()


class Bulkhead:
    """At most `max_concurrent` places at once and `max_queued` waiting, served in the order of arrival.

    For one event loop; not safe across threads.
    """

    def __init__(self, policy: BulkheadPolicy) -> None:
        self._policy = policy
        self._taken = 0
        self._queue: deque[asyncio.Future[None]] = deque()

    @property
    def in_flight(self) -> int:
        """Return how many places are taken."""
        return self._taken

    @property
    def queued(self) -> int:
        """Return how many calls wait for a slot."""
        return len(self._queue)

    @property
    def policy(self) -> BulkheadPolicy:
        """Return the policy in force."""
        return self._policy

    def apply(self, policy: BulkheadPolicy) -> None:
        """Put another policy in force. What is under way or waits stays; new room goes to those who wait."""
        self._policy = policy
        self._admit()

    def try_acquire(self) -> BulkheadSlot | None:
        """Return a slot if there is one at once, else None."""
        if self._queue or self._taken >= self._policy.max_concurrent:
            return None
        self._taken += 1
        return BulkheadSlot(self)

    async def acquire(self, wait: timedelta) -> BulkheadSlot:
        """Return a slot, after at most `wait`. Raises BulkheadFullError if the queue is full or time is up."""
        slot = self.try_acquire()
        if slot is not None:
            return slot
        if len(self._queue) >= self._policy.max_queued:
            raise BulkheadFullError(f"{self._taken} calls are under way and {len(self._queue)} wait")
        import asyncio  # here only: it is slow to load, and `amends check` needs the policies of this package alone

        turn = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            async with asyncio.timeout(wait.total_seconds()):
                await turn
        except TimeoutError:
            if not self._admitted(turn):
                raise BulkheadFullError(f"no slot became free within {wait}") from None
        except BaseException:
            if self._admitted(turn):
                self._leave()
            raise
        return BulkheadSlot(self)

    def _admitted(self, turn: "asyncio.Future[None]") -> bool:
        """Return whether a waiter that was cancelled had its slot already; else take it out of the queue."""
        if turn.done() and not turn.cancelled():
            return True
        if turn in self._queue:
            self._queue.remove(turn)
        return False

    def _leave(self) -> None:
        self._taken -= 1
        self._admit()

    def _admit(self) -> None:
        while self._queue and self._taken < self._policy.max_concurrent:
            turn = self._queue.popleft()
            if not turn.done():
                self._taken += 1
                turn.set_result(None)
