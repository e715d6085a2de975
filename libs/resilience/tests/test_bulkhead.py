"""Places, the queue for them, and what cancellation must not lose."""

import asyncio
from datetime import timedelta

import pytest
from amends_resilience import Bulkhead, BulkheadFullError, BulkheadPolicy, BulkheadSlot
from hypothesis import given, settings
from hypothesis import strategies as st

LONG, SHORT = timedelta(seconds=30), timedelta(milliseconds=5)


async def turn() -> None:
    """Let everything that can run, run."""
    for _ in range(5):
        await asyncio.sleep(0)


async def full(concurrent: int = 1, queued: int = 2) -> tuple[Bulkhead, list[BulkheadSlot]]:
    bulkhead = Bulkhead(BulkheadPolicy(concurrent, queued))
    return bulkhead, [await bulkhead.acquire(LONG) for _ in range(concurrent)]


async def test_no_more_than_the_limit_are_under_way() -> None:
    bulkhead = Bulkhead(BulkheadPolicy(3, 100))
    peak = 0

    async def work() -> None:
        nonlocal peak
        with await bulkhead.acquire(LONG):
            peak = max(peak, bulkhead.in_flight)
            await turn()

    await asyncio.gather(*(work() for _ in range(50)))
    assert peak == 3
    assert (bulkhead.in_flight, bulkhead.queued) == (0, 0)


async def test_a_full_queue_refuses_at_once() -> None:
    bulkhead, places = await full(queued=1)
    waiter = asyncio.create_task(bulkhead.acquire(LONG))
    await turn()
    with pytest.raises(BulkheadFullError, match="1 calls are under way and 1 wait"):
        await bulkhead.acquire(LONG)
    places[0].release()
    (await waiter).release()
    assert bulkhead.in_flight == 0


async def test_whoever_waits_too_long_is_refused_and_leaves_the_queue() -> None:
    bulkhead, _ = await full()
    with pytest.raises(BulkheadFullError, match="no slot became free"):
        await bulkhead.acquire(SHORT)
    assert (bulkhead.in_flight, bulkhead.queued) == (1, 0)


async def test_without_a_queue_there_is_no_waiting() -> None:
    bulkhead, _ = await full(queued=0)
    with pytest.raises(BulkheadFullError):
        await bulkhead.acquire(LONG)
    assert bulkhead.try_acquire() is None


async def test_places_go_out_in_the_order_of_arrival() -> None:
    bulkhead, (place,) = await full(queued=5)
    served: list[int] = []

    async def wait(number: int) -> None:
        with await bulkhead.acquire(LONG):
            served.append(number)

    waiters = []
    for number in range(5):
        waiters.append(asyncio.create_task(wait(number)))
        await turn()
    place.release()
    assert bulkhead.try_acquire() is None
    await asyncio.gather(*waiters)
    assert served == [0, 1, 2, 3, 4]


async def test_a_cancelled_waiter_leaves_the_queue() -> None:
    bulkhead, (place,) = await full()
    waiter = asyncio.create_task(bulkhead.acquire(LONG))
    await turn()
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    place.release()
    assert (bulkhead.in_flight, bulkhead.queued) == (0, 0)


async def test_a_place_given_to_a_waiter_that_is_cancelled_in_the_same_moment_is_not_lost() -> None:
    bulkhead, (place,) = await full()
    waiter = asyncio.create_task(bulkhead.acquire(LONG))
    await turn()
    place.release()
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert bulkhead.in_flight == 0


async def test_a_place_is_given_back_once_only() -> None:
    bulkhead, (place, _) = await full(concurrent=2)
    place.release()
    place.release()
    assert bulkhead.in_flight == 1


async def test_more_room_goes_to_those_who_wait() -> None:
    bulkhead, _ = await full()
    waiter = asyncio.create_task(bulkhead.acquire(LONG))
    await turn()
    bulkhead.apply(BulkheadPolicy(2, 2))
    await waiter
    assert (bulkhead.in_flight, bulkhead.queued, bulkhead.policy.max_concurrent) == (2, 0, 2)


async def test_less_room_holds_once_the_surplus_has_left() -> None:
    bulkhead, places = await full(concurrent=3)
    bulkhead.apply(BulkheadPolicy(1, 2))
    places.pop().release()
    places.pop().release()
    assert bulkhead.try_acquire() is None
    places.pop().release()
    assert bulkhead.try_acquire() is not None


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from(["enter", "leave", "cancel", "turn", "give up"]), max_size=60))
def test_no_sequence_of_events_loses_or_invents_a_place(events: list[str]) -> None:
    async def play() -> None:
        bulkhead = Bulkhead(BulkheadPolicy(2, 3))
        tasks: list[asyncio.Task[BulkheadSlot]] = []
        held: list[BulkheadSlot] = []

        def collect() -> None:
            for task in [task for task in tasks if task.done()]:
                tasks.remove(task)
                if not task.cancelled() and task.exception() is None:
                    held.append(task.result())

        for event in events:
            if event == "enter":
                tasks.append(asyncio.create_task(bulkhead.acquire(LONG)))
            elif event == "give up":
                tasks.append(asyncio.create_task(bulkhead.acquire(timedelta(0))))
            elif event == "leave" and held:
                held.pop(0).release()
            elif event == "cancel" and tasks:
                tasks[-1].cancel()
            else:
                await turn()
            collect()
            assert bulkhead.in_flight <= 2
            assert bulkhead.queued <= 3
        while tasks or held:
            await turn()
            collect()
            while held:
                held.pop().release()
        assert (bulkhead.in_flight, bulkhead.queued) == (0, 0)

    asyncio.run(play())
