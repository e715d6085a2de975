"""When the breaker opens, and how it closes again."""

from datetime import timedelta

import pytest
from amends_resilience import BreakerOpenError, BreakerPolicy, BreakerState, CircuitBreaker, Pacer, Permit
from amends_testkit.clock import HandClock
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

POLICY = BreakerPolicy(failure_ratio=0.5, minimum_calls=4, window=timedelta(seconds=10), open_for=timedelta(seconds=5))


@pytest.fixture
def breaker(clock: HandClock) -> CircuitBreaker:
    return CircuitBreaker(POLICY, clock)


def call(breaker: CircuitBreaker, ok: bool) -> None:
    with breaker.acquire() as permit:
        if ok:
            permit.success()
        else:
            permit.failure()


def state(breaker: CircuitBreaker) -> BreakerState:
    return breaker.state


def trip(breaker: CircuitBreaker) -> None:
    for _ in range(4):
        call(breaker, ok=False)


def test_it_opens_at_the_ratio_among_at_least_the_minimum_of_calls(breaker: CircuitBreaker) -> None:
    for ok in (True, False, True):
        call(breaker, ok)
    assert state(breaker) is BreakerState.CLOSED
    call(breaker, ok=False)
    assert state(breaker) is BreakerState.OPEN


def test_too_few_calls_never_open_it(breaker: CircuitBreaker) -> None:
    for _ in range(3):
        call(breaker, ok=False)
    assert state(breaker) is BreakerState.CLOSED


def test_failures_below_the_ratio_never_open_it(breaker: CircuitBreaker) -> None:
    for ok in (True, True, False) * 50:
        call(breaker, ok)
    assert state(breaker) is BreakerState.CLOSED


def test_failures_that_left_the_window_do_not_count(breaker: CircuitBreaker, clock: HandClock) -> None:
    for _ in range(3):
        call(breaker, ok=False)
    clock.go(POLICY.window)
    call(breaker, ok=False)
    assert state(breaker) is BreakerState.CLOSED


def test_while_open_it_refuses_and_says_when_to_come_back(breaker: CircuitBreaker, clock: HandClock) -> None:
    trip(breaker)
    clock.go(timedelta(seconds=2))
    with pytest.raises(BreakerOpenError) as refused:
        breaker.acquire()
    assert refused.value.retry_in == timedelta(seconds=3) == breaker.retry_in()


def test_half_open_it_lets_one_of_twenty_through(breaker: CircuitBreaker, clock: HandClock) -> None:
    trip(breaker)
    clock.go(POLICY.open_for)
    breaker.acquire()
    for _ in range(19):
        with pytest.raises(BreakerOpenError) as refused:
            breaker.acquire()
        assert refused.value.retry_in == POLICY.open_for / 10


def test_a_probe_that_succeeds_closes_it_with_a_clean_slate(breaker: CircuitBreaker, clock: HandClock) -> None:
    trip(breaker)
    clock.go(POLICY.open_for)
    call(breaker, ok=True)
    assert state(breaker) is BreakerState.CLOSED
    for _ in range(3):
        call(breaker, ok=False)
    assert state(breaker) is BreakerState.CLOSED


def test_a_probe_that_fails_opens_it_for_the_whole_time_again(breaker: CircuitBreaker, clock: HandClock) -> None:
    trip(breaker)
    clock.go(POLICY.open_for)
    call(breaker, ok=False)
    assert state(breaker) is BreakerState.OPEN
    assert breaker.retry_in() == POLICY.open_for


def test_a_probe_that_was_never_sent_makes_room_for_another(breaker: CircuitBreaker, clock: HandClock) -> None:
    trip(breaker)
    clock.go(POLICY.open_for)
    with pytest.raises(RuntimeError, match="before it was sent"), breaker.acquire():
        raise RuntimeError("lost before it was sent")
    assert state(breaker) is BreakerState.HALF_OPEN
    call(breaker, ok=True)
    assert state(breaker) is BreakerState.CLOSED


