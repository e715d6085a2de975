"""Protects participants before each call: circuit breaker, bulkhead and retry budget.

All methods of a participant that are under the same retry policy share one guard. A call that is refused here is no
attempt: nothing was sent. The runner asks before it writes the intent of a pivot, and before every other call.
"""

from __future__ import annotations

import random
from datetime import timedelta

from amends_resilience import (
    BreakerOpenError,
    BreakerState,
    Bulkhead,
    BulkheadFullError,
    BulkheadSlot,
    CircuitBreaker,
    Clock,
    Pacer,
    Permit,
    RetryBudget,
    RetryPolicy,
    SystemClock,
)

from amends_orchestrator.observe import BREAKER_OPEN, CALLS_IN_FLIGHT, NOT_ADMITTED

# Runs that were held back return one after the other, a hundred a second, so that they cause no second outage.
RETURN_EVERY = timedelta(milliseconds=10)
BUDGET_PAUSE = timedelta(seconds=1)
_GAUGE = {BreakerState.CLOSED: 0.0, BreakerState.HALF_OPEN: 0.5, BreakerState.OPEN: 1.0}


class CallDelayedError(Exception):
    """The call may not be made now; try again after `retry_in`. The text is for people."""

    def __init__(self, retry_in: timedelta, message: str) -> None:
        super().__init__(message)
        self.retry_in = retry_in
        self.message = message


class CallPermit:
    """Permission to make one call: a slot in the bulkhead and a permit of the breaker. Conclude it exactly once."""

    __slots__ = ("_guard", "_permit", "_slot")

    def __init__(self, guard: ParticipantGuard, slot: BulkheadSlot, permit: Permit) -> None:
        self._guard = guard
        self._slot = slot
        self._permit = permit

    def conclude(self, *, failed: bool) -> None:
        """Report how the call ended to the breaker, and free its slot."""
        self._slot.release()
        if failed:
            self._permit.failure()
        else:
            self._permit.success()
        self._guard.in_flight.dec()

    def give_back(self) -> None:
        """Free the slot without a report: the call was not made, or says nothing about the service."""
        self._slot.release()
        self._permit.release()
        self._guard.in_flight.dec()


class ParticipantGuard:
    """The protection of one participant under one policy."""

    def __init__(self, service: str, policy: RetryPolicy, clock: Clock, chance: random.Random) -> None:
        self.service = service
        self.policy = policy
        self.in_flight = CALLS_IN_FLIGHT.labels(service=service)
        gauge = BREAKER_OPEN.labels(service=service)
        gauge.set(0)
        self._breaker = CircuitBreaker(policy.circuit_breaker, clock, lambda state: gauge.set(_GAUGE[state]))
        self._bulkhead = Bulkhead(policy.bulkhead)
        self._budget = RetryBudget(policy.budget, clock)
        self._pacer = Pacer(RETURN_EVERY, clock, chance)

    def apply(self, policy: RetryPolicy) -> None:
        """Replace the policy; calls under way stay counted."""
        if policy != self.policy:
            self.policy = policy
            self._breaker.apply(policy.circuit_breaker)
            self._bulkhead.apply(policy.bulkhead)
            self._budget.policy = policy.budget

    def try_permit(self, *, retry: bool) -> CallPermit | None:
        """Return a permit, or None when the bulkhead is full. Raises CallDelayedError."""
        slot = self._bulkhead.try_acquire()
        if slot is None:
            return None
        return self._through(slot, retry=retry)

    async def wait_permit(self, *, retry: bool) -> CallPermit:
        """Return a permit, after at most one timeout of the policy in the bulkhead's queue. Raises CallDelayedError."""
        try:
            slot = await self._bulkhead.acquire(self.policy.timeout)
        except BulkheadFullError as full:
            raise self._delayed("bulkhead", timedelta(), f"too many calls are under way: {full}") from None
        return self._through(slot, retry=retry)

    def _through(self, slot: BulkheadSlot, *, retry: bool) -> CallPermit:
        try:
            permit = self._breaker.acquire()
        except BreakerOpenError as refused:
            slot.release()
            raise self._delayed("breaker", refused.retry_in, "the circuit breaker is open") from None
        if retry and not self._budget.withdraw():
            permit.release()
            slot.release()
            raise self._delayed("budget", BUDGET_PAUSE, "the retry budget is spent")
        if not retry:
            self._budget.deposit()
        self.in_flight.inc()
        return CallPermit(self, slot, permit)

    def _delayed(self, by: str, at_least: timedelta, message: str) -> CallDelayedError:
        NOT_ADMITTED.labels(service=self.service, by=by).inc()
        return CallDelayedError(self._pacer.delay(at_least), message)


class Guards:
    """All guards of this process. A simulation gives them its own time and chance."""

    def __init__(self, clock: Clock | None = None, chance: random.Random | None = None) -> None:
        self._clock = clock or SystemClock()
        self._chance = chance or random.SystemRandom()
        self._guards: dict[tuple[str, str], ParticipantGuard] = {}

    def of(self, participant: str, service: str, policy_name: str, policy: RetryPolicy) -> ParticipantGuard:
        """Return the guard of a participant under the policy of that name (empty: the default policy)."""
        guard = self._guards.get((participant, policy_name))
        if guard is None:
            guard = self._guards[participant, policy_name] = ParticipantGuard(
                service, policy, self._clock, self._chance
            )
        guard.apply(policy)
        return guard
