"""Worlds for a file of tests: one, or two in which cases run at the same time."""

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio
from amends_embedded import Postgres

from .world import World, worlds

_numbers = itertools.count(1)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def make(postgres: Postgres) -> AsyncIterator[Callable[[], Awaitable[str]]]:
    """Makes databases, which are dropped after the file."""
    made: list[str] = []

    async def make() -> str:
        name = f"faults_{next(_numbers)}"
        made.append(name)
        return await postgres.create(name, name)

    yield make
    for name in made:
        await postgres.drop(name, name)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def both(
    make: Callable[[], Awaitable[str]], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[list[World]]:
    """Two worlds with the example in force, each with an orchestrator called `a`."""
    async with worlds(2, tmp_path_factory.mktemp("faults"), make) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def world(make: Callable[[], Awaitable[str]], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One of them, for the whole file."""
    async with worlds(1, tmp_path_factory.mktemp("faults"), make) as [opened]:
        yield opened
