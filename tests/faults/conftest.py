"""Worlds for a file of tests: one, or two in which cases run at the same time; and what an audit of events reads."""

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from amends_embedded import Nats, Postgres
from amends_events import INBOX, OUTBOX, open_broker

from .publishing import TOPIC, Installation
from .world import World, worlds

_numbers = itertools.count(1)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def make(postgres: Postgres) -> AsyncIterator[Callable[[], Awaitable[str]]]:
    """Makes databases, which are dropped after the file."""
    made: list[str] = []

    async def make() -> str:
        name = f"faults_{next(_numbers)}"
        made.append(name)
        return await postgres.create(name, name)

    yield make
    for name in made:
        await postgres.drop(name, name)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def both(
    make: Callable[[], Awaitable[str]], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[list[World]]:
    """Two worlds with the example in force, each with an orchestrator called `a`."""
    async with worlds(2, tmp_path_factory.mktemp("faults"), make) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def world(make: Callable[[], Awaitable[str]], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One of them, for the whole file."""
    async with worlds(1, tmp_path_factory.mktemp("faults"), make) as [opened]:
        yield opened


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def audited_urls(postgres: Postgres) -> dict[str, str]:
    urls = {name: await postgres.create(f"audited_{name}", f"audited_{name}") for name in ("payments", "shipping")}
    for name, tables in (
        ("payments", OUTBOX + "CREATE TABLE payment (order_id text PRIMARY KEY, version bigint)"),
        ("shipping", INBOX),
    ):
        connection = await asyncpg.connect(urls[name])
        await connection.execute(tables)
        await connection.close()
    return urls


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def audited_nats(tmp_path_factory) -> AsyncIterator[Nats]:
    """A server of these tests alone: the topics have the names that the contracts give them."""
    async with await Nats.start(tmp_path_factory.mktemp("audited")) as server:
        yield server


@pytest_asyncio.fixture(loop_scope="session")
async def shop(audited_urls: dict[str, str], audited_nats: Nats) -> AsyncIterator[Installation]:
    """Six payments of three orders, all of them published and consumed."""
    async with (
        asyncpg.create_pool(audited_urls["payments"], min_size=1) as payments,
        asyncpg.create_pool(audited_urls["shipping"], min_size=1) as shipping,
    ):
        await payments.execute("TRUNCATE outbox, outbox_sent, payment")
        await shipping.execute("TRUNCATE inbox, inbox_position, inbox_member, inbox_parked")
        broker: Any = open_broker(audited_nats.url)
        for stream in await broker._streams():
            await broker._ask(f"$JS.API.STREAM.DELETE.{stream}", None)
        await broker.ensure([TOPIC], timedelta(hours=1))
        made = Installation(payments, shipping, audited_urls, audited_nats, broker)
        await made.pay("o-1", "o-2", "o-3", "o-1", "o-2", "o-1")
        await made.published()
        await made.consumed(6)
        yield made
        await broker.close()
