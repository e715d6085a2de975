"""How relay and consumer wait before they try again. This library takes nothing of the chassis or its parts."""

import asyncio
import random
from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class EventBackoff:
    """Pauses that double from `initial` up to `maximum`."""

    initial: timedelta = timedelta(milliseconds=50)
    maximum: timedelta = timedelta(seconds=5)

    def longest(self, failures: int) -> timedelta:
        """Return the longest pause after so many failures in a row, from 1."""
        doublings: int = 2 ** min(failures - 1, 10)
        return min(self.initial * doublings, self.maximum)

    def pause(self, failures: int) -> timedelta:
        """Return a pause after so many failures: half of the longest is certain, half is chance."""
        return self.longest(failures) * random.uniform(0.5, 1.0)  # noqa: S311 - no secret


BACKOFF = EventBackoff()


def now_of_loop() -> float:
    """Return the seconds of the running loop's clock, by which everything here is timed: a simulation has its own."""
    return asyncio.get_running_loop().time()
