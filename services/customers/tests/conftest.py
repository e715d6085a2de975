"""A migrated database, and the whole service on it, as its process would run."""

from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio
from amends_chassis.database import Database
from amends_chassis.service import running
from amends_embedded import Postgres
from amends_testkit.service import empty, migrated
from pydantic import SecretStr
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
async def service(database: Database, service_url: str) -> AsyncIterator[Any]:
    """The service's stub; `database` looks at the same data."""
    async with running(Settings(database_url=SecretStr(service_url)), assemble) as runtime:
        yield CustomerServiceStub(runtime.channel(runtime.address))
