"""A migrated database, and the whole service on it, as its process would run."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest_asyncio
from amends_chassis.database import Database
from amends_chassis.service import running
from amends_embedded import Postgres
from amends_testkit.service import empty, migrated
from pydantic import SecretStr
from shop_identity.assemble import assemble
from shop_identity.settings import Settings

from shop.identity.v1.identity_pb2_grpc import IdentityServiceStub

SECRET = "a secret of thirty-two characters or more"


@dataclass
class Service:
    """The stub of the running service, and where its keys are."""

    stub: Any
    keys_url: str


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def service_url(postgres: Postgres) -> str:
    """A database that the tests of this service share."""
    return await postgres.create("identity_suite", "identity_suite")


@pytest_asyncio.fixture(loop_scope="session")
async def database(service_url: str) -> AsyncIterator[Database]:
    """That database, empty."""
    async with migrated(service_url, "shop_identity.migrations") as database:
        await empty(database)
        yield database


@pytest_asyncio.fixture(loop_scope="session")
async def service(database: Database, service_url: str, tmp_path) -> AsyncIterator[Service]:
    """The service; `database` looks at the same data."""
    report = tmp_path / "report.json"
    settings = Settings(database_url=SecretStr(service_url), key_secret=SecretStr(SECRET), report_file=report)
    async with running(settings, partial(assemble, settings)) as runtime:
        keys_url = f"http://{json.loads(report.read_text())['jwks']}/.well-known/jwks.json"
        yield Service(IdentityServiceStub(runtime.channel(runtime.address)), keys_url)
