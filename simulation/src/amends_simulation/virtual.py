"""Time that passes only when everybody waits: an event loop, and clocks that read it.

Called by the simulation. A minute takes milliseconds, and the same seed gives the same schedule: nothing here reads
the machine's clock.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, TypeVar
from uuid import UUID

from amends_orchestrator.journal.ids import RunIds

EPOCH = datetime(2030, 1, 1, tzinfo=UTC)
T = TypeVar("T")


class DeadlockError(Exception):
    """Everybody waits, and nothing will ever happen."""


class _Jump(selectors.SelectSelector):
    """Instead of waiting, time jumps to the next moment at which something is due."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return nothing, at once and later."""
        if timeout is None:
            raise DeadlockError("every task waits, and no timer is set: the simulation cannot go on")
        self.now += max(timeout, 0.0)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose seconds cost nothing. It has no files and no threads."""

    def __init__(self) -> None:
        self._jump = _Jump()
        self.database_ahead = timedelta()
        """By how much the clock of the database differs from everybody's at the beginning."""
        super().__init__(self._jump)

    def time(self) -> float:
        """Return the virtual seconds since the beginning."""
        return self._jump.now


def run_virtually(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end in a loop of its own. Raises DeadlockError, and what it raises."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(work)
    finally:
        pending = asyncio.all_tasks(loop)
        for task in pending:
            task.cancel()
        if pending:
            loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
        loop.close()


def seconds() -> float:
    """Return the virtual time of the running loop."""
    return asyncio.get_running_loop().time()


def database_now() -> datetime:
    """Return what the database's clock says."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return EPOCH + timedelta(seconds=loop.time()) + loop.database_ahead


class VirtualClock:
    """The clock that breakers, budgets and pacers read."""

    def monotonic(self) -> timedelta:
        """Return the time since the beginning."""
        return timedelta(seconds=seconds())


class WrongClock(RunIds):
    """The clock of one machine, which may be wrong until the database says what time it is, and run too fast."""

    def __init__(self, chance: Random) -> None:
        super().__init__()
        self._chance = chance
        self._ahead = timedelta(seconds=chance.choice((0, 0, 600, -600)))
        self._rate = chance.choice((1.0, 1.0, 1.001, 0.999))
        self._since = 0.0

    def synchronise(self, database_now: datetime) -> None:
        """Set the clock by the database's time."""
        self._since = seconds()
        self._ahead = database_now - EPOCH - timedelta(seconds=self._since)

    def now(self) -> datetime:
        """Return the time as this machine sees it."""
        passed = self._since + (seconds() - self._since) * self._rate
        return EPOCH + self._ahead + timedelta(seconds=passed)

    def next(self) -> UUID:
        """Return a new run id."""
        return UUID(int=self._chance.getrandbits(128), version=4)
