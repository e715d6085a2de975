"""The circuit breaker: stops calling a service that fails, and feels its way back with one call at a time.

Own code because the known libraries either never open around native coroutines or let every waiting
call through when half-open. One breaker per participant and process. Called by the orchestrator's call
path and the chassis' clients, before a call is made; a refused call is no attempt.
"""

from collections.abc import Callable
from datetime import timedelta
from enum import StrEnum
from types import TracebackType
from typing import Self

from amends_resilience.policy import ZERO, BreakerPolicy
from amends_resilience.ports import Clock
from amends_resilience.window import RollingCounts


class BreakerState(StrEnum):
    """The states of a circuit breaker."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class BreakerOpenError(Exception):
    """Refused by the breaker; nothing was sent. Come back after `retry_in`, with jitter."""

    def __init__(self, retry_in: timedelta) -> None:
        super().__init__(f"the circuit breaker is open, it may be tried again in {retry_in}")
        self.retry_in = retry_in


class Permit:
    """The leave to make one call. Say once how it went; what is said later is ignored.

    As a context manager it takes a way out without a word, an exception too, for a call that says nothing about the
    service (it was never sent, or given up by the caller): the leave goes back.
    """

    __slots__ = ("_breaker", "_epoch", "_used")

    def __init__(self, breaker: "CircuitBreaker", epoch: int) -> None:
        self._breaker = breaker
        self._epoch = epoch
        self._used = False

    def success(self) -> None:
        """Say that the service answered; a rejection for a reason of its own is an answer too."""
        self._say(ok=True)

    def failure(self) -> None:
        """Say that the service did not answer, or could not."""
        self._say(ok=False)

    def release(self) -> None:
        """Give the permit back: the call says nothing about the service."""
        self._say(ok=None)

    def _say(self, ok: bool | None) -> None:
        if not self._used:
            self._used = True
            self._breaker._conclude(self._epoch, ok)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()


class CircuitBreaker:
    """Closed until too many calls of a rolling window fail, then open for a while, then half-open for a single probe.

    There are no timers: the state follows from the clock whenever somebody asks. A verdict counts only in the spell
    that gave the leave, so that a call from before the breaker opened can neither close nor re-open it.
    """

    def __init__(
        self,
        policy: BreakerPolicy,
        clock: Clock,
        changed: Callable[[BreakerState], None] = lambda state: None,
    ) -> None:
        """Call `changed` with each new state (half-open when first asked for), for metrics and to wake who waits."""
        self._policy = policy
        self._clock = clock
        self._changed = changed
        self._state = BreakerState.CLOSED
        self._counts = RollingCounts(policy.window)
        self._epoch = 0
        self._opened = ZERO
        self._probing = False

    @property
    def policy(self) -> BreakerPolicy:
        """Return the policy in force."""
        return self._policy

    def apply(self, policy: BreakerPolicy) -> None:
        """Put another policy in force; a new window starts empty, the state stays."""
        if policy.window != self._policy.window:
            self._counts = RollingCounts(policy.window)
        self._policy = policy

    @property
    def state(self) -> BreakerState:
        """Return the state at this moment."""
        if self._state is BreakerState.OPEN and self._clock.monotonic() - self._opened >= self._policy.open_for:
            self._turn(BreakerState.HALF_OPEN)
        return self._state

    def acquire(self) -> Permit:
        """Return the permit for one call. Raises BreakerOpenError while open, and while another call is the probe."""
        state = self.state
        if state is BreakerState.OPEN or self._probing:
            raise BreakerOpenError(self.retry_in())
        self._probing = state is BreakerState.HALF_OPEN
        return Permit(self, self._epoch)

    def retry_in(self) -> timedelta:
        """Return in how long it makes sense to ask again: zero unless open or probing.

        Open: until it half-opens. While a probe is under way nobody knows, so a tenth of `open_for`. Whoever waits
        adds jitter, or takes a place from a Pacer, lest all come back at once.
        """
        match self.state:
            case BreakerState.OPEN:
                return max(ZERO, self._opened + self._policy.open_for - self._clock.monotonic())
            case BreakerState.HALF_OPEN if self._probing:
                return self._policy.open_for / 10
            case _:
                return ZERO

    def _conclude(self, epoch: int, ok: bool | None) -> None:
        if epoch != self._epoch:
            return
        if self._state is BreakerState.HALF_OPEN:
            self._probing = False
            if ok is not None:
                self._turn(BreakerState.CLOSED if ok else BreakerState.OPEN)
            return
        if ok is None:
            return
        self._counts.add(self._clock.monotonic(), first=1, second=0 if ok else 1)
        calls, failures = self._counts.first, self._counts.second
        if not ok and calls >= self._policy.minimum_calls and failures >= self._policy.failure_ratio * calls:
            self._turn(BreakerState.OPEN)

    def _turn(self, state: BreakerState) -> None:
        self._state = state
        self._epoch += 1
        self._probing = False
        self._counts.clear()
        if state is BreakerState.OPEN:
            self._opened = self._clock.monotonic()
        self._changed(state)
