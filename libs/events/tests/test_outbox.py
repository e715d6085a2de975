import json
from datetime import UTC, datetime

import pytest
from amends_events import (
    ContractError,
    EventRefusedError,
    Outbox,
    cause,
    caused_by,
    event_type,
    with_event,
    with_events,
)
from amends_events.envelope import CloudEvent, EnvelopeError, attributes, event_from, handling, new_event_id
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary
from cloudevents.core.formats.json import JSONFormat

from shop.payments.events.v1.payments_pb2 import PaymentRefunded, PaymentTaken
from shop.payments.v1.payments_pb2 import ChargeRequest

from .world import SOURCE, TOPIC, outbox, pay


def event(**changes) -> CloudEvent:
    known = {
        "event_id": new_event_id(),
        "source": SOURCE,
        "type": PaymentTaken.DESCRIPTOR.full_name,
        "topic": TOPIC,
        "key": "o-1",
        "version": 7,
        "occurred_at": datetime.now(UTC),
        "headers": {"correlationid": "o-1"},
        "payload": b"",
    }
    return CloudEvent(**{**known, **changes})


def test_an_envelope_is_read_as_it_was_written():
    written = event(payload=b"\x01")
    assert event_from(TOPIC, attributes(written, "urn:sha256:0"), b"\x01") == written


def test_the_envelope_is_a_cloudevent_in_binary_mode_for_those_who_wrote_the_specification():
    written = event()
    headers = {f"ce_{name}": value.encode() for name, value in attributes(written, "urn:sha256:0").items()}
    headers["content-type"] = headers.pop("ce_datacontenttype")
    read = from_binary(KafkaMessage(headers, b"o-1", b'"x"'), JSONFormat())
    assert (read.get_id(), read.get_source(), read.get_type()) == (str(written.event_id), SOURCE, written.type)
    assert (read.get_subject(), read.get_time()) == ("o-1", written.occurred_at)
    assert (read.get_datacontenttype(), read.get_dataschema()) == ("application/protobuf", "urn:sha256:0")
    assert (read.get_extension("sequence"), read.get_extension("partitionkey")) == ("7", "o-1")


@pytest.mark.parametrize(
    ("name", "value"),
    [("id", None), ("subject", None), ("id", "one"), ("sequence", "x"), ("time", "today"), ("specversion", "0.3")],
)
def test_an_envelope_that_makes_no_sense_is_refused(name, value):
    broken = {**attributes(event(), "urn:sha256:0"), name: value}
    with pytest.raises(EnvelopeError):
        event_from(TOPIC, {key: one for key, one in broken.items() if one is not None}, b"")


def test_ids_are_version_7_and_grow_with_time():
    first, second = new_event_id(), new_event_id()
    assert (first.version, second.version) == (7, 7)
    assert first.int >> 80 <= second.int >> 80


def test_a_message_that_is_no_event_cannot_be_published():
    with pytest.raises(ContractError, match=r"ChargeRequest is in no topic"):
        Outbox(SOURCE, [ChargeRequest])


def test_the_partition_of_a_key_is_the_same_for_everybody():
    topic = event_type(PaymentTaken).topic
    assert [topic.partition_of(f"o-{number}") for number in range(8)] == [4, 2, 0, 6, 5, 3, 1, 7]


@pytest.mark.parametrize(
    "refused",
    [
        PaymentTaken(),
        PaymentTaken(order_id="o" * 256),
        PaymentTaken(order_id="o-1\n"),
        PaymentTaken(order_id=" o-1"),
        PaymentTaken(order_id="o-1", payment_id="p" * 256 * 1024),
        ChargeRequest(order_id="o-1"),
    ],
    ids=["no key", "long key", "unprintable key", "space before the key", "too large", "not declared"],
)
async def test_what_a_broker_could_refuse_is_refused_in_the_transaction(pool, refused):
    async def change() -> None:
        async with pool.acquire() as connection, connection.transaction():
            await pay(connection, outbox(), "o-1")
            await outbox().append(connection, refused, 1)

    with pytest.raises(EventRefusedError):
        await change()
    assert await pool.fetchval("SELECT count(*) FROM outbox") == 0


def test_an_attribute_that_no_envelope_has_is_refused():
    with pytest.raises(EventRefusedError):
        Outbox(SOURCE, [PaymentTaken], headers=lambda: {"password": "x"}).row(PaymentTaken(order_id="o-1"))


async def test_the_change_and_its_event_are_one_statement_and_the_event_has_its_version(pool):
    box = outbox()
    async with pool.acquire() as connection:
        for _ in range(3):
            await pay(connection, box, "o-1")
    rows = await pool.fetch("SELECT key, version, topic, partition, type FROM outbox ORDER BY seq")
    assert [row["version"] for row in rows] == [1, 2, 3]
    assert {(row["key"], row["topic"], row["partition"]) for row in rows} == {("o-1", TOPIC, 2)}


async def test_a_change_that_changes_nothing_has_no_event(pool):
    change = with_event("UPDATE payment SET version = version + 1 WHERE order_id = $1 RETURNING version", 1)
    assert await pool.fetch(change, "unknown", *outbox().row(PaymentTaken(order_id="o-1")).values) == []
    assert await pool.fetchval("SELECT count(*) FROM outbox") == 0


async def test_one_statement_changes_several_and_each_that_changed_has_its_event(pool):
    await pool.execute("INSERT INTO payment VALUES ('o-1', 4), ('o-2', 7)")
    change = with_events(
        "UPDATE payment SET version = version + 1 WHERE order_id = ANY($1::text[]) RETURNING order_id AS key, version",
        1,
    )
    keys = ["o-1", "o-2", "o-3"]
    await pool.execute(change, keys, *outbox().rows(PaymentTaken(order_id=key) for key in keys))
    rows = await pool.fetch("SELECT key, version FROM outbox ORDER BY key")
    assert [tuple(row) for row in rows] == [("o-1", 5), ("o-2", 8)]


async def test_a_transaction_that_is_rolled_back_leaves_no_event(pool):
    async with pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await outbox().append(connection, PaymentTaken(order_id="o-1"), 1)
        await transaction.rollback()
    assert await pool.fetchval("SELECT count(*) FROM outbox") == 0


async def test_an_event_says_what_caused_it_and_what_it_belongs_to(pool):
    first = event(headers={})
    with handling(first):
        await outbox().append(pool, PaymentRefunded(order_id="o-1"), 2)
    with handling(event(headers={"correlationid": "o-1", "traceparent": "00-1"})):
        await outbox().append(pool, PaymentRefunded(order_id="o-1"), 3)
    found = [json.loads(row["headers"]) for row in await pool.fetch("SELECT headers FROM outbox ORDER BY seq")]
    assert found[0] == {"causationid": str(first.event_id), "correlationid": str(first.event_id)}
    assert (found[1]["correlationid"], found[1]["traceparent"]) == ("o-1", "00-1")


async def test_what_a_handler_left_for_later_says_the_same_as_what_it_did_itself(pool):
    with handling(event(headers={"correlationid": "o-1", "traceparent": "00-1"})):
        await outbox().append(pool, PaymentTaken(order_id="o-1"), 1)
        left = cause()
    with caused_by(left):
        await outbox().append(pool, PaymentTaken(order_id="o-1"), 2)
    at_once, later = [json.loads(row["headers"]) for row in await pool.fetch("SELECT headers FROM outbox ORDER BY seq")]
    assert at_once == later
    assert cause() == {}
