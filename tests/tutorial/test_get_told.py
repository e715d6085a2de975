"""The receiver and the settings on the page work: what the orchestrator sends is taken, what others send is not."""

import re
import sys
import urllib.error
import urllib.request
from asyncio import to_thread
from datetime import timedelta
from pathlib import Path

import pytest
from amends_embedded import Child
from amends_events.envelope import new_event_id
from amends_orchestrator.webhooks.client import WebhookClient
from amends_orchestrator.webhooks.destinations import parse
from amends_testkit.receiver import new_secret
from amends_testkit.waiting import eventually

from .pages import ROOT, free_port

PAGE = (ROOT / "docs/how-to/get-told.md").read_text()
EVENT = b'{"data":{"reason":"BY_PERSON"},"subject":"run-1","type":"amends.events.v1.RunParked"}'


def block(language: str) -> str:
    [found] = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


@pytest.fixture
async def receiver(tmp_path: Path):
    port = str(free_port())
    (tmp_path / "on-call.secret").write_text(new_secret() + "\n")
    (tmp_path / "receiver.py").write_text(block("python").replace("8080", port))
    (tmp_path / "webhooks.json").write_text(block("json").replace("8080", port))
    log = tmp_path / "receiver.log"
    child = Child.start("receiver", [sys.executable, "receiver.py"], log=log, directory=tmp_path)
    yield child, tmp_path, f"http://127.0.0.1:{port}/"
    child.kill()


async def test_the_receiver_takes_what_the_orchestrator_sends_and_nothing_else(receiver):
    child, folder, url = receiver
    path = folder / "webhooks.json"
    [destination] = parse(path.read_text(), str(path)).by_name.values()
    assert destination.types == ("RunParked", "RunStalled")
    client = WebhookClient(timedelta(seconds=5))

    async def delivered() -> bool:
        return (await client.attempt(destination, new_event_id(), EVENT)).delivered

    await eventually(delivered, what="the receiver listens")
    assert 'amends.events.v1.RunParked run-1 {"reason": "BY_PERSON"}' in child.log.read_text()

    def send(**headers: str) -> int:
        known = {"webhook-id": "a", "webhook-timestamp": "1", "webhook-signature": "v1,AAAA"} | headers
        request = urllib.request.Request(url, EVENT, known, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    assert await to_thread(send) == 401
    (folder / "on-call.secret").write_text(new_secret() + "\n")
    forged = await client.attempt(destination, new_event_id(), EVENT)
    assert (forged.delivered, forged.detail) == (False, "it answered 401")
    assert child.log.read_text().count("RunParked run-1") == 1


def test_the_receiver_is_as_short_as_the_page_says():
    lines = [line for line in block("python").splitlines() if line.strip()]
    assert len(lines) <= 20
