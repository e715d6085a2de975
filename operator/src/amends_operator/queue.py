"""The queue between what is seen and what is done: level-triggered, one worker at a time for each key.

Watches, timers and other reconcilers only say that something about a key may have changed; a reconciler then looks at
the current object. A key that is added while it waits is done once; one that is added while it is worked on is done
once more. Failures are tried again with back-off and jitter.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Generic, TypeVar

import structlog
from amends_resilience import Backoff

K = TypeVar("K")
FAILED = "reconcile.failed"
BACKOFF = Backoff(initial=timedelta(milliseconds=250), maximum=timedelta(seconds=15))
_log = structlog.get_logger(__name__)


class RetryLaterError(Exception):
    """Raised by a reconciler that cannot go on now, for a reason that is no defect: it is called again later."""

    def __init__(self, why: str, after: timedelta | None = None) -> None:
        super().__init__(why)
        self.after = after


class WorkQueue(Generic[K]):
    """Keys to reconcile. `reconcile` returns after how long to look again, None for not before something changes.

    `admit` is waited for before each key is taken.
    """

    def __init__(
        self,
        name: str,
        reconcile: Callable[[K], Awaitable[timedelta | None]],
        *,
        workers: int,
        admit: Callable[[], Awaitable[None]] | None = None,
        observe: Callable[[bool], None] = lambda ok: None,
        backoff: Backoff = BACKOFF,
    ) -> None:
        self.name = name
        self._reconcile = reconcile
        self._workers = workers
        self._admit = admit
        self._observe = observe
        self._backoff = backoff
        self._waiting: deque[K] = deque()
        self._queued: set[K] = set()
        self._active: set[K] = set()
        self._again: set[K] = set()
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}
        self._wake = asyncio.Semaphore(0)

    def __len__(self) -> int:
        """Return how many keys wait to be done now."""
        return len(self._waiting)

    def add(self, key: K) -> None:
        """Have the key reconciled soon, because something about it may have changed."""
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        if key in self._active:
            self._again.add(key)
        elif key not in self._queued:
            self._queued.add(key)
            self._waiting.append(key)
            self._wake.release()

    def add_after(self, key: K, delay: timedelta) -> None:
        """Have the key reconciled after a delay; an earlier time that was asked for before stands."""
        loop = asyncio.get_running_loop()
        at = loop.time() + delay.total_seconds()
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= at:
                return
            timer.cancel()
        self._timers[key] = loop.call_at(at, self.add, key)

    async def run(self) -> None:
        """Take keys from the queue and work on them for ever."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._workers):
                group.create_task(self._work(), name=f"{self.name}-{number}")

    async def _work(self) -> None:
        while True:
            await self._wake.acquire()
            if self._admit is not None:
                await self._admit()
            key = self._waiting.popleft()
            self._queued.discard(key)
            self._active.add(key)
            try:
                delay = await self._attempt(key)
            finally:
                self._active.discard(key)
            if key in self._again:
                self._again.discard(key)
                self.add(key)
            elif delay is not None:
                self.add_after(key, delay)

    async def _attempt(self, key: K) -> timedelta | None:
        try:
            delay = await self._reconcile(key)
        except RetryLaterError as error:
            self._observe(False)
            return error.after or self._pause(key)
        except Exception:
            self._observe(False)
            _log.exception(FAILED, queue=self.name, key=str(key))
            return self._pause(key)
        self._observe(True)
        self._failures.pop(key, None)
        return delay

    def _pause(self, key: K) -> timedelta:
        """Return the pause after a failure, at least half of the ceiling: a key that fails at once must not spin."""
        self._failures[key] = self._failures.get(key, 0) + 1
        return (
            self._backoff.ceiling(self._failures[key]) / 2 + self._backoff.delay(self._failures[key], random.random) / 2
        )
