"""Fixtures of the orchestrator's tests: a migrated database, and connections to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest
from amends_chassis.database import Database
from amends_chassis.migrations import migrate
from amends_orchestrator.journal import leases
from amends_orchestrator.journal.connection import Connect, connector
from amends_orchestrator.journal.partitions import make_partitions

from .journal_helpers import Journal


@pytest.fixture
async def journal_url(database_url: str) -> str:
    """A database with the orchestrator's schema and the partitions of these days."""
    await migrate(Database(database_url), "amends_orchestrator.migrations")
    connection = await asyncpg.connect(database_url)
    await make_partitions(connection)
    await connection.close()
    return database_url


@pytest.fixture
async def connect(journal_url: str) -> Connect:
    return connector(journal_url, "test", statement_timeout=timedelta(seconds=5))


@pytest.fixture
async def connection(connect: Connect) -> AsyncIterator[asyncpg.Connection]:
    opened = await connect()
    yield opened
    await opened.close()


@pytest.fixture
async def process(connection: asyncpg.Connection) -> UUID:
    """A process with a standing lease."""
    process = uuid4()
    await leases.renew(connection, process, "test", timedelta(minutes=5))
    return process


@pytest.fixture
async def journal(connect: Connect, process: UUID) -> AsyncIterator[Journal]:
    """A running writer, and short ways to use it."""
    async with Journal.over(connect, process) as opened:
        yield opened
