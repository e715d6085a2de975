"""Records that no relay of ours wrote: each is handled, or parked with its key, and stops nobody."""

import asyncio
import json
from datetime import UTC, datetime

import pytest
from amends_events import Consumer, EventRecord, Result, Silent, event_type, kafka
from amends_events.envelope import event_from, handling
from amends_events.replay import ReplayStart, plan_replay
from amends_events.structured import structured
from amends_testkit.waiting import eventually

from amends.events.v1.runs_pb2 import RunStalled
from shop.orders.events.v1.orders_pb2 import OrderPlaced
from shop.payments.events.v1.payments_pb2 import PaymentTaken

from .conftest import RETENTION
from .world import TOPIC, Listed, consuming, effects, note, outbox, parked, record, running

pytestmark = pytest.mark.usefixtures("hurried")
TYPE = event_type(PaymentTaken)


def foreign(key: str = "o-1", **attributes: str) -> EventRecord:
    """An event with attributes that another publisher might give it."""
    one = record(1, key)
    return EventRecord({**one.attributes, **attributes}, one.payload)


async def has_effects(pool, *keys: str) -> None:
    async def look():
        return set(keys) <= {key for key, _ in await effects(pool)}

    await eventually(look, what=f"effects for {keys}")


@pytest.mark.parametrize(
    ("attributes", "why"),
    [
        ({"time": "2026-01-01T00:00:00"}, "the time 2026-01-01T00:00:00 has no zone"),
        ({"time": "9999-12-31T23:59:59-14:00"}, "is not between the years 1900 and 3000"),
        ({"time": "0001-01-01T00:00:00+14:00"}, "is not between the years 1900 and 3000"),
        ({"id": "evt_1"}, "the id 'evt_1' is no UUID"),
        ({"id": "evt_1", "na\0me": "x"}, "the id 'evt_1' is no UUID"),
        ({"id": "00000000-0000-4000-8000-00000000ABCD"}, None),
        ({"time": "2026-01-01t00:00:00.123456789z"}, None),
    ],
)
async def test_a_foreign_envelope_is_read_or_parked_and_the_reader_goes_on_also_after_a_new_start(
    pool, attributes, why
):
    listed = Listed()
    await listed.append(TOPIC, 0, [record(1, "o-2"), foreign(**attributes)])
    async with consuming(pool, listed):
        await has_effects(pool, "o-2") if why else await has_effects(pool, "o-2", "o-1")
        found = await parked(pool, 1 if why else 0)
    assert all(why in one.detail for one in found)
    await listed.append(TOPIC, 0, [record(1, "o-3")])
    async with consuming(pool, listed):
        await has_effects(pool, "o-3")


@pytest.mark.parametrize("key", ["k" * 10_000, "a\0b"], ids=["long", "with a zero"])
async def test_a_key_that_postgres_cannot_keep_as_it_is_waits_behind_its_parked_event(pool, key):
    listed, seen = Listed(), set()

    async def handle(connection, event, message) -> None:
        seen.add(event.version)
        raise ValueError("not now")

    await listed.append(TOPIC, 0, [record(1, key)])
    async with consuming(pool, listed, handle):
        await parked(pool, 1)
    await listed.append(TOPIC, 0, [record(2, key)])
    async with consuming(pool, listed, handle):
        await parked(pool, 2)
    assert seen == {1}


async def test_a_header_that_looks_like_the_status_of_a_pull_hides_no_record(pool, nats_broker, nats):
    await nats_broker.ensure([TYPE.topic], RETENTION)
    number = TYPE.topic.partition_of("o-1")
    subject, headers = nats_broker.name(f"{TOPIC}.{number}"), b"NATS/1.0\r\nStatus: 404\r\n\r\n"
    reader, writer = await asyncio.open_connection(*nats.url.removeprefix("nats://").split(":"))
    size = len(headers)
    writer.write(b'CONNECT {"verbose":false,"headers":true}\r\n')
    writer.write(f"HPUB {subject} {size} {size + 1}\r\n".encode() + headers + b"x\r\nPING\r\n")
    while b"PONG" not in await reader.readline():
        pass
    writer.close()
    await writer.wait_closed()
    await nats_broker.append(TOPIC, number, [record(1)])
    async with consuming(pool, nats_broker):
        await has_effects(pool, "o-1")
        await parked(pool, 1)


