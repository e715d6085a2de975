"""The server that keeps the entries, and what is done when it hangs, is gone, is full or refuses us.

Called by `cache`. Each call has a budget of some tens of milliseconds, and is not repeated: whoever reads has the
database. After a few failures nothing is sent for a while, then one call finds out.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from amends_resilience import BreakerOpenError, CircuitBreaker, SystemClock
from amends_resilience.breaker import BreakerState
from amends_resilience.policy import BreakerPolicy
from redis.asyncio import Redis
from redis.asyncio.connection import ConnectionPool
from redis.exceptions import RedisError

from amends_cache.value import CacheEntry

_BREAKER = BreakerPolicy(failure_ratio=0.5, minimum_calls=5, open_for=timedelta(seconds=1))
_CONNECTIONS = 16

# A fill that was begun before a change must not hide it, however late it comes.
_PUT_UNLESS_OLDER = """
local kept = redis.call('GET', KEYS[1])
if kept and #kept >= 16 and struct.unpack('>L', kept) > struct.unpack('>L', ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""


class CacheAwayError(Exception):
    """The server did not do it in time, or is not asked for the moment."""


class CacheServer:
    """A server of entries. Every failure is an CacheAwayError: none of them is a reason for a reader to fail."""

    def __init__(self, url: Callable[[], str], budget: timedelta, changed: Callable[[bool], None]) -> None:
        """Ask `url` for redis://[USER:PASSWORD@]HOST:PORT[/DB] with each failure; `changed` hears open and closed."""
        self._url = url
        self._budget = budget.total_seconds()
        self._breaker = CircuitBreaker(_BREAKER, SystemClock(), lambda state: changed(state is not BreakerState.CLOSED))
        self._turns = asyncio.Semaphore(_CONNECTIONS)
        self._connected_to = url()
        self._redis = self._connect(self._connected_to)

    def _connect(self, url: str) -> Redis:
        pool = ConnectionPool.from_url(
            url,
            socket_timeout=self._budget,
            socket_connect_timeout=self._budget,
            retry=None,
        )
        return Redis.from_pool(pool)

    async def get(self, key: str) -> CacheEntry | None:
        """Read an entry; None when there is none. Raises CacheAwayError."""
        written = await self._ask(lambda: self._redis.get(key))
        return None if written is None else CacheEntry.decode(written)

    async def put(self, key: str, entry: CacheEntry, keep: timedelta) -> bool:
        """Keep an entry, unless there is one of a later version; return whether it is kept. Raises CacheAwayError."""
        milliseconds = int(keep.total_seconds() * 1000)
        return bool(await self._ask(lambda: self._redis.eval(_PUT_UNLESS_OLDER, 1, key, entry.encode(), milliseconds)))

    async def _ask(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """Wait for a connection's turn, which is none of the server's time, and give the server its budget."""
        async with self._turns:
            try:
                permit = self._breaker.acquire()
            except BreakerOpenError as error:
                raise CacheAwayError(str(error)) from error
            with permit:
                try:
                    async with asyncio.timeout(self._budget):
                        answer = await call()
                except (RedisError, OSError, TimeoutError) as error:
                    permit.failure()
                    self._follow_url()
                    raise CacheAwayError(f"{type(error).__name__}: {error}") from error
                permit.success()
        return answer

    def _follow_url(self) -> None:
        """Take the address as it is now: a password that was changed in its file is used by the next call."""
        url = self._url()
        if url != self._connected_to:
            old, self._redis, self._connected_to = self._redis, self._connect(url), url
            self._closing = asyncio.ensure_future(old.aclose())

    async def close(self) -> None:
        """Close all connections."""
        await self._redis.aclose()
