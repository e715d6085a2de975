"""Retry policy, back-off, budget, deadline, circuit breaker and bulkhead, on the standard library alone."""

from amends_resilience import deadline
from amends_resilience.breaker import BreakerOpen, BreakerState, CircuitBreaker, Permit
from amends_resilience.budget import RetryBudget
from amends_resilience.bulkhead import Bulkhead, BulkheadFull, Place
from amends_resilience.deadline import Deadline, DeadlinePassed
from amends_resilience.matching import Conflict, NamedPolicy, Selector, match
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
    "BreakerOpen",
    "BreakerPolicy",
    "BreakerState",
    "BudgetPolicy",
    "Bulkhead",
    "BulkheadFull",
    "BulkheadPolicy",
    "CircuitBreaker",
    "Clock",
    "Conflict",
    "Deadline",
    "DeadlinePassed",
    "NamedPolicy",
    "Pacer",
    "Permit",
    "Place",
    "Random",
    "RetryBudget",
    "RetryPolicy",
    "Selector",
    "SystemClock",
    "deadline",
    "match",
]
