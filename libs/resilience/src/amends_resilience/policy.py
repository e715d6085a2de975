"""The retry policy as data: what a RetryPolicy resource says, and the arithmetic on it.

Pure: no clock, no chance (jitter is injected). Called by the saga checker (worst case), the saga
engine (when to try again) and every client that retries.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

ZERO = timedelta(0)
LONGEST = timedelta(days=366)
MOST_ATTEMPTS = 1_000

STATUS_NAMES = frozenset(
    {
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    }
)
"""Every gRPC status but OK."""

RETRY_ON = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "INTERNAL", "UNKNOWN", "ABORTED"})
"""What is tried again unless a policy says otherwise; CANCELLED goes with UNAVAILABLE. ABORTED with a reason of the
barrier is a rejection and never gets as far as this set; without one it is a conflict that asks for another try."""


def _too_long_or_none(name: str, value: timedelta) -> list[str]:
    if ZERO < value <= LONGEST:
        return []
    return [f"{name} must be more than zero and at most {LONGEST.days} days, it is {value}."]


@dataclass(frozen=True, slots=True)
class Backoff:
    """The growth of the pauses between attempts. Each pause is drawn evenly from zero to the ceiling (full jitter)."""

    initial: timedelta = timedelta(milliseconds=100)
    maximum: timedelta = timedelta(seconds=5)
    multiplier: float = 2.0

    def ceiling(self, attempt: int) -> timedelta:
        """Return the longest pause after `attempt` (from 1), which may be any size: it never overflows."""
        if attempt < 1:
            raise ValueError(f"attempts are counted from 1, not {attempt}")
        if self.initial >= self.maximum:
            return self.maximum
        growth = (attempt - 1) * math.log(self.multiplier)
        if growth >= math.log(self.maximum / self.initial):
            return self.maximum
        return min(self.maximum, self.initial * self.multiplier ** (attempt - 1))

    def delay(self, attempt: int, uniform: Callable[[], float]) -> timedelta:
        """Return the pause after `attempt` (from 1): `uniform()`, in [0, 1), times the ceiling."""
        return self.ceiling(attempt) * uniform()

    def validate(self) -> list[str]:
        """Return one sentence for each violation, none if all is well."""
        found = _too_long_or_none("backoff.initial", self.initial) + _too_long_or_none("backoff.max", self.maximum)
        if self.maximum < self.initial:
            found.append(f"backoff.max ({self.maximum}) must not be less than backoff.initial ({self.initial}).")
        if not (1.0 <= self.multiplier <= 100.0):
            found.append(f"backoff.multiplier must be from 1 to 100, it is {self.multiplier}.")
        return found


@dataclass(frozen=True, slots=True)
class BudgetPolicy:
    """The number of retries beside the first attempts: a share of them, and so many per second anyway."""

    ratio: float = 0.2
    min_per_second: int = 10

    def validate(self) -> list[str]:
        """Return one sentence for each violation, none if all is well."""
        found = []
        if not (0.0 <= self.ratio <= 1_000.0):
            found.append(f"budget.ratio must be from 0 to 1000, it is {self.ratio}.")
        if not (0 <= self.min_per_second <= 1_000_000):
            found.append(f"budget.minPerSecond must be from 0 to 1000000, it is {self.min_per_second}.")
        return found


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """The point at which calls stop for a while: this share of failures among at least so many calls in the window."""

    failure_ratio: float = 0.5
    minimum_calls: int = 20
    window: timedelta = timedelta(seconds=10)
    open_for: timedelta = timedelta(seconds=5)

    def validate(self) -> list[str]:
        """Return one sentence for each violation, none if all is well."""
        found = []
        if not (0.0 < self.failure_ratio <= 1.0):
            found.append(f"circuitBreaker.failureRatio must be more than 0 and at most 1, it is {self.failure_ratio}.")
        if self.minimum_calls < 1:
            found.append(f"circuitBreaker.minimumCalls must be at least 1, it is {self.minimum_calls}.")
        found += _too_long_or_none("circuitBreaker.window", self.window)
        return found + _too_long_or_none("circuitBreaker.openFor", self.open_for)


@dataclass(frozen=True, slots=True)
class BulkheadPolicy:
    """The number of calls that may be under way at once, and of those that may wait for a place."""

    max_concurrent: int = 64
    max_queued: int = 128

    def validate(self) -> list[str]:
        """Return one sentence for each violation, none if all is well."""
        found = []
        if self.max_concurrent < 1:
            found.append(f"bulkhead.maxConcurrent must be at least 1, it is {self.max_concurrent}.")
        if self.max_queued < 0:
            found.append(f"bulkhead.maxQueued must not be negative, it is {self.max_queued}.")
        return found


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The rules of calling a method: how long, how often, after which answers again, how its service is protected."""

    timeout: timedelta = timedelta(seconds=2)
    attempts: int = 4
    backoff: Backoff = Backoff()
    retry_on: frozenset[str] = RETRY_ON
    budget: BudgetPolicy = BudgetPolicy()
    circuit_breaker: BreakerPolicy = BreakerPolicy()
    bulkhead: BulkheadPolicy = BulkheadPolicy()

    def again(self, status: str, attempt: int) -> bool:
        """Return whether attempt number `attempt` (from 1), answered with the status named, may be followed by another.

        Says nothing of the outcome's class: a status that is retried may well be a rejection. CANCELLED counts as
        UNAVAILABLE: whoever asks has cancelled nothing, but a server that stops ends what it has not begun so.
        """
        listed = status in self.retry_on or (status == "CANCELLED" and "UNAVAILABLE" in self.retry_on)
        return attempt < self.attempts and listed

    def worst_case(self) -> timedelta:
        """Return how long a call can take at most: every attempt to its timeout, every pause to its ceiling."""
        pauses = ZERO
        for attempt in range(1, self.attempts):
            ceiling = self.backoff.ceiling(attempt)
            if ceiling == self.backoff.maximum:
                pauses += ceiling * (self.attempts - attempt)
                break
            pauses += ceiling
        return self.timeout * self.attempts + pauses

    def validate(self) -> list[str]:
        """Return one sentence for each violation, of the parts too; none if all is well."""
        found = _too_long_or_none("timeout", self.timeout)
        if not (1 <= self.attempts <= MOST_ATTEMPTS):
            found.append(f"attempts must be from 1 to {MOST_ATTEMPTS}, it is {self.attempts}.")
        found += self.backoff.validate()
        found += [
            f"retryOn names {name}, which is no gRPC status that can be retried."
            for name in sorted(self.retry_on - STATUS_NAMES)
        ]
        return found + self.budget.validate() + self.circuit_breaker.validate() + self.bulkhead.validate()
