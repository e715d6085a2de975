"""The cache on a real Valkey server: one read of the origin, no late fill over a change, and every way to fail."""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from amends_cache import Cache, OriginBusyError, Timing, Versioned
from amends_cache import cache as caching
from amends_embedded import Valkey
from amends_testkit.waiting import eventually
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError

QUICK = Timing(fresh=timedelta(milliseconds=100), missing=timedelta(milliseconds=100))


class Origin:
    """A table with one row for each name, and a count of the times that it was read."""

    def __init__(self) -> None:
        self.rows: dict[str, Versioned] = {"tea": Versioned(1, b"assam")}
        self.reads = 0
        self.pause = asyncio.Event()
        self.pause.set()

    def load(self, name: str) -> Callable[[], Awaitable[Versioned | None]]:
        async def read() -> Versioned | None:
            self.reads += 1
            found = self.rows.get(name)
            await self.pause.wait()
            return found

        return read


@pytest.fixture
def origin() -> Origin:
    return Origin()


@pytest_asyncio.fixture(loop_scope="session")
async def own(tmp_path: Path) -> AsyncIterator[Valkey]:
    """A server of this test alone."""
    async with await Valkey.start(tmp_path / "valkey") as server:
        yield server


_number = iter(range(10_000))


MakeCache = Callable[..., Cache]


@pytest_asyncio.fixture(loop_scope="session")
async def cache_at() -> AsyncIterator[MakeCache]:
    """Makes caches that are closed after the test."""
    made: list[Cache] = []

    def make(url: str | Callable[[], str] | None, timing: Timing = QUICK, prefix: str = "") -> Cache:
        source = (lambda: url) if isinstance(url, str) else url
        name = prefix or f"test{next(_number)}:v1"
        made.append(Cache(name, source, timing=timing, registry=CollectorRegistry()))
        return made[-1]

    yield make
    for cache in made:
        await cache.close()


async def read(cache: Cache, origin: Origin, name: str = "tea") -> bytes | None:
    return await cache.get(name, origin.load(name))


async def test_what_was_read_once_is_not_read_again_by_any_process(cache_at, valkey, origin):
    first, second = cache_at(valkey.url, Timing(), "shared:v1"), cache_at(valkey.url, Timing(), "shared:v1")
    assert [await read(first, origin), await read(first, origin), await read(second, origin)] == [b"assam"] * 3
    assert origin.reads == 1


async def test_a_thousand_readers_of_one_key_read_the_origin_once(cache_at, valkey, origin, monkeypatch):
    cache = cache_at(valkey.url, Timing())
    assert set(await asyncio.gather(*(read(cache, origin) for _ in range(1000)))) == {b"assam"}
    assert origin.reads == 1
    now = caching._now
    monkeypatch.setattr(caching, "_now", lambda: now() + 61_000)  # the key has expired
    assert set(await asyncio.gather(*(read(cache, origin) for _ in range(1000)))) == {b"assam"}
    assert await eventually(lambda: origin.reads == 2)


async def test_a_thousand_readers_of_a_key_that_the_server_has_let_go_read_the_origin_once(cache_at, own, origin):
    cache = cache_at(own.url, Timing(fresh=timedelta(milliseconds=20), keep=timedelta(milliseconds=40)))
    await read(cache, origin)

    async def gone() -> bool:
        return not await _has_keys(own)

    await eventually(gone, what="the key has expired")
    assert set(await asyncio.gather(*(read(cache, origin) for _ in range(1000)))) == {b"assam"}
    assert origin.reads == 2


async def test_a_reader_that_goes_away_takes_nobody_with_it(cache_at, valkey, origin):
    cache = cache_at(valkey.url)
    origin.pause.clear()
    first, second = asyncio.create_task(read(cache, origin)), asyncio.create_task(read(cache, origin))
    assert await eventually(lambda: origin.reads == 1)
    first.cancel()
    origin.pause.set()
    assert await second == b"assam"
    assert origin.reads == 1


