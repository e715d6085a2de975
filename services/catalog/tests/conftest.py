"""A migrated database, and the whole service on it, as its process would run."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest_asyncio
from amends_chassis.database import Database
from amends_chassis.service import running
from amends_embedded import Valkey
from amends_testkit.service import migrated
from pydantic import SecretStr
from redis.asyncio import Redis
from shop_catalog.__main__ import assemble
from shop_catalog.settings import Settings

from shop.catalog.v1.catalog_pb2_grpc import CatalogServiceStub


@pytest_asyncio.fixture(loop_scope="session")
async def database(database_url: str) -> AsyncIterator[Database]:
    async with migrated(database_url, "shop_catalog.migrations") as database:
        yield database


@pytest_asyncio.fixture(loop_scope="session")
async def service(database: Database, database_url: str, valkey: Valkey) -> AsyncIterator[Any]:
    """The service's stub, with an empty cache; `database` looks at the same data."""
    async with Redis.from_url(valkey.url) as client:
        await client.flushall()
    settings = Settings(database_url=SecretStr(database_url), cache_url=SecretStr(valkey.url))
    async with running(settings, partial(assemble, settings)) as runtime:
        yield CatalogServiceStub(runtime.channel(runtime.address))
