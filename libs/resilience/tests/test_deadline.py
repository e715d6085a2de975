"""The deadline travels with the work."""

import asyncio
from datetime import timedelta

import pytest
from amends_resilience import DeadlinePassedError, SystemClock, deadline
from amends_testkit.clock import HandClock

SECOND = timedelta(seconds=1)


def test_outside_a_scope_there_is_none(clock: HandClock) -> None:
    assert deadline.current() is None
    assert deadline.remaining() is None
    assert deadline.timeout(2 * SECOND) == 2 * SECOND


def test_what_is_left_shrinks_with_time_and_margin_but_not_below_zero(clock: HandClock) -> None:
    with deadline.scope(5 * SECOND, clock):
        assert deadline.remaining() == 5 * SECOND
        clock.go(2 * SECOND)
        assert deadline.remaining(margin=SECOND) == 2 * SECOND
        clock.go(9 * SECOND)
        assert deadline.remaining() == timedelta(0)


def test_a_call_takes_its_default_or_what_is_left(clock: HandClock) -> None:
    with deadline.scope(5 * SECOND, clock):
        assert deadline.timeout(2 * SECOND) == 2 * SECOND
        assert deadline.timeout(9 * SECOND, margin=SECOND) == 4 * SECOND
        clock.go(4 * SECOND)
        with pytest.raises(DeadlinePassedError):
            deadline.timeout(2 * SECOND, margin=SECOND)


def test_an_inner_scope_can_only_shorten(clock: HandClock) -> None:
    with deadline.scope(5 * SECOND, clock):
        with deadline.scope(9 * SECOND, clock):
            assert deadline.remaining() == 5 * SECOND
        with deadline.scope(SECOND, clock):
            assert deadline.remaining() == SECOND
        assert deadline.remaining() == 5 * SECOND
    assert deadline.current() is None


def test_a_scope_ends_with_an_error_too(clock: HandClock) -> None:
    with pytest.raises(KeyError), deadline.scope(SECOND, clock):
        raise KeyError
    assert deadline.current() is None


async def test_tasks_started_inside_inherit_it_and_others_do_not(clock: HandClock) -> None:
    async def look() -> timedelta | None:
        await asyncio.sleep(0)
        return deadline.remaining()

    outside = asyncio.create_task(look())
    with deadline.scope(SECOND, clock):
        inside = asyncio.create_task(look())
    assert (await outside, await inside) == (None, SECOND)


def test_the_system_clock_goes_on() -> None:
    clock = SystemClock()
    first = clock.monotonic()
    assert first <= clock.monotonic() < first + timedelta(minutes=1)