async def test_what_is_not_there_is_not_looked_for_again_at_once(cache_at, valkey, origin):
    cache = cache_at(valkey.url, Timing())
    assert [await read(cache, origin, "cup"), await read(cache, origin, "cup")] == [None, None]
    assert origin.reads == 1
    await cache.put("cup", 1, b"blue")
    assert await read(cache, origin, "cup") == b"blue"


async def test_a_change_is_seen_by_the_next_reader_of_every_process(cache_at, valkey, origin):
    writer, reader = cache_at(valkey.url, Timing(), "seen:v1"), cache_at(valkey.url, Timing(), "seen:v1")
    assert await read(reader, origin) == b"assam"
    await writer.put("tea", 2, b"darjeeling")
    assert await read(reader, origin) == b"darjeeling"


async def test_a_fill_that_was_begun_before_a_change_never_hides_it(cache_at, valkey, origin):
    slow, writer = cache_at(valkey.url, Timing(), "late:v1"), cache_at(valkey.url, Timing(), "late:v1")
    origin.pause.clear()
    filling = asyncio.create_task(read(slow, origin))  # has read version 1
    assert await eventually(lambda: origin.reads == 1)
    await writer.put("tea", 2, b"darjeeling")
    origin.pause.set()
    await filling
    assert await read(slow, origin) == b"darjeeling"
    assert await read(writer, origin) == b"darjeeling"


async def test_of_many_fills_and_changes_in_any_order_the_latest_version_stays(cache_at, valkey, origin):
    caches = [cache_at(valkey.url, Timing(), "race:v1") for _ in range(4)]
    chance = random.Random(7)
    for round_ in range(100):
        name = f"n{round_}"
        versions = [chance.choice([1, 2, 3, 4, 5]) for _ in range(9)] + [5]
        chance.shuffle(versions)
        await asyncio.gather(*(chance.choice(caches).put(name, version, b"%d" % version) for version in versions))
        assert await read(caches[0], origin, name) == b"5"
    assert origin.reads == 0


async def test_an_old_value_is_answered_while_it_is_read_again(cache_at, valkey, origin):
    cache = cache_at(valkey.url)
    await read(cache, origin)
    origin.rows["tea"] = Versioned(2, b"darjeeling")
    await asyncio.sleep(QUICK.fresh.total_seconds())
    assert await read(cache, origin) == b"assam"

    async def changed() -> bool:
        return await read(cache, origin) == b"darjeeling"

    assert await eventually(changed)


async def test_an_origin_that_fails_fails_the_reader_and_is_asked_again(cache_at, valkey, origin):
    async def fails() -> Versioned | None:
        raise LookupError("no")

    cache = cache_at(valkey.url)

    with pytest.raises(LookupError):
        await cache.get("tea", fails)
    assert await read(cache, origin) == b"assam"


async def test_a_dead_server_costs_nothing_and_is_used_again_when_it_is_back(cache_at, own, origin):
    cache = cache_at(own.url, Timing(fresh=timedelta(0)))
    assert await read(cache, origin) == b"assam"
    own.kill()
    assert {await read(cache, origin) for _ in range(20)} == {b"assam"}
    await own.restart()

    async def used() -> bool:
        await read(cache, origin)
        before = origin.reads
        return await read(cache, origin) == b"assam" and origin.reads - before <= 1 and await _has_keys(own)

    assert await eventually(used, timeout=timedelta(seconds=10))


async def _has_keys(server: Valkey) -> bool:
    async with Redis.from_url(server.url) as client:
        return bool(await client.dbsize())


