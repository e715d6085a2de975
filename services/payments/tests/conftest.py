"""A migrated database, and the whole service on it, as its process would run."""

from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
import pytest_asyncio
from amends_chassis.database import Database
from amends_chassis.service import running
from amends_testkit.service import SentMetadata, migrated, saga_call
from pydantic import SecretStr
from shop_payments.__main__ import assemble
from shop_payments.settings import Settings

from shop.payments.v1.payments_pb2_grpc import PaymentServiceStub


@pytest_asyncio.fixture(loop_scope="session")
async def database(database_url: str) -> AsyncIterator[Database]:
    async with migrated(database_url, "shop_payments.migrations") as database:
        yield database


@pytest_asyncio.fixture(loop_scope="session")
async def service(database: Database, database_url: str) -> AsyncIterator[Any]:
    """The service's stub; `database` looks at the same data."""
    settings = Settings(database_url=SecretStr(database_url), slow_answer=timedelta(minutes=1))
    async with running(settings, partial(assemble, settings)) as runtime:
        yield PaymentServiceStub(runtime.channel(runtime.address))


@pytest.fixture
def call() -> Callable[..., SentMetadata]:
    """Makes the metadata of a saga's call."""
    return saga_call
