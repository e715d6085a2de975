"""Retries cost tokens, and tokens come from calls."""

from datetime import timedelta

from amends_resilience import BudgetPolicy, RetryBudget
from amends_testkit.clock import HandClock
from hypothesis import given
from hypothesis import strategies as st

SECOND = timedelta(seconds=1)


def withdrawals(budget: RetryBudget) -> int:
    count = 0
    while budget.withdraw():
        count += 1
    return count


def test_an_idle_service_may_be_retried_out_of_the_reserve(clock: HandClock) -> None:
    assert withdrawals(RetryBudget(BudgetPolicy(ratio=0.2, min_per_second=10), clock)) == 100


def test_every_five_calls_earn_one_retry(clock: HandClock) -> None:
    budget = RetryBudget(BudgetPolicy(ratio=0.2, min_per_second=0), clock)
    for _ in range(4):
        budget.deposit()
    assert not budget.withdraw()
    budget.deposit()
    assert budget.withdraw()
    assert not budget.withdraw()


def test_tokens_that_nobody_takes_expire_after_ten_seconds(clock: HandClock) -> None:
    budget = RetryBudget(BudgetPolicy(ratio=1, min_per_second=0), clock)
    budget.deposit()
    clock.go(9 * SECOND)
    assert budget.balance == 1
    clock.go(SECOND)
    assert budget.balance == 0


def test_a_spent_reserve_comes_back(clock: HandClock) -> None:
    budget = RetryBudget(BudgetPolicy(ratio=0, min_per_second=1), clock)
    assert withdrawals(budget) == 10
    clock.go(10 * SECOND)
    assert withdrawals(budget) == 10


def test_a_stricter_policy_holds_at_once(clock: HandClock) -> None:
    budget = RetryBudget(BudgetPolicy(ratio=0, min_per_second=10), clock)
    assert budget.withdraw()
    budget.policy = BudgetPolicy(ratio=0, min_per_second=0)
    assert not budget.withdraw()


def test_when_everything_fails_retries_add_a_fifth_and_the_reserve(clock: HandClock) -> None:
    budget = RetryBudget(BudgetPolicy(), clock)
    calls = retries = 0
    for _ in range(600):
        for _ in range(100):
            budget.deposit()
            calls += 1
            retries += sum(budget.withdraw() for _ in range(3))
        clock.go(SECOND / 10)
    assert retries <= 0.2 * calls + 10 * (60 + 10)
    assert retries >= 0.2 * calls


@given(
    st.lists(st.tuples(st.integers(0, 3_000), st.integers(0, 30), st.integers(0, 60)), max_size=60),
    st.floats(0, 2),
    st.integers(0, 5),
)
def test_a_retry_is_granted_only_if_the_last_ten_slices_earned_it(
    moves: list[tuple[int, int, int]], ratio: float, floor: int
) -> None:
    clock = HandClock()
    budget = RetryBudget(BudgetPolicy(ratio, floor), clock)
    calls: list[int] = []
    retries: list[int] = []
    for pause, deposits, wishes in moves:
        clock.go(timedelta(milliseconds=pause))
        now = clock.monotonic() // SECOND
        for _ in range(deposits):
            budget.deposit()
            calls.append(now)
        for _ in range(wishes):
            granted = budget.withdraw()
            earned = ratio * sum(at > now - 10 for at in calls) + 10 * floor
            spent = sum(at > now - 10 for at in retries)
            assert granted is (spent + 1 <= earned + 1e-9)
            if granted:
                retries.append(now)


def test_memory_does_not_grow_with_time(clock: HandClock) -> None:
    budget = RetryBudget(BudgetPolicy(), clock)
    for _ in range(1_000):
        budget.deposit()
        clock.go(SECOND / 3)
    assert len(budget._counts._slices) <= 10
