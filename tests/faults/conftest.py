"""Two worlds for each file of tests: cases run in both at once."""

import itertools
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from amends_embedded import Postgres

from .world import World, worlds

_numbers = itertools.count(1)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def both(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[list[World]]:
    """Two worlds with the example in force, each with an orchestrator called `a`."""
    made: list[str] = []

    async def make() -> str:
        name = f"faults_{next(_numbers)}"
        made.append(name)
        return await postgres.create(name, name)

    async with worlds(2, tmp_path_factory.mktemp("faults"), make) as opened:
        yield opened
    for name in made:
        await postgres.drop(name, name)


@pytest.fixture
def world(both: list[World]) -> World:
    """One of them."""
    return both[0]
