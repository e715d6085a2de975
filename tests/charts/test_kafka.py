"""The script that starts Kafka in its pod, with real programs: an empty volume is made ready, a used one is kept."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from amends_embedded import Child
from amends_events import Broker, EventRecord, Topic, UnknownError, open_broker
from amends_testkit.kafka import HOW_TO_GET, libraries
from amends_testkit.waiting import eventually

from .conftest import Helm

pytestmark = pytest.mark.faults
TOPIC = Topic("test.chart.v1", 2)
RECORD = EventRecord({"id": "1", "subject": "o-1"}, b"x")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def started(script: Path, log: Path) -> AsyncIterator[None]:
    child = Child.start("kafka", ["sh", str(script)], log=log)
    try:
        yield
    finally:
        await child.terminate()


async def test_the_pods_script_makes_a_volume_ready_and_keeps_what_is_on_it(helm: Helm, tmp_path: Path):
    jars = libraries()
    if jars is None:
        pytest.skip(HOW_TO_GET)
    (data,) = (one["data"] for one in helm.render("kafka", namespace="data") if one["kind"] == "ConfigMap")
    port, controller = free_port(), free_port()
    for name, text in data.items():
        for before, after in (
            ("/opt/kafka/libs", str(jars)),
            ("/etc/kafka", str(tmp_path)),
            ("/data/", f"{tmp_path}/"),
            ("kafka.data.svc.cluster.local", "127.0.0.1"),
            ("PLAINTEXT://:9092", f"PLAINTEXT://127.0.0.1:{port}"),
            (":9092", f":{port}"),
            (":9093", f":{controller}"),
        ):
            text = text.replace(before, after)
        (tmp_path / name).write_text(text)
    url = f"kafka://127.0.0.1:{port}"
    async with started(tmp_path / "start.sh", tmp_path / "kafka.log"), client(url) as broker:
        await broker.append(TOPIC.name, 1, [RECORD])
    async with started(tmp_path / "start.sh", tmp_path / "kafka.log"), client(url) as broker:
        assert (await broker.ends(TOPIC.name))[1].last == 1


@asynccontextmanager
async def client(url: str) -> AsyncIterator[Broker]:
    """A client of a server that may still be starting, with the topic made."""
    broker = open_broker(url)

    async def there() -> bool:
        try:
            await broker.ensure([TOPIC], timedelta(hours=1))
        except UnknownError:
            return False
        return True

    try:
        await eventually(there, timeout=timedelta(seconds=60))
        yield broker
    finally:
        await broker.close()
