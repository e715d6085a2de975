"""A migrated database with a projection, and a log of each test's own."""

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
from shop_reporting.projection import LAYOUT, OrderProjection

from .world import TOPICS

_numbers = itertools.count(1)


@pytest_asyncio.fixture(loop_scope="session")
async def database(database_url: str) -> AsyncIterator[Database]:
    async with migrated(database_url, "shop_reporting.migrations") as database:
        yield database


@pytest_asyncio.fixture(loop_scope="session")
async def projection(database: Database) -> OrderProjection:
    """The first projection, which serves."""
    async with database.pool.acquire() as connection:
        made = await versions.make(connection, LAYOUT)
        await versions.switch(connection, made.version)
    return OrderProjection(made.version, lambda new: None)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def client(nats: Nats) -> AsyncIterator[Broker]:
    opened = open_broker(nats.url)
    yield opened
    await opened.close()


@pytest_asyncio.fixture(loop_scope="session")
async def broker(client: Any) -> PrefixedBroker:
    """A broker in which this test alone has every topic."""
    named = PrefixedBroker(client, TOPICS, f"reporting.n{next(_numbers)}")
    await named.make_topics()
    return named
