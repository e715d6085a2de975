"""A migrated database, a mail server, and senders and whole services on them."""

from collections.abc import AsyncIterator

import pytest_asyncio
from amends_chassis.database import Database
from amends_testkit.service import migrated

from .mail_server import MailServer, mail_server


@pytest_asyncio.fixture(loop_scope="session")
async def database(database_url: str) -> AsyncIterator[Database]:
    async with migrated(database_url, "shop_notifications.migrations") as database:
        yield database


@pytest_asyncio.fixture(loop_scope="session")
async def server() -> AsyncIterator[MailServer]:
    """A mail server of this test alone."""
    async with mail_server() as server:
        yield server
