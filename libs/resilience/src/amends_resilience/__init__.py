"""Retry policy, back-off, budget, deadline, circuit breaker and bulkhead, on the standard library alone."""
