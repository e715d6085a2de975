"""Retry policy, back-off, budget, deadline, circuit breaker and bulkhead, on the standard library alone."""

from amends_resilience import deadline
from amends_resilience.breaker import BreakerOpenError, BreakerState, CircuitBreaker, Permit
from amends_resilience.budget import RetryBudget
from amends_resilience.bulkhead import Bulkhead, BulkheadFullError, BulkheadSlot
from amends_resilience.deadline import Deadline, DeadlinePassedError
from amends_resilience.matching import NamedPolicy, PolicyConflict, Selector, match
from amends_resilience.pacer import Pacer
from amends_resilience.policy import (
    RETRY_ON,
    STATUS_NAMES,
    Backoff,
    BreakerPolicy,
    BudgetPolicy,
    BulkheadPolicy,
    RetryPolicy,
)
from amends_resilience.ports import Clock, Random, SystemClock

__all__ = [
    "RETRY_ON",
    "STATUS_NAMES",
    "Backoff",
    "BreakerOpenError",
    "BreakerPolicy",
    "BreakerState",
    "BudgetPolicy",
    "Bulkhead",
    "BulkheadFullError",
    "BulkheadPolicy",
    "BulkheadSlot",
    "CircuitBreaker",
    "Clock",
    "Deadline",
    "DeadlinePassedError",
    "NamedPolicy",
    "Pacer",
    "Permit",
    "PolicyConflict",
    "Random",
    "RetryBudget",
    "RetryPolicy",
    "Selector",
    "SystemClock",
    "deadline",
    "match",
]
