"""The deadline of the work in hand, carried in a context variable.

gRPC for Python does not hand a deadline on to the calls that a handler makes; this does. The chassis'
server interceptor opens a scope with the caller's deadline, its clients ask for what is left. Tasks
started inside a scope inherit it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta

from amends_resilience.policy import ZERO
from amends_resilience.ports import Clock, SystemClock

_SYSTEM = SystemClock()


class DeadlinePassedError(Exception):
    """There is no time left for another call; nothing was sent."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment of a monotonic clock."""

    at: timedelta
    clock: Clock

    def remaining(self) -> timedelta:
        """Return the time left; zero once it has passed."""
        return max(ZERO, self.at - self.clock.monotonic())


_current: ContextVar[Deadline | None] = ContextVar("amends_deadline", default=None)


def current() -> Deadline | None:
    """Return the deadline of the work in hand, None if it has none."""
    return _current.get()


def remaining(margin: timedelta = ZERO) -> timedelta | None:
    """Return the time left less `margin` (for the way back), at least zero; None without a deadline."""
    deadline = _current.get()
    return None if deadline is None else max(ZERO, deadline.remaining() - margin)


def timeout(default: timedelta, margin: timedelta = ZERO) -> timedelta:
    """Return how long a call made now may take: `default`, or what is left less `margin` if that is shorter.

    Raises DeadlinePassedError when nothing is left.
    """
    left = remaining(margin)
    if left is None:
        return default
    if left <= ZERO:
        raise DeadlinePassedError("the deadline has passed")
    return min(default, left)


@contextmanager
def scope(within: timedelta, clock: Clock = _SYSTEM) -> Iterator[Deadline]:
    """Put a deadline `within` from now on the block, never later than one already in force there."""
    deadline = Deadline(clock.monotonic() + within, clock)
    outer = _current.get()
    if outer is not None and outer.remaining() < deadline.remaining():
        deadline = outer
    token = _current.set(deadline)
    try:
        yield deadline
    finally:
        _current.reset(token)