@pytest.mark.parametrize("odd", ["c" * 1025, "a\nb", "\0"])
def test_what_follows_from_an_event_carries_on_nothing_that_an_outbox_refuses(odd):
    one = foreign(correlationid=odd, traceparent=odd)
    event = event_from(TOPIC, one.attributes, one.payload)
    with handling(event):
        values = outbox().row(PaymentTaken(order_id="o-1")).values
    carried = json.loads(values[6])
    assert carried == {"correlationid": str(event.event_id), "causationid": str(event.event_id)}


def test_a_payload_that_json_cannot_have_is_shown_as_it_is():
    stalled = RunStalled()
    stalled.since.seconds = 10**17
    for kind, payload in (("amends.events.v1.RunStalled", stalled.SerializeToString()), ("google.protobuf.Value", b"")):
        shown = structured({"type": kind, "datacontenttype": "application/protobuf"}, payload)
        assert (shown.datacontenttype, shown.data_base64) == ("application/protobuf", payload)
        assert not shown.HasField("data")


def test_a_header_of_kafka_without_a_value_is_empty():
    class Message:
        headers = (("ce_id", None), ("ce_type", b"x"))
        offset = 4
        value = None

    assert kafka._stored(Message()).record == EventRecord({"id": "", "type": "x"}, b"")


async def test_a_process_leaves_the_topics_alone_that_only_another_release_of_its_consumer_reads(pool):
    both = Consumer("test", pool, Listed(), {OrderPlaced: note, PaymentTaken: note})
    rows = sum(topic.partitions for topic in both.topics)

    async def claimed() -> bool:
        return await pool.fetchval("SELECT count(*) FROM inbox_position WHERE fence > 0") == rows

    async with running(both.run()):
        await eventually(claimed, what="claims of both topics")
    await pool.execute("UPDATE inbox_position SET fence = 0")
    listed = Listed()
    await listed.append(TOPIC, 0, [record(1)])
    async with consuming(pool, listed):
        await has_effects(pool, "o-1")
    assert await pool.fetchval("SELECT array_agg(DISTINCT topic) FROM inbox_position WHERE fence > 0") == [TOPIC]


async def test_a_replay_from_a_time_ends_when_the_end_of_the_log_cannot_be_read(pool, nats_broker):
    await nats_broker.ensure([TYPE.topic], RETENTION)
    await nats_broker.append(TOPIC, TYPE.topic.partition_of("o-1"), [record(1), foreign(id="evt_1")])
    async with consuming(pool, nats_broker):
        await parked(pool, 1)
    async with pool.acquire() as connection, asyncio.timeout(5):
        (move,) = await plan_replay(connection, nats_broker, "test", TYPE.topic, ReplayStart(datetime.now(UTC)))
    assert (move.position, move.back_to) == (2, 1)


class Counting(Silent):
    """A meter that keeps under which types events were counted."""

    def __init__(self) -> None:
        self.seen: set[tuple[str, Result]] = set()

    def handled(self, consumer, event_type, result, events=1):
        self.seen.add((event_type, result))


async def test_types_that_nobody_handles_are_counted_without_their_names(pool):
    listed, meter = Listed(), Counting()
    await listed.append(TOPIC, 0, [*(foreign(type=f"made.up.No{number}") for number in range(3)), record(1, "o-2")])
    async with consuming(pool, listed, meter=meter):
        await has_effects(pool, "o-2")
    assert meter.seen == {("", Result.SKIPPED), (PaymentTaken.DESCRIPTOR.full_name, Result.HANDLED)}
