"""kill -9 of the sender wherever it can strike, on a real database and a real mail server (fault E26)."""

import asyncio
import json
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest
from amends_testkit.dying import DIED

from .mail_server import MailServer

ROOT = Path(__file__).parents[3]
POINTS = ("before COMMIT", "after COMMIT", "data", "taken", "before UPDATE notification", "after UPDATE notification")
"""Before and after `sending` is committed, when the mail is transmitted, when the server has it and has not said so,
and before and after `sent` is committed."""


async def deaths(url: str, server: MailServer, orders: int, *points: str) -> list[dict]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "services.notifications.tests.dying", url, str(server.port), str(orders), *points),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    said, error = await process.communicate()
    assert process.returncode == 0, error.decode()
    return [json.loads(line) for line in said.splitlines()]


def check(found: dict, server: MailServer, orders: int) -> None:
    """One death costs at most one duplicate, or one message of marketing; nothing else is missing or doubled."""
    deaths_ = found["died"] != 0
    arrived = [mail for mail in server.mails if mail["To"] == f"{found['round']}@example.org"]
    orders_told = Counter(mail["Message-ID"] for mail in arrived if mail["Subject"] != "Tea")
    marketing = Counter(mail["Message-ID"] for mail in arrived if mail["Subject"] == "Tea")
    assert len(orders_told) == orders, found
    assert orders_told.total() <= orders + deaths_, found
    assert set(marketing.values()) <= {1}, found
    assert len(marketing) >= orders - deaths_, found
    states = found["states"]
    assert states.pop("order-confirmed sent") == orders, found
    unknown = states.pop("campaign unknown", 0)
    assert unknown <= deaths_, found
    assert states.pop("campaign sent", 0) == orders - unknown, found
    assert not states, found


async def die_at_each_point(url: str, server: MailServer, orders: int, number: int) -> list[dict]:
    found = await deaths(url, server, orders, *(f"{point}@{number}" for point in POINTS))
    assert [one["died"] in (DIED, -signal.SIGKILL) for one in found] == [True] * len(POINTS), found
    for one in found:
        check(one, server, orders)
    return found


@pytest.mark.parametrize("number", [2, 3], ids=["of an order", "of a campaign"])
async def test_a_sender_that_is_killed_costs_one_duplicate_at_most(database, database_url, server, number):
    await die_at_each_point(database_url, server, orders=2, number=number)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_a_sender_that_is_killed_amid_two_hundred_orders_costs_one_duplicate_at_most(
    database, database_url, server
):
    for number in (150, 350):
        await die_at_each_point(database_url, server, orders=200, number=number)


@pytest.mark.faults
@pytest.mark.timeout(400)
async def test_a_sender_dies_at_each_place_there_is(database, database_url, server, record_property):
    found = await deaths(database_url, server, 1, "all")
    assert [one["died"] for one in found] == [DIED] * (len(found) - 1) + [0]
    assert {one["where"] for one in found} > set(POINTS) - {"data", "taken"}
    for one in found:
        check(one, server, 1)
    record_property("counted", f"notifications: the sender died at {len(found) - 1} places")
