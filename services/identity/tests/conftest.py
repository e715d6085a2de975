"""A migrated database, and the whole service on it, as its process would run."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
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


def keys_of(report: Path) -> str:
    """Where the service that wrote a report serves its keys."""
    return f"http://{json.loads(report.read_text())['jwks']}/.well-known/jwks.json"


@asynccontextmanager
async def serving(url: str, **told: Any) -> AsyncIterator[Service]:
    """The service over a database, told more than it must be."""
    with TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        settings = Settings(database_url=SecretStr(url), key_secret=SecretStr(SECRET), report_file=report, **told)
        async with running(settings, partial(assemble, settings)) as runtime:
            yield Service(IdentityServiceStub(runtime.channel(runtime.address)), keys_of(report))


@pytest_asyncio.fixture(loop_scope="session")
async def service(database: Database, service_url: str) -> AsyncIterator[Service]:
    """The service; `database` looks at the same data."""
    async with serving(service_url) as service:
        yield service
