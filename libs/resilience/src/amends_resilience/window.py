"""Two counts over the recent past, forgotten slice by slice.

Called by the retry budget (calls, retries) and the circuit breaker (calls, failures). The memory is
bounded by the number of slices, whatever the load.
"""

from collections import deque
from dataclasses import dataclass
from datetime import timedelta

SLICES = 10


@dataclass(slots=True)
class _Slice:
    number: int
    first: int = 0
    second: int = 0


class RollingCounts:
    """Two counters whose increments are forgotten at latest `span` after they were made (earliest: 9/10 of it)."""

    def __init__(self, span: timedelta) -> None:
        self._width = max(span / SLICES, timedelta.resolution)
        self._slices: deque[_Slice] = deque()
        self.first = 0
        self.second = 0

    def add(self, now: timedelta, first: int = 0, second: int = 0) -> None:
        """Count at the monotonic time `now`, which must not go back."""
        number = self.roll(now)
        if not self._slices or self._slices[-1].number != number:
            self._slices.append(_Slice(number))
        current = self._slices[-1]
        current.first += first
        current.second += second
        self.first += first
        self.second += second

    def roll(self, now: timedelta) -> int:
        """Forget what is too old at `now`; `first` and `second` then hold. Returns the number of the current slice."""
        number = now // self._width
        while self._slices and self._slices[0].number <= number - SLICES:
            old = self._slices.popleft()
            self.first -= old.first
            self.second -= old.second
        return number

    def clear(self) -> None:
        """Forget all that was counted."""
        self._slices.clear()
        self.first = self.second = 0
