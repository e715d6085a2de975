"""A migrated database, and the whole service on it, as its process would run."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest_asyncio
from amends_chassis.database import Database
from amends_chassis.service import running
from amends_testkit.service import migrated
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


@pytest_asyncio.fixture(loop_scope="session")
async def database(database_url: str) -> AsyncIterator[Database]:
    async with migrated(database_url, "shop_identity.migrations") as database:
        yield database


@pytest_asyncio.fixture(loop_scope="session")
async def service(database: Database, database_url: str, tmp_path) -> AsyncIterator[Service]:
    """The service; `database` looks at the same data."""
    report = tmp_path / "report.json"
    settings = Settings(database_url=SecretStr(database_url), key_secret=SecretStr(SECRET), report_file=report)
    async with running(settings, partial(assemble, settings)) as runtime:
        keys_url = f"http://{json.loads(report.read_text())['jwks']}/.well-known/jwks.json"
        yield Service(IdentityServiceStub(runtime.channel(runtime.address)), keys_url)
