"""Spreads out those who come back at the same time, so that the end of an outage does not start the next.

Called by the orchestrator when a run has to wait for a breaker that half-opens or a participant that
returns.
"""

from datetime import timedelta

from amends_resilience.policy import ZERO
from amends_resilience.ports import Clock, Random


class Pacer:
    """Hands out moments to come back at, one per `interval`, each with jitter within its interval."""

    def __init__(self, interval: timedelta, clock: Clock, chance: Random) -> None:
        """`interval` is the time between two returns, more than zero: 10 ms for a hundred a second."""
        if interval <= ZERO:
            raise ValueError("the interval between two returns must be more than zero")
        self._interval = interval
        self._clock = clock
        self._chance = chance
        self._next = ZERO

    def delay(self, at_least: timedelta = ZERO) -> timedelta:
        """Take the next place that is not before `at_least` from now, and return how long it is until then."""
        now = self._clock.monotonic()
        place = max(self._next, now + at_least)
        self._next = place + self._interval
        return place - now + self._interval * self._chance.random()
