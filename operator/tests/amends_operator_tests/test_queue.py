"""The queue: one worker at a time for each key, nothing forgotten, failures tried again."""

import asyncio
from collections import Counter
from datetime import timedelta

import pytest
from amends_operator.queue import RetryLaterError, WorkQueue
from amends_resilience import Backoff
from amends_testkit.waiting import eventually

QUICK = Backoff(initial=timedelta(milliseconds=1), maximum=timedelta(milliseconds=2))


async def running(queue: WorkQueue[str]) -> asyncio.Task[None]:
    return asyncio.create_task(queue.run())


async def stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_key_that_is_added_twice_while_it_waits_is_done_once() -> None:
    done: Counter[str] = Counter()

    async def reconcile(key: str) -> None:
        done[key] += 1

    queue = WorkQueue("test", reconcile, workers=2)
    for key in ("a", "a", "b", "a"):
        queue.add(key)
    assert len(queue) == 2
    task = await running(queue)
    await eventually(lambda: len(done) == 2)
    assert done == {"a": 1, "b": 1}
    await stop(task)


async def test_a_key_that_is_added_while_it_is_worked_on_is_done_once_more_and_never_twice_at_once() -> None:
    gate, began = asyncio.Event(), asyncio.Event()
    done: Counter[str] = Counter()
    at_once: list[int] = []

    async def reconcile(key: str) -> None:
        done["now"] += 1
        at_once.append(done["now"])
        began.set()
        await gate.wait()
        done["now"] -= 1
        done[key] += 1

    queue = WorkQueue("test", reconcile, workers=4)
    task = await running(queue)
    queue.add("a")
    await began.wait()
    for _ in range(3):
        queue.add("a")
    gate.set()
    await eventually(lambda: done["a"] == 2)
    assert max(at_once) == 1
    await stop(task)


@pytest.mark.parametrize("failure", [RetryLaterError("not yet"), RuntimeError("a defect")], ids=["again", "defect"])
async def test_what_failed_is_tried_again_until_it_works(failure: Exception) -> None:
    seen: list[bool] = []
    attempts = Counter[str]()

    async def reconcile(key: str) -> None:
        attempts[key] += 1
        if attempts[key] < 3:
            raise failure

    queue = WorkQueue("test", reconcile, workers=1, observe=seen.append, backoff=QUICK)
    task = await running(queue)
    queue.add("a")
    await eventually(lambda: seen == [False, False, True])
    assert attempts["a"] == 3
    await stop(task)


async def test_an_earlier_time_that_was_asked_for_stands() -> None:
    done = Counter[str]()

    async def reconcile(key: str) -> None:
        done[key] += 1

    queue = WorkQueue("test", reconcile, workers=1)
    task = await running(queue)
    queue.add_after("a", timedelta(milliseconds=5))
    queue.add_after("a", timedelta(hours=1))
    await eventually(lambda: done["a"])
    await stop(task)
    assert done == {"a": 1}
