"""Relay and consumer die at every place at which they can, on a real database and a real broker; others do the rest."""

import asyncio
import itertools
import json
import sys
from pathlib import Path

import pytest
from amends_testkit.dying import DIED

from .dying import VERSIONS

pytestmark = pytest.mark.faults

ROOT = Path(__file__).parents[3]
_numbers = itertools.count(1)


async def deaths(kind: str, url: str, server: str) -> list[dict]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "libs.events.tests.dying", kind, url, server, f"test.d{next(_numbers)}"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    said, error = await process.communicate()
    assert process.returncode == 0, error.decode()
    return [json.loads(line) for line in said.splitlines()]


@pytest.fixture(params=["nats", "kafka"])
def server(request) -> str:
    return request.getfixturevalue(request.param).url


async def test_the_relay_dies_at_each_place_and_everything_is_published_in_order(
    pool, events_url, server, record_property
):
    found = await deaths("relay", events_url, server)
    assert [one["died"] for one in found] == [DIED] * (len(found) - 1) + [0]
    assert len(found) > 10
    for one in found:
        assert one["left"] == 0, one
        assert [list(dict.fromkeys(versions)) for versions in one["log"].values()] == [list(VERSIONS)] * 2, one
    record_property("counted", f"events: the relay died at {len(found) - 1} places")


async def test_the_consumer_dies_at_each_place_and_every_event_has_one_effect(
    pool, events_url, server, record_property
):
    found = await deaths("consumer", events_url, server)
    assert [one["died"] for one in found] == [DIED] * (len(found) - 1) + [0]
    assert {one["where"] for one in found} >= {"before execute COMMIT", "after execute COMMIT"}
    for one in found:
        assert (one["effects"], one["followed"]) == (list(VERSIONS), list(VERSIONS)), one
    record_property("counted", f"events: the consumer died at {len(found) - 1} places")
