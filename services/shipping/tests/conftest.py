"""A migrated database, and the whole service on it, as its process would run."""

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest
import pytest_asyncio
from amends_chassis.database import Database
from amends_chassis.service import running
from amends_testkit.service import SentMetadata, migrated, saga_call
from pydantic import SecretStr
from shop_shipping.__main__ import assemble
from shop_shipping.settings import Settings

from shop.shipping.v1.shipping_pb2_grpc import ShippingServiceStub


@pytest_asyncio.fixture(loop_scope="session")
async def database(database_url: str) -> AsyncIterator[Database]:
    async with migrated(database_url, "shop_shipping.migrations") as database:
        yield database


@pytest_asyncio.fixture(loop_scope="session")
async def service(database: Database, database_url: str) -> AsyncIterator[Any]:
    """The service's stub; `database` looks at the same data."""
    settings = Settings(database_url=SecretStr(database_url))
    async with running(settings, partial(assemble, settings)) as runtime:
        yield ShippingServiceStub(runtime.channel(runtime.address))


@pytest.fixture
def call() -> Callable[..., SentMetadata]:
    """Makes the metadata of a saga's call."""
    return saga_call
