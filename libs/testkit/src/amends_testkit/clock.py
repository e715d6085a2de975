"""A monotonic clock that tests turn by hand.

It fits the Clock port of amends_resilience; called by the tests of whatever asks what time it is.
"""

from datetime import timedelta


class HandClock:
    """A clock that moves only when a test moves it."""

    def __init__(self) -> None:
        self._now = timedelta(hours=1)

    def monotonic(self) -> timedelta:
        """Return the time on the dial."""
        return self._now

    def go(self, by: timedelta) -> None:
        """Turn the clock on by so much."""
        self._now += by
