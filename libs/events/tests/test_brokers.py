"""The conformance suite of the broker port: every broker passes it, on a real server."""

import asyncio
from contextlib import aclosing
from datetime import timedelta

import pytest
from amends_events import AppendRefusedError, Ends, PositionLostError, Topic, TopicError, nats, open_broker
from amends_events.broker import MAX_BATCH
from amends_testkit.waiting import eventually
from nats.aio.client import Client
from nats.aio.msg import Msg

from .conftest import RETENTION
from .world import read_all, record

WAIT = timedelta(milliseconds=200)


def versions(records) -> list[int]:
    return [int(one.attributes["sequence"]) for one in records]


async def test_a_new_topic_has_its_partitions_and_nothing_in_them(client, topic):
    assert await client.ends(topic.name) == {0: Ends(1, 0), 1: Ends(1, 0)}


async def test_ensuring_a_topic_again_changes_nothing(client, topic):
    await client.append(topic.name, 0, [record(1)])
    await client.ensure([topic], RETENTION)
    assert (await client.ends(topic.name))[0] == Ends(1, 1)


async def test_a_topic_with_another_number_of_partitions_is_refused(client, topic):
    with pytest.raises(TopicError, match=r"has 2 partitions and should have 1"):
        await client.ensure([Topic(topic.name, 1)], RETENTION)


async def test_a_topic_that_nobody_made_is_refused_and_not_made(client, topic):
    unknown = f"{topic.name}.unknown"
    for _ in range(2):
        with pytest.raises(AppendRefusedError):
            await client.append(unknown, 0, [record(1)])
        with pytest.raises(AppendRefusedError):
            await client.ends(unknown)


async def test_what_is_appended_is_read_in_its_order_with_everything_it_has(client, topic):
    sent = [record(number, key=f"Käse {number}", payload=bytes([number])) for number in range(1, 6)]
    assert await client.append(topic.name, 1, sent) == 0
    assert await read_all(client, topic.name, 1) == sent
    assert await client.ends(topic.name) == {0: Ends(1, 0), 1: Ends(1, 5)}


async def test_the_largest_batch_is_stored_whole(client, topic):
    await client.append(topic.name, 0, [record(number) for number in range(MAX_BATCH)])
    assert versions(await read_all(client, topic.name, 0)) == list(range(MAX_BATCH))


async def test_a_megabyte_in_one_batch_is_stored(client, topic):
    await client.append(topic.name, 0, [record(number, payload=bytes(256 * 1024)) for number in range(4)])
    assert (await client.ends(topic.name))[0].last == 4


async def test_a_batch_that_is_sent_again_leaves_each_first_occurrence_in_its_place(client, topic):
    first, second = [record(number) for number in (1, 2, 3)], [record(number) for number in (4, 5)]
    await client.append(topic.name, 0, first)
    await client.append(topic.name, 0, first + second)
    found = versions(await read_all(client, topic.name, 0))
    assert list(dict.fromkeys(found)) == [1, 2, 3, 4, 5]


async def test_reading_goes_on_after_a_position_and_positions_have_no_gaps(client, topic):
    await client.append(topic.name, 0, [record(number) for number in range(1, 11)])
    async with aclosing(client.read(topic.name, 0, 4, limit=4, wait=WAIT)) as batches:
        positions = []
        async for batch in batches:
            assert len(batch) <= 4
            positions += [stored.position for stored in batch]
            if len(positions) == 6:
                break
    assert positions == [5, 6, 7, 8, 9, 10]


async def test_a_reader_that_hears_nothing_says_so_and_hears_what_comes_later_at_once(client, topic):
    async with aclosing(client.read(topic.name, 0, 0, wait=WAIT)) as batches:
        assert await anext(batches) == []
        pending = asyncio.ensure_future(anext(batches))
        await client.append(topic.name, 0, [record(1)])
        found = await pending or await anext(batches)
        assert [stored.position for stored in found] == [1]


async def test_partitions_have_positions_of_their_own(client, topic):
    await client.append(topic.name, 0, [record(1)])
    await client.append(topic.name, 1, [record(2), record(3)])
    assert versions(await read_all(client, topic.name, 0)) == [1]
    assert versions(await read_all(client, topic.name, 1)) == [2, 3]


async def test_a_position_behind_the_end_is_lost(client, topic):
    await client.append(topic.name, 0, [record(1)])

    async def read() -> None:
        async with aclosing(client.read(topic.name, 0, 7, wait=WAIT)) as batches:
            async for _ in batches:
                pass

    with pytest.raises(PositionLostError):
        await read()


async def test_a_position_before_the_start_is_lost_and_not_jumped_over(nats_client):
    """By NATS alone, which would go on with what there is; Kafka refuses by itself."""
    short = Topic("test.short.v1", 1)
    await nats_client.ensure([short], timedelta(milliseconds=300))
    await nats_client.append(short.name, 0, [record(1), record(2)])

    async def forgotten() -> bool:
        return (await nats_client.ends(short.name))[0].first == 3

    await eventually(forgotten)
    await nats_client.append(short.name, 0, [record(3)])

    async def read() -> None:
        async with aclosing(nats_client.read(short.name, 0, 1, wait=WAIT)) as batches:
            async for _ in batches:
                pass

    with pytest.raises(PositionLostError):
        await read()


async def test_many_write_at_once_and_each_partition_keeps_the_order_of_its_writer(client, topic):
    async def write(partition: int) -> None:
        for start in range(0, 40, 10):
            await client.append(topic.name, partition, [record(start + number) for number in range(10)])

    await asyncio.gather(write(0), write(1))
    for partition in (0, 1):
        assert versions(await read_all(client, topic.name, partition)) == list(range(40))


def test_an_unknown_kind_of_broker_is_refused():
    with pytest.raises(ValueError, match="a broker is nats://HOST:PORT or kafka://HOST:PORT"):
        open_broker("amqp://127.0.0.1")


ODD = [
    "a:b\r\n",
    "a b: c\r\n",
    "é: x\r\n",
    "a:\tb\r\n",
    "a: b \r\n",
    "x\r\na: b\r\n",
    "a: b\r\na: c\r\n",
    "\ta: b\r\n",
    "\r\n",
]


@pytest.mark.parametrize("raw", [*ODD, "ce-id: 1\r\nce-subject: ü: 2\r\nNats-Msg-Id: 1\r\n\r\n"])
def test_headers_are_read_as_nats_py_reads_them(raw):
    assert nats._Client._parse_header_lines(raw.encode()) == Client._parse_header_lines(raw.encode())
    assert nats._Client._process_headers.__code__.co_names.count("_parse_header_lines"), "nats-py reads them elsewhere"


@pytest.mark.parametrize("reply", ["$JS.ACK.s-1.c.1.42.7.99.0", "$JS.ACK._.acc.s-1.c.1.42.7.99.0.x"])
def test_a_position_is_where_an_acknowledgement_would_go_to(reply):
    assert nats._position(reply) == Msg.Metadata._from_reply(reply).sequence.stream == 42
