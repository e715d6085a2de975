"""The gateway in front of the services that a test needs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import httpx
import pytest_asyncio
from amends_chassis.service import Runtime, running
from amends_embedded import Postgres
from pydantic import SecretStr
from shop_catalog.__main__ import assemble as assemble_catalog
from shop_catalog.settings import Settings as CatalogSettings
from shop_gateway.assemble import assemble
from shop_gateway.settings import Settings

NOBODY = "127.0.0.1:1"
TARGETS = ("catalog", "customers", "identity", "inventory", "marketing", "notifications", "orders")


@asynccontextmanager
async def gateway(**told: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a gateway that is told where some services are; nobody is where the others should be."""
    where = {f"{name}_target": NOBODY for name in TARGETS}
    settings = Settings(cookie_secret=SecretStr("c" * 32), **(where | told))
    async with running(settings, partial(assemble, settings)) as runtime:
        address = runtime.attached("http").address
        async with httpx.AsyncClient(base_url=f"http://{address}", timeout=20) as client:
            yield client


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def catalog(postgres: Postgres) -> AsyncIterator[Runtime]:
    """A catalog service."""
    url = await postgres.create("gateway_catalog", "gateway_catalog")
    settings = CatalogSettings(database_url=SecretStr(url))
    async with running(settings, partial(assemble_catalog, settings)) as runtime:
        yield runtime
