"""A migrated database, and the whole service on it, as its process would run."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest_asyncio
from amends_chassis.database import Database
from amends_chassis.service import running
from amends_embedded import Postgres, Valkey
from amends_testkit.service import empty, migrated
from pydantic import SecretStr
from redis.asyncio import Redis
from shop_customers.__main__ import assemble
from shop_customers.settings import Settings

from shop.customers.v1.customers_pb2_grpc import CustomerServiceStub


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def service_url(postgres: Postgres) -> str:
    """A database that the tests of this service share."""
    return await postgres.create("customers_suite", "customers_suite")


@pytest_asyncio.fixture(loop_scope="session")
async def database(service_url: str) -> AsyncIterator[Database]:
    """That database, empty."""
    async with migrated(service_url, "shop_customers.migrations") as database:
        await empty(database)
        yield database


@pytest_asyncio.fixture(loop_scope="session")
async def cache(valkey: Valkey) -> AsyncIterator[Redis]:
    """The service's cache, empty."""
    async with Redis.from_url(valkey.url) as client:
        await client.flushall()
        yield client


@pytest_asyncio.fixture(loop_scope="session")
async def service(database: Database, service_url: str, cache: Redis, valkey: Valkey) -> AsyncIterator[Any]:
    """The service's stub; `database` and `cache` look at the same data."""
    settings = Settings(database_url=SecretStr(service_url), cache_url=SecretStr(valkey.url))
    async with running(settings, partial(assemble, settings)) as runtime:
        yield CustomerServiceStub(runtime.channel(runtime.address))
