"""A migrated database, and the whole service on it, as its process would run."""

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
import pytest_asyncio
from amends_chassis.database import Database
from amends_chassis.migrations import migrate
from amends_chassis.service import running
from pydantic import SecretStr
from shop_payments.__main__ import assemble
from shop_payments.settings import Settings

from shop.payments.v1.payments_pb2_grpc import PaymentServiceStub

Metadata = Sequence[tuple[str, str]]


@pytest_asyncio.fixture(loop_scope="session")
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url)
    await database.connect()
    await migrate(database, "shop_payments.migrations")
    yield database
    await database.close()


@pytest_asyncio.fixture(loop_scope="session")
async def service(database: Database, database_url: str) -> AsyncIterator[Any]:
    """The service's stub; `database` looks at the same data."""
    settings = Settings(database_url=SecretStr(database_url), slow_answer=timedelta(milliseconds=600))
    async with running(settings, partial(assemble, settings)) as runtime:
        yield PaymentServiceStub(runtime.channel(runtime.address))


@pytest.fixture
def call() -> Callable[..., Metadata]:
    """Makes the metadata of a saga's call."""

    def make(key: str, operation: str = "action", outcome: str | None = None) -> Metadata:
        metadata = [("amends-idempotency-key", key), ("amends-operation", operation)]
        return metadata if outcome is None else [*metadata, ("amends-action-outcome", outcome)]

    return make
