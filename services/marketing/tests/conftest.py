"""A migrated database, and the whole service on it, as its process would run."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest_asyncio
from amends_chassis.database import Database
from amends_chassis.service import running
from amends_testkit.service import migrated
from pydantic import SecretStr
from shop_marketing.__main__ import assemble
from shop_marketing.settings import Settings

from shop.marketing.v1.marketing_pb2_grpc import MarketingServiceStub


@pytest_asyncio.fixture(loop_scope="session")
async def database(database_url: str) -> AsyncIterator[Database]:
    async with migrated(database_url, "shop_marketing.migrations") as database:
        yield database


@pytest_asyncio.fixture(loop_scope="session")
async def service(database: Database, database_url: str) -> AsyncIterator[Any]:
    """The service's stub; `database` looks at the same data."""
    settings = Settings(database_url=SecretStr(database_url))
    async with running(settings, partial(assemble, settings)) as runtime:
        yield MarketingServiceStub(runtime.channel(runtime.address))