@pytest.mark.parametrize("late", [True, False])
def test_a_verdict_from_before_it_opened_decides_nothing(breaker: CircuitBreaker, clock: HandClock, late: bool) -> None:
    old = breaker.acquire()
    trip(breaker)
    clock.go(POLICY.open_for)
    probe = breaker.acquire()
    (old.success if late else old.failure)()
    assert state(breaker) is BreakerState.HALF_OPEN
    with pytest.raises(BreakerOpenError):
        breaker.acquire()
    probe.success()
    assert state(breaker) is BreakerState.CLOSED


def test_a_second_verdict_of_one_call_is_ignored(breaker: CircuitBreaker) -> None:
    permit = breaker.acquire()
    for _ in range(10):
        permit.failure()
    assert state(breaker) is BreakerState.CLOSED


def test_whoever_asks_is_told_of_each_change(clock: HandClock) -> None:
    seen: list[BreakerState] = []
    breaker = CircuitBreaker(POLICY, clock, seen.append)
    trip(breaker)
    clock.go(POLICY.open_for)
    call(breaker, ok=True)
    assert seen == [BreakerState.OPEN, BreakerState.HALF_OPEN, BreakerState.CLOSED]


def test_another_policy_holds_from_the_next_call(breaker: CircuitBreaker) -> None:
    breaker.apply(BreakerPolicy(minimum_calls=1, window=timedelta(seconds=1)))
    call(breaker, ok=False)
    assert state(breaker) is BreakerState.OPEN
    assert breaker.policy.minimum_calls == 1


def test_those_who_wait_come_back_one_interval_apart_with_jitter(clock: HandClock) -> None:
    class Half:
        def random(self) -> float:
            return 0.5

    pacer = Pacer(timedelta(milliseconds=10), clock, Half())
    delays = [pacer.delay(timedelta(seconds=5)) for _ in range(3)]
    assert delays == [timedelta(seconds=5, milliseconds=n) for n in (5, 15, 25)]
    clock.go(timedelta(seconds=9))
    assert pacer.delay() == timedelta(milliseconds=5)


def test_a_pacer_needs_an_interval(clock: HandClock) -> None:
    with pytest.raises(ValueError, match="more than zero"):
        Pacer(timedelta(0), clock, chance=None)  # type: ignore[arg-type]


class BreakerMachine(RuleBasedStateMachine):
    """Calls that begin and end in any order, while time passes."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = HandClock()
        self.opened_at: timedelta | None = None
        self.breaker = CircuitBreaker(POLICY, self.clock, self.changed)
        self.out: list[tuple[Permit, bool]] = []

    def changed(self, state: BreakerState) -> None:
        if state is BreakerState.OPEN:
            self.opened_at = self.clock.monotonic()

    @rule()
    def begin(self) -> None:
        before = self.breaker.state
        try:
            permit = self.breaker.acquire()
        except BreakerOpenError:
            assert before is not BreakerState.CLOSED
            return
        assert before is not BreakerState.OPEN
        self.out.append((permit, before is BreakerState.HALF_OPEN))

    @precondition(lambda self: self.out)
    @rule(data=st.data(), verdict=st.sampled_from(["success", "failure", "release"]))
    def end(self, data: st.DataObject, verdict: str) -> None:
        permit, _ = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        getattr(permit, verdict)()

    @rule(seconds=st.integers(0, 7))
    def wait(self, seconds: int) -> None:
        self.clock.go(timedelta(seconds=seconds))

    @invariant()
    def at_most_one_probe_is_out(self) -> None:
        if self.breaker.state is BreakerState.HALF_OPEN:
            assert sum(probe and permit._epoch == self.breaker._epoch for permit, probe in self.out) <= 1

    @invariant()
    def it_stays_open_for_exactly_its_time(self) -> None:
        if self.breaker.state is BreakerState.OPEN:
            assert self.opened_at is not None
            assert self.clock.monotonic() - self.opened_at < POLICY.open_for
            assert self.breaker.retry_in() == self.opened_at + POLICY.open_for - self.clock.monotonic()

    @invariant()
    def it_can_always_get_out(self) -> None:
        if self.breaker.state is BreakerState.HALF_OPEN and not self.out:
            assert self.breaker.retry_in() == timedelta(0)


TestBreakerMachine = BreakerMachine.TestCase
TestBreakerMachine.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)
