"""The retry budget: retries may add a fixed share of load to a service in trouble, and no more.

After Finagle's RetryBudget: every first attempt deposits `ratio` tokens, every retry takes one, a
reserve of `min_per_second` stands for services that are called seldom, and tokens expire. One budget
per participant and process. Called by whoever retries, before it does.
"""

from datetime import timedelta

from amends_resilience.policy import BudgetPolicy
from amends_resilience.ports import Clock
from amends_resilience.window import RollingCounts

EXPIRY = timedelta(seconds=10)
_ROUNDING = 1e-9


class RetryBudget:
    """Counts first attempts and retries of the last ten seconds.

    Whenever a retry is granted, the retries of the last ten seconds, it included, are at most `ratio` times the first
    attempts of the same time plus ten times `min_per_second`.
    """

    def __init__(self, policy: BudgetPolicy, clock: Clock) -> None:
        self.policy = policy
        """In force from the next call on; a new one may be set at any time."""
        self._clock = clock
        self._counts = RollingCounts(EXPIRY)

    def deposit(self) -> None:
        """Count a first attempt, which earns a share of a retry."""
        self._counts.add(self._clock.monotonic(), first=1)

    def withdraw(self) -> bool:
        """Take the token for one retry; False means that there is none and the retry must not be made."""
        now = self._clock.monotonic()
        if self._balance(now) < 1.0 - _ROUNDING:
            return False
        self._counts.add(now, second=1)
        return True

    @property
    def balance(self) -> float:
        """Return how many retries could be made now; not whole, and negative after the policy became stricter."""
        return self._balance(self._clock.monotonic())

    def _balance(self, now: timedelta) -> float:
        self._counts.roll(now)
        reserve = self.policy.min_per_second * EXPIRY.total_seconds()
        return reserve + self.policy.ratio * self._counts.first - self._counts.second
