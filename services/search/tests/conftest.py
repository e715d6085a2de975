"""A migrated database with an index, and a log of each test's own."""

import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio
from amends_chassis.database import Database
from amends_chassis.projections import versions
from amends_embedded import Nats
from amends_events import Broker, open_broker
from amends_testkit.log import PrefixedBroker
from amends_testkit.service import migrated
from shop_search.index import LAYOUT, ArticleIndex

from .world import TOPICS, shop

_numbers = itertools.count(1)


@pytest_asyncio.fixture(loop_scope="session")
async def database(database_url: str) -> AsyncIterator[Database]:
    async with migrated(database_url, "shop_search.migrations") as database:
        yield database


@pytest_asyncio.fixture(loop_scope="session")
async def index(database: Database) -> ArticleIndex:
    """The first index, which serves."""
    async with database.pool.acquire() as connection:
        made = await versions.make(connection, LAYOUT)
        await versions.switch(connection, made.version)
    return ArticleIndex(made.version)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def sold(postgres: Any) -> AsyncIterator[Database]:
    """An index of the articles of the shop, for tests that only look."""
    async with migrated(await postgres.create("search_sold", "search_sold"), "shop_search.migrations") as database:
        async with database.transaction() as transaction:
            made = await versions.make(transaction, LAYOUT)
            await versions.switch(transaction, made.version)
            await ArticleIndex(made.version).take(transaction, [one.fact for one in shop()])
        yield database
    await postgres.drop("search_sold", "search_sold")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def client(nats: Nats) -> AsyncIterator[Broker]:
    opened = open_broker(nats.url)
    yield opened
    await opened.close()


@pytest_asyncio.fixture(loop_scope="session")
async def broker(client: Any) -> PrefixedBroker:
    """A broker in which this test alone has every topic."""
    prefixed = PrefixedBroker(client, TOPICS, f"search.n{next(_numbers)}")
    await prefixed.make_topics()
    return prefixed
