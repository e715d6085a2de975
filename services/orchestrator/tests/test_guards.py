"""What is given back when a call is not let through: the breaker's probe, and the slot in the bulkhead."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from amends_orchestrator.calls.guards import CallDelayedError, Guards, ParticipantGuard
from amends_resilience import BreakerPolicy, BudgetPolicy, BulkheadPolicy, RetryPolicy

OPEN_FOR = timedelta(milliseconds=20)
POLICY = RetryPolicy(
    budget=BudgetPolicy(ratio=0.0, min_per_second=0),
    circuit_breaker=BreakerPolicy(failure_ratio=1.0, minimum_calls=1, open_for=OPEN_FOR),
    bulkhead=BulkheadPolicy(max_concurrent=1, max_queued=0),
)


@pytest.fixture
def guard() -> ParticipantGuard:
    return Guards().of("participant", "test.v1.Test", "policy", POLICY)


async def half_open(guard: ParticipantGuard) -> None:
    permit = guard.try_permit(retry=False)
    assert permit is not None
    permit.conclude(failed=True)
    with pytest.raises(CallDelayedError, match="circuit breaker"):
        guard.try_permit(retry=False)
    await asyncio.sleep(OPEN_FOR.total_seconds() * 1.5)


async def test_the_probe_of_a_half_open_breaker_is_kept_when_the_budget_is_spent(guard: ParticipantGuard):
    await half_open(guard)
    for _ in range(3):
        with pytest.raises(CallDelayedError, match="budget"):
            guard.try_permit(retry=True)
    probe = guard.try_permit(retry=False)
    assert probe is not None
    probe.conclude(failed=False)
    after = guard.try_permit(retry=False)
    assert after is not None
    after.give_back()


async def test_a_probe_that_was_not_made_is_given_back(guard: ParticipantGuard):
    await half_open(guard)
    probe = guard.try_permit(retry=False)
    assert probe is not None
    probe.give_back()
    again = guard.try_permit(retry=False)
    assert again is not None
    again.conclude(failed=False)


async def test_a_call_that_is_held_back_leaves_its_place_to_others(guard: ParticipantGuard):
    with pytest.raises(CallDelayedError, match="budget"):
        guard.try_permit(retry=True)
    permit = guard.try_permit(retry=False)
    assert permit is not None
    assert guard.try_permit(retry=False) is None  # the only place is taken
    permit.conclude(failed=False)
    assert guard.try_permit(retry=False) is not None