async def test_a_server_that_hangs_costs_its_budget_a_few_times_and_then_nothing(cache_at, own, origin):
    cache = cache_at(own.url, Timing(fresh=timedelta(0)))
    await read(cache, origin)
    os.kill(own.child.pid, signal.SIGSTOP)
    try:
        loop = asyncio.get_running_loop()
        slow = 0
        for _ in range(40):
            began = loop.time()
            assert await read(cache, origin) == b"assam"
            slow += loop.time() - began >= Timing().budget.total_seconds()
        assert slow <= 10, "the breaker opens after five failures"
    finally:
        os.kill(own.child.pid, signal.SIGCONT)


async def test_a_full_server_lets_old_entries_go_and_takes_new_ones(cache_at, tmp_path, origin):
    async with await Valkey.start(tmp_path / "small", memory="4mb") as small:
        cache = cache_at(small.url, Timing())
        for number in range(200):
            await cache.put(f"n{number}", 1, bytes(100_000))
        assert await cache.get("n199", origin.load("n199")) == bytes(100_000)


@pytest.mark.parametrize("url", ["redis://other:wrong@127.0.0.1:{port}", "redis://127.0.0.1:{port}"])
async def test_without_its_own_password_nobody_reads_and_the_service_goes_on(cache_at, own, origin, url):
    mine, stranger = cache_at(own.url, Timing(), "own:v1"), cache_at(url.format(port=own.port), Timing(), "own:v1")
    await mine.put("tea", 9, b"secret")
    assert await read(stranger, origin) == b"assam"


async def test_the_credentials_of_another_services_cache_open_nothing_here(cache_at, own, tmp_path, origin):
    """Each service has a server of its own, with a user and a password of its own."""
    async with await Valkey.start(tmp_path / "neighbour", user="neighbour") as neighbour:
        theirs = neighbour.url.replace(f":{neighbour.port}", f":{own.port}")
    await cache_at(own.url, Timing(), "own:v1").put("tea", 9, b"secret")
    async with Redis.from_url(theirs) as client:
        with pytest.raises(AuthenticationError):
            await client.get("own:v1:tea")
    assert await read(cache_at(theirs, Timing(), "own:v1"), origin) == b"assam"
    assert origin.reads == 1


async def test_a_password_that_was_changed_is_used_by_a_later_call(cache_at, own, origin):
    urls = [f"redis://service:wrong@127.0.0.1:{own.port}"]
    cache = cache_at(lambda: urls[-1])
    await read(cache, origin)
    urls.append(own.url)

    async def kept() -> bool:
        await cache.put("tea", 2, b"darjeeling")
        return await _has_keys(own)

    assert await eventually(kept, timeout=timedelta(seconds=10))


async def test_without_a_server_the_process_remembers(cache_at, origin):
    cache = cache_at(None, Timing())
    assert [await read(cache, origin), await read(cache, origin)] == [b"assam", b"assam"]
    assert origin.reads == 1
    await cache.put("tea", 2, b"darjeeling")
    await cache.put("tea", 1, b"assam")
    assert await read(cache, origin) == b"darjeeling"


async def test_a_cache_that_is_lost_does_not_take_the_origin_with_it(cache_at, origin):
    cache = cache_at(None, Timing(origin_wait=timedelta(milliseconds=50)))
    origin.pause.clear()
    readers = [asyncio.create_task(read(cache, origin, f"n{number}")) for number in range(300)]
    failed = await asyncio.gather(*readers[264:], return_exceptions=True)  # beyond 8 at work and 256 in the queue
    assert all(isinstance(one, OriginBusyError) for one in failed)
    assert origin.reads == 8
    origin.pause.set()
    results = await asyncio.gather(*readers[:8])
    assert results == [None] * 8
    await asyncio.gather(*readers, return_exceptions=True)


async def test_a_foreign_entry_is_read_again(cache_at, valkey, origin):
    cache = cache_at(valkey.url, Timing(), "foreign:v1")
    async with Redis.from_url(valkey.url) as client:
        await client.set("foreign:v1:tea", b"short")
    assert await read(cache, origin) == b"assam"
