"""The cache: what is not there is read from the origin, once for all who ask at the same time.

A service makes one `Cache` for each kind of value. `get` reads, `put` is called by whoever has changed the row, in the
code that publishes the event of it. The server may hang, die, be full or empty: readers then get what this process has
seen within `Timing.fresh`, or what the origin says, a few at a time.
"""

import asyncio
import random
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

from amends_resilience import Bulkhead, BulkheadFullError
from amends_resilience.policy import BulkheadPolicy
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from amends_cache.server import CacheAwayError, CacheServer
from amends_cache.value import NOTHING, CacheEntry, Versioned

Load = Callable[[], Awaitable[Versioned | None]]

_REMEMBERED = 4096
_ORIGIN = BulkheadPolicy(max_concurrent=8, max_queued=256)
_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1)


class OriginBusyError(Exception):
    """So many read from the origin that this one was not let in: losing the cache must not take the database."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How long values are used. A reader sees a change at once when `put` told the server, else after `fresh`."""

    fresh: timedelta = timedelta(seconds=60)
    """So long nobody looks at the origin. Shortened by up to a tenth, so that keys do not expire together."""
    keep: timedelta = timedelta(minutes=10)
    """So long a value that is not fresh is still answered, while it is read again in the background."""
    missing: timedelta = timedelta(seconds=5)
    """So long it is believed that there is nothing of a name."""
    budget: timedelta = timedelta(milliseconds=50)
    """How long one call of the server may take."""
    origin_wait: timedelta = timedelta(seconds=1)
    """How long a reader waits for its turn at the origin."""


class CacheMetrics:
    """The metrics of all caches of a process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register them; a registry takes them once."""
        self.reads = Counter("cache", "Reads, by where the answer came from.", ("cache", "result"), registry=registry)
        self.seconds = Histogram(
            "cache_seconds", "How long reads took.", ("cache", "result"), buckets=_SECONDS, registry=registry
        )
        self.not_kept = Counter("cache_not_kept", "Values that the server was not told.", ("cache",), registry=registry)
        self.open = Gauge("cache_breaker_open", "1: the server is not asked for now.", ("cache",), registry=registry)


class Cache:
    """Values of one kind. Keys are `<prefix>:<name>`; change the prefix with the form of the values.

    A row that was there never goes: that it is not sold, or erased, is a change with a later version.
    """

    def __init__(
        self,
        prefix: str,
        url: Callable[[], str] | None,
        *,
        timing: Timing | None = None,
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        """Use the server at `url` (see `CacheServer`); None: what this process remembers is all there is."""
        self._prefix = prefix
        self._timing = timing or Timing()
        self._metrics = CacheMetrics(registry)
        is_open = self._metrics.open.labels(prefix)
        self._server = None if url is None else CacheServer(url, self._timing.budget, lambda yes: is_open.set(int(yes)))
        self._remembered: OrderedDict[str, CacheEntry] = OrderedDict()
        self._flights: dict[str, asyncio.Task[Versioned]] = {}
        self._origin = Bulkhead(_ORIGIN)

    async def get(self, name: str, load: Load) -> bytes | None:
        """Read a value; None when there is nothing of that name.

        `load` reads value and version from the origin, None when there is nothing; it is called at most once at a time
        for each name. Raises OriginBusyError, and whatever `load` raises.
        """
        began = time.perf_counter()
        key = f"{self._prefix}:{name}"
        value, result = await self._find(key, load)
        if value is None:
            value = await self._load(key, load)
        self._metrics.reads.labels(self._prefix, result).inc()
        self._metrics.seconds.labels(self._prefix, result).observe(time.perf_counter() - began)
        return None if value.missing else value.data

    async def put(self, name: str, version: int, data: bytes) -> None:
        """Tell of a change that is committed. Readers see it at once, or after `fresh` when the server is away."""
        await self._keep(f"{self._prefix}:{name}", Versioned(version, data))

    async def run(self) -> None:
        """Keep the connections until this is cancelled, then close them: for a process' background work."""
        try:
            await asyncio.Event().wait()
        finally:
            await self.close()

    async def close(self) -> None:
        """Let reads in flight go, and close the connections."""
        for flight in list(self._flights.values()):
            flight.cancel()
        await asyncio.gather(*self._flights.values(), return_exceptions=True)
        if self._server is not None:
            await self._server.close()

    async def _find(self, key: str, load: Load) -> tuple[Versioned | None, str]:
        """Return a value that may be answered, and how it was found; None when the origin has to be asked."""
        try:
            entry = None if self._server is None else await self._server.get(key)
            result = "miss"
        except CacheAwayError:
            entry, result = None, "away"
        if self._server is None or result == "away":
            entry = self._remembered.get(key)
            if entry is None or not _fresh(entry):
                return None, result
            return entry.value, "remembered"
        if entry is None:
            return None, "miss"
        self._remember(key, entry)
        if not _fresh(entry):
            self._flight(key, load).add_done_callback(_heard)
            return entry.value, "stale"
        return entry.value, "missing" if entry.value.missing else "hit"

    async def _load(self, key: str, load: Load) -> Versioned:
        return await asyncio.shield(self._flight(key, load))  # whoever asked first may go away before the others

    def _flight(self, key: str, load: Load) -> "asyncio.Task[Versioned]":
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = asyncio.create_task(self._fill(key, load))
            flight.add_done_callback(lambda _: self._flights.pop(key, None))
        return flight

    async def _fill(self, key: str, load: Load) -> Versioned:
        try:
            slot = await self._origin.acquire(self._timing.origin_wait)
        except BulkheadFullError as error:
            raise OriginBusyError(str(error)) from error
        with slot:
            value = await load() or NOTHING
        known = self._remembered.get(key)
        if known is not None and known.value.version > value.version:  # changed while it was read
            return known.value
        await self._keep(key, value)
        return value

    async def _keep(self, key: str, value: Versioned) -> None:
        timing = self._timing
        fresh = timing.missing if value.missing else timing.fresh * (1 - random.random() / 10)  # noqa: S311
        entry = CacheEntry(value, _now() + int(fresh.total_seconds() * 1000))
        self._remember(key, entry)
        if self._server is not None:
            try:
                await self._server.put(key, entry, timing.missing if value.missing else timing.keep)
            except CacheAwayError:
                self._metrics.not_kept.labels(self._prefix).inc()

    def _remember(self, key: str, entry: CacheEntry) -> None:
        known = self._remembered.get(key)
        if known is not None and known.value.version > entry.value.version:
            return
        self._remembered[key] = entry
        self._remembered.move_to_end(key)
        if len(self._remembered) > _REMEMBERED:
            self._remembered.popitem(last=False)


def _now() -> int:
    return time.time_ns() // 1_000_000


def _fresh(entry: CacheEntry) -> bool:
    return _now() < entry.fresh_until


def _heard(flight: "asyncio.Task[Versioned]") -> None:
    """Take note of how a read in the background ended: the reader has its answer, the next one asks again."""
    if not flight.cancelled():
        flight.exception()
