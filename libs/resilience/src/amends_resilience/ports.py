"""The ports through which this package reads the clock and draws random numbers.

Both are ports so that tests and the deterministic simulation decide what they say. Called by every
other module here; whoever assembles a process takes `SystemClock` and `random.Random`.
"""

import time
from datetime import timedelta
from typing import Protocol


class Clock(Protocol):
    """Time that never goes back."""

    def monotonic(self) -> timedelta:
        """Return the time since an arbitrary, fixed moment."""
        ...


class Random(Protocol):
    """Chance; `random.Random` fits as it is."""

    def random(self) -> float:
        """Return a number drawn evenly from [0, 1)."""
        ...


class SystemClock:
    """The machine's monotonic clock."""

    def monotonic(self) -> timedelta:
        """Return the time since an arbitrary, fixed moment."""
        return timedelta(seconds=time.monotonic())
