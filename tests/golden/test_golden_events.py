"""What every release has left in a log is handled by every consumer there is, and newer events harm no older consumer.

Each service that consumes is started as it is, on a database of its own. A log has the golden events of all releases,
each of them once more with a field that nobody knows yet, and in each topic an event of a type that nobody knows yet. A
new consumer takes part by itself.
"""

import base64
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from hashlib import sha256
from importlib import import_module
from inspect import signature
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

import pytest
import pytest_asyncio
from amends_chassis.dial import dial
from amends_chassis.service import running
from amends_contracts import descriptor_set
from amends_embedded import Nats
from amends_events import EventRecord, Topic, declared_topics, open_broker
from amends_events.lag import list_lag
from amends_events.parked import list_parked
from amends_testkit.waiting import eventually
from event_rules.compare import EventContracts
from event_rules.releases import CONTRACTS, GOLDEN, ROOT
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from pydantic import SecretStr

from amends.monitor.v1 import monitor_service_pb2
from amends.monitor.v1.monitor_service_pb2_grpc import MonitorServiceStub
from amends.saga.v1.definition_service_pb2 import Manifest

from .record_events import DIGESTS, EVENTS

RETENTION = timedelta(hours=1)
UNKNOWN_FIELD = b"\xc2\xb8\x02\x05later"
"""The field 5000, a text: no contract has it."""
NOBODY = "127.0.0.1:1"
CONSUMES = re.compile(r"\bruntime\.consumes\(|events\.consume\(|\brebuild_with\(")


def consuming() -> list[str]:
    """The packages of the services that say somewhere that they consume."""
    sources = ROOT.glob("services/*/src/*/*.py")
    return sorted({path.parent.name for path in sources if CONSUMES.search(path.read_text())})


CONSUMING = consuming()


async def watch_orders(address: str) -> None:
    """Let the monitor watch the choreography of orders: it reads nothing before."""
    text = (ROOT / "examples" / "place-order" / "choreography.yaml").read_text()
    request = monitor_service_pb2.ApplyChoreographyRequest(
        manifest=Manifest(text=text), descriptors=descriptor_set().SerializeToString()
    )
    async with dial(address) as channel:
        answer = await MonitorServiceStub(channel).ApplyChoreography(request)
    assert answer.accepted, answer.findings


PREPARED = {"amends_monitor": watch_orders}
"""What a service has to be told before it consumes anything."""


@dataclass(frozen=True)
class Log:
    """A broker with all golden events."""

    url: str
    events: int


def recorded() -> list[tuple[str, EventRecord]]:
    """The golden events of all releases, each with its topic."""
    found = []
    for file in sorted(GOLDEN.glob(f"*/{EVENTS}")):
        for one in json.loads(file.read_text()):
            found.append((one["topic"], EventRecord(one["attributes"], base64.b64decode(one["payload"]))))
    return found


def newer(record: EventRecord) -> EventRecord:
    """The event as a later release would write it: with a field more."""
    named = {**record.attributes, "id": str(uuid5(NAMESPACE_URL, f"later {record.attributes['id']}"))}
    return EventRecord(named, record.payload + UNKNOWN_FIELD)


def unknown(topic: str) -> EventRecord:
    """An event of a type that only a later release has."""
    attributes = {
        **recorded()[0][1].attributes,
        "id": str(uuid5(NAMESPACE_URL, f"unknown in {topic}")),
        "type": f"{topic}.NobodyKnowsThis",
        "subject": "x-1",
    }
    return EventRecord(attributes, b"\x01\x02\x03")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def log(tmp_path_factory) -> AsyncIterator[Log]:
    async with await Nats.start(tmp_path_factory.mktemp("golden")) as nats:
        broker = open_broker(nats.url)
        topics = {topic.name: topic for topic in declared_topics(descriptor_set())}
        await broker.ensure(list(topics.values()), RETENTION)
        events = [*recorded(), *((name, newer(record)) for name, record in recorded())]
        events += [(name, unknown(name)) for name in topics]
        batches: dict[tuple[Topic, int], list[EventRecord]] = {}
        for name, record in events:
            place = (topics[name], topics[name].partition_of(record.attributes["subject"]))
            batches.setdefault(place, []).append(record)
        for (topic, number), records in batches.items():
            await broker.append(topic.name, number, records)
        yield Log(nats.url, len(events))
        await broker.close()


@pytest.mark.parametrize("package", CONSUMING)
async def test_a_consumer_handles_what_every_release_has_left_and_what_a_later_one_writes(package, database_url, log):
    settings = import_module(f"{package}.settings").Settings
    needed = {name: NOBODY for name, field in settings.model_fields.items() if field.is_required()}
    configured = settings(**needed, database_url=SecretStr(database_url), broker=SecretStr(log.url))
    assemble = import_module(f"{package}.__main__").assemble
    if len(signature(assemble).parameters) > 1:
        assemble = partial(assemble, configured)
    async with running(configured, assemble) as runtime:
        pool, broker = runtime.database.pool, runtime.events.broker
        assert broker is not None
        if package in PREPARED:
            await PREPARED[package](runtime.address)

        async def read_to_the_end():
            places = await list_lag(pool, broker)
            wanted = {(name, topic) for name, one in runtime.events.consumed.items() for topic in one.topics}
            assert len(places) == sum(topic.partitions for _, topic in wanted)
            return bool(wanted) and all(one.lag == 0 and one.position == one.ends.last for one in places)

        await eventually(read_to_the_end, what=f"the end of the log, for {package}")
        assert [(one.type, one.key, one.detail) for one in await list_parked(pool)] == []


def test_every_service_that_consumes_is_found():
    assert {"shop_orders", "shop_payments", "shop_reporting", "shop_search", "amends_monitor"} <= set(CONSUMING)


def test_no_golden_event_was_edited_or_taken_away() -> None:
    lines = (GOLDEN / DIGESTS).read_text(encoding="utf-8").splitlines()
    listed = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    found = {str(file.relative_to(GOLDEN)): sha256(file.read_bytes()).hexdigest() for file in GOLDEN.glob("*/*")}
    assert found == listed


@pytest.mark.parametrize("folder", sorted(GOLDEN.glob("*/")), ids=lambda folder: folder.name)
def test_a_release_has_an_event_of_each_of_its_types(folder: Path) -> None:
    files = FileDescriptorSet.FromString((folder / CONTRACTS).read_bytes())
    types = {one["attributes"]["type"] for one in json.loads((folder / EVENTS).read_text())}
    assert types == set(EventContracts.of(files).events())
    assert len({one.attributes["id"] for _, one in recorded()}) == len(recorded())
