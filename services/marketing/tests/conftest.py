"""A migrated database, and the whole service on it, as its process would run."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest_asyncio
from amends_chassis.database import Database
from amends_chassis.service import running
from amends_embedded import Postgres
from amends_testkit.service import empty, migrated
from pydantic import SecretStr
from shop_marketing.__main__ import assemble
from shop_marketing.settings import Settings

from shop.marketing.v1.marketing_pb2_grpc import MarketingServiceStub


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def service_url(postgres: Postgres) -> str:
    """A database that the tests of this service share."""
    return await postgres.create("marketing_suite", "marketing_suite")


@pytest_asyncio.fixture(loop_scope="session")
async def database(service_url: str) -> AsyncIterator[Database]:
    """That database, empty."""
    async with migrated(service_url, "shop_marketing.migrations") as database:
        await empty(database)
        yield database


@pytest_asyncio.fixture(loop_scope="session")
async def service(database: Database, service_url: str) -> AsyncIterator[Any]:
    """The service's stub; `database` looks at the same data."""
    settings = Settings(database_url=SecretStr(service_url))
    async with running(settings, partial(assemble, settings)) as runtime:
        yield MarketingServiceStub(runtime.channel(runtime.address))
