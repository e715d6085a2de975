"""The arithmetic of policies, and what they refuse to be."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from amends_resilience import Backoff, BreakerPolicy, BudgetPolicy, BulkheadPolicy, RetryPolicy
from hypothesis import given
from hypothesis import strategies as st

ms = st.integers(min_value=1, max_value=10**9).map(lambda n: timedelta(milliseconds=n))
backoffs = st.builds(
    lambda a, b, m: Backoff(min(a, b), max(a, b), m), ms, ms, st.floats(min_value=1, max_value=100, allow_nan=False)
)
policies = st.builds(RetryPolicy, timeout=ms, attempts=st.integers(1, 1_000), backoff=backoffs)


def test_the_default_back_off_doubles_from_100_ms_to_5_s() -> None:
    ceilings = [Backoff().ceiling(attempt) for attempt in range(1, 9)]
    assert ceilings == [timedelta(milliseconds=n) for n in (100, 200, 400, 800, 1600, 3200, 5000, 5000)]


def test_a_pause_lies_anywhere_between_nothing_and_the_ceiling() -> None:
    assert Backoff().delay(3, lambda: 0.0) == timedelta(0)
    assert Backoff().delay(3, lambda: 0.5) == timedelta(milliseconds=200)


def test_attempts_are_counted_from_one() -> None:
    with pytest.raises(ValueError, match="from 1"):
        Backoff().ceiling(0)


@given(backoffs, st.integers(1, 10**12), st.floats(min_value=0, max_value=1, exclude_max=True))
def test_a_pause_never_overflows_and_stays_under_a_ceiling_that_only_grows(
    backoff: Backoff, attempt: int, part: float
) -> None:
    ceiling = backoff.ceiling(attempt)
    assert timedelta(0) <= backoff.delay(attempt, lambda: part) <= ceiling <= backoff.maximum
    assert backoff.initial <= ceiling <= backoff.ceiling(attempt + 1)


@given(policies)
def test_the_worst_case_is_every_timeout_and_every_ceiling(policy: RetryPolicy) -> None:
    pauses = sum((policy.backoff.ceiling(n) for n in range(1, policy.attempts)), timedelta(0))
    assert policy.worst_case() == policy.timeout * policy.attempts + pauses


def test_the_worst_case_of_the_default_policy_is_8_7_seconds() -> None:
    assert RetryPolicy().worst_case() == timedelta(seconds=8.7)


@given(policies)
def test_what_the_generators_make_is_valid(policy: RetryPolicy) -> None:
    assert policy.validate() == []


def test_the_default_policy_is_valid() -> None:
    assert RetryPolicy().validate() == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda p: replace(p, timeout=timedelta(0)), "timeout must be more than zero"),
        (lambda p: replace(p, timeout=timedelta(days=400)), "timeout must be more than zero and at most 366 days"),
        (lambda p: replace(p, attempts=0), "attempts must be from 1 to 1000"),
        (lambda p: replace(p, attempts=1001), "attempts must be from 1 to 1000"),
        (lambda p: replace(p, retry_on=frozenset({"OK"})), "retryOn names OK"),
        (lambda p: replace(p, retry_on=frozenset({"UNAVAILIBLE"})), "retryOn names UNAVAILIBLE"),
        (lambda p: replace(p, backoff=Backoff(initial=timedelta(0))), "backoff.initial"),
        (lambda p: replace(p, backoff=Backoff(initial=timedelta(seconds=6))), "must not be less than backoff.initial"),
        (lambda p: replace(p, backoff=Backoff(multiplier=0.5)), "backoff.multiplier"),
        (lambda p: replace(p, backoff=Backoff(multiplier=float("nan"))), "backoff.multiplier"),
        (lambda p: replace(p, budget=BudgetPolicy(ratio=-0.1)), "budget.ratio"),
        (lambda p: replace(p, budget=BudgetPolicy(ratio=float("nan"))), "budget.ratio"),
        (lambda p: replace(p, budget=BudgetPolicy(min_per_second=-1)), "budget.minPerSecond"),
        (lambda p: replace(p, circuit_breaker=BreakerPolicy(failure_ratio=0)), "circuitBreaker.failureRatio"),
        (lambda p: replace(p, circuit_breaker=BreakerPolicy(minimum_calls=0)), "circuitBreaker.minimumCalls"),
        (lambda p: replace(p, circuit_breaker=BreakerPolicy(window=timedelta(0))), "circuitBreaker.window"),
        (lambda p: replace(p, circuit_breaker=BreakerPolicy(open_for=timedelta(-1))), "circuitBreaker.openFor"),
        (lambda p: replace(p, bulkhead=BulkheadPolicy(max_concurrent=0)), "bulkhead.maxConcurrent"),
        (lambda p: replace(p, bulkhead=BulkheadPolicy(max_queued=-1)), "bulkhead.maxQueued"),
    ],
)
def test_each_violation_is_one_sentence_that_names_the_field(
    change: Callable[[RetryPolicy], RetryPolicy], says: str
) -> None:
    found = change(RetryPolicy()).validate()
    assert len(found) == 1
    assert says in found[0]
    assert found[0].endswith(".")


def test_all_violations_are_told_at_once() -> None:
    policy = RetryPolicy(timeout=timedelta(0), attempts=0, budget=BudgetPolicy(ratio=-1, min_per_second=-1))
    assert len(policy.validate()) == 4


@pytest.mark.parametrize(
    ("status", "attempt", "again"),
    [("UNAVAILABLE", 1, True), ("UNAVAILABLE", 3, True), ("UNAVAILABLE", 4, False), ("NOT_FOUND", 1, False)],
)
def test_another_attempt_needs_a_status_of_the_list_and_an_attempt_left(status: str, attempt: int, again: bool) -> None:
    assert RetryPolicy().again(status, attempt) is again


def test_a_call_that_a_stopping_server_cancelled_is_as_one_to_a_server_that_is_away() -> None:
    assert RetryPolicy(retry_on=frozenset({"UNAVAILABLE"})).again("CANCELLED", 1)
    assert not RetryPolicy(retry_on=frozenset({"UNAVAILABLE"}), attempts=2).again("CANCELLED", 2)
    assert not RetryPolicy(retry_on=frozenset({"INTERNAL"})).again("CANCELLED", 1)
    assert RetryPolicy(retry_on=frozenset({"CANCELLED"})).again("CANCELLED", 1)
