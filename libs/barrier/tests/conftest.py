"""A participant of its own for each test, over one real database that is emptied for each."""

from collections.abc import AsyncIterator

import pytest_asyncio
from amends_embedded import Postgres

from .ledger import Ledger, make_tables, serve


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def suite_url(postgres: Postgres) -> str:
    url = await postgres.create("barrier_suite", "barrier_suite")
    await make_tables(url)
    return url


@pytest_asyncio.fixture(loop_scope="session")
async def ledger(suite_url: str) -> AsyncIterator[Ledger]:
    async with serve(suite_url) as running:
        yield running
