"""`amends audit` over events finds what contradicts the laws, in databases and a log that relay and consumer filled."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import grpc.aio
import pytest
from amends_cli.audit_databases import UnreadableError
from amends_cli.audit_events import audit_events
from amends_cli.audit_exports import Exports
from amends_events.broker import no_topic
from amends_events.decisions import DecidedBy
from amends_events.laws import EventLaw
from amends_events.parked import ParkedDecision, decide, list_parked

from amends.events.v1 import export_pb2
from amends.events.v1.export_pb2_grpc import ExportServiceServicer, add_ExportServiceServicer_to_server
from shop.payments.events.v1.payments_pb2 import PaymentTaken

from .publishing import BOX, LAST, OF_ONE, TOPIC, Installation


async def test_of_what_went_well_everything_is_counted_and_nothing_is_found(shop: Installation):
    report = await shop.audited()
    assert (report.events, report.topics, report.consumers, report.handled) == (6, 1, 1, 6)
    assert (report.found, report.waiting, report.parked.total()) == ([], {}, 0)
    assert [sentence.partition(":")[0] for sentence in report.unknown] == [
        "whether each change that services keep has its event"
    ]


@pytest.mark.parametrize(
    ("contradiction", "law", "key"),
    [
        (f"DELETE FROM inbox WHERE event_id = {LAST}", "L3", "o-1"),
        (f"UPDATE inbox SET at = at - interval '1 hour' WHERE event_id = {LAST}", "L4", "o-1"),
        ("UPDATE inbox_position SET position = 7 WHERE partition = $1", "L5", ""),
        ("UPDATE inbox_position SET event_id = gen_random_uuid() WHERE partition = $1", "L5", ""),
        ("INSERT INTO inbox SELECT 'shipping', gen_random_uuid() WHERE $1::int >= 0", "L1", ""),
    ],
    ids=["an effect is missing", "out of order", "behind the end", "another event there", "an event of no log"],
)
async def test_what_a_consumer_cannot_have_done_is_found(shop: Installation, contradiction: str, law: str, key: str):
    await shop.shipping.execute(contradiction, OF_ONE)
    assert await shop.broken() == {(law, "shipping", key)}


async def test_what_was_published_and_is_not_in_the_log_is_found(shop: Installation):
    row = BOX.row(PaymentTaken(order_id="o-1")).values
    names = "event_id, topic, partition, key, type, dataschema, headers, payload"
    await shop.payments.execute(
        f"INSERT INTO outbox_sent (seq, {names}, version, occurred_at)"
        " VALUES (99, $1, $2, $3, $4, $5, $6, $7, $8, 4, now())",
        *row,
    )
    assert await shop.broken() == {("L1", "", "o-1")}


async def test_a_log_in_which_a_key_goes_back_is_found(shop: Installation):
    async for batch in shop.broker.read(TOPIC.name, OF_ONE, 0):
        again = batch[0].record
        break
    other = type(again)({**again.attributes, "id": "0198c0de-0000-7000-8000-000000000001"}, again.payload)
    await shop.broker.append(TOPIC.name, OF_ONE, [other])
    assert await shop.broken() == {("L2", "", "o-1")}


async def test_what_waits_is_parked_or_is_still_to_be_read_is_told_and_breaks_no_law(shop: Installation):
    await shop.pay("poison-1", "poison-1", "o-1")
    await shop.published()
    await shop.consumed(9, parked=2)
    await shop.pay("o-1")
    await shop.published()
    await shop.pay("o-2")
    report = await shop.audited()
    assert (report.found, report.parked["shipping"], report.lag["shipping"]) == ([], 2, 1)
    assert report.waiting["payments"].events == 1
    [first, _] = await list_parked(shop.shipping)
    async with shop.shipping.acquire() as connection:
        await decide(connection, first.place, ParkedDecision.SKIP, DecidedBy("me", "gone"))
    await shop.consumed(10, parked=1)
    report = await shop.audited()
    assert (report.found, report.left_out) == ([], 1)


async def test_what_was_handled_behind_an_event_that_waits_is_found(shop: Installation):
    await shop.pay("poison-1", "poison-1")
    await shop.published()
    await shop.consumed(8, parked=2)
    await shop.shipping.execute("DELETE FROM inbox_parked WHERE reason = 'after'")
    assert await shop.broken() == {("L4", "shipping", "poison-1")}


async def test_what_cannot_be_known_is_said(shop: Installation):
    await shop.payments.execute("DELETE FROM outbox_sent")
    await shop.shipping.execute("DELETE FROM inbox")
    said = (await shop.audited()).unknown
    assert [text.partition(" ")[0] for text in said] == ["whether", "shipping", "no"]
    report = await audit_events(shop.urls, "")
    assert (report.events, report.unknown) == (0, ["the log was not read: give --broker"])


async def test_an_inbox_is_not_asked_for_what_it_may_have_forgotten(shop: Installation):
    await shop.shipping.execute(f"DELETE FROM inbox WHERE event_id = {LAST}", OF_ONE)
    assert (await shop.audited(retention=timedelta(0))).found == []


async def test_a_broker_that_is_away_is_a_failure(shop: Installation):
    with pytest.raises(UnreadableError, match="the broker cannot be read"):
        await audit_events(shop.urls, "nats://127.0.0.1:1")


async def test_a_topic_that_the_broker_has_lost_is_found_by_whoever_was_in_it(shop: Installation):
    broker: Any = shop.broker
    for stream in await broker._streams():
        await broker._ask(f"$JS.API.STREAM.DELETE.{stream}", None)
    report = await shop.audited()
    assert {one.law for one in report.found} >= {EventLaw.POSITION, EventLaw.PUBLISHED}
    assert any(sentence.startswith(f"there is no topic {TOPIC.name}") for sentence in report.unknown)


async def test_a_topic_to_which_nobody_has_published_yet_is_no_contradiction(shop: Installation):
    await shop.shipping.execute(
        "INSERT INTO inbox_position (consumer, topic, partition) VALUES ('shipping', 'shop.catalog.events.v1', 0)"
    )
    report = await shop.audited()
    assert report.found == []
    assert report.unknown[0] == str(no_topic("shop.catalog.events.v1"))


class Keeps(ExportServiceServicer):
    """Exports payments as a service does, by their rows: a version for each event."""

    def __init__(self, shop: Installation) -> None:
        self._shop = shop

    async def Export(self, request, context):
        rows = await self._shop.payments.fetch("SELECT order_id, version FROM payment ORDER BY order_id")
        first = int(request.page_token or 0)
        answer = export_pb2.ExportResponse(next_page_token=str(first + 1) if first + 1 < len(rows) else "")
        name = PaymentTaken.DESCRIPTOR.full_name
        for version in range(1, rows[first]["version"] + 1):
            answer.events.add(type=name, key=rows[first]["order_id"], version=version).occurred_at.GetCurrentTime()
        return answer


@asynccontextmanager
async def exporting(shop: Installation) -> AsyncIterator[Exports]:
    server = grpc.aio.server()
    add_ExportServiceServicer_to_server(Keeps(shop), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield Exports([f"127.0.0.1:{port}"])
    finally:
        await server.stop(None)


async def test_each_change_that_a_service_keeps_has_its_event_published_or_waiting_or_is_named(shop: Installation):
    await shop.pay("o-3", "o-4")
    async with exporting(shop) as exports:
        report = await shop.audited(exports=exports)
        assert (report.compared, report.found, report.waiting["payments"].events) == (8, [], 2)
        await shop.payments.execute("DELETE FROM outbox WHERE key = 'o-4'")
        await shop.payments.execute("UPDATE payment SET version = 4 WHERE order_id = 'o-1'")
        report = await shop.audited(exports=exports)
    assert [(one.law, one.key, one.topic) for one in report.found] == [
        (EventLaw.PUBLISHED, "o-1", TOPIC.name),
        (EventLaw.PUBLISHED, "o-4", TOPIC.name),
    ]
    assert "keeps version 4" in report.found[0].message


async def test_a_service_that_was_named_and_exports_nothing_is_a_failure_and_one_that_was_found_is_none(
    shop: Installation,
):
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    with pytest.raises(UnreadableError, match="does not export what it keeps: UNIMPLEMENTED"):
        await shop.audited(exports=Exports([f"127.0.0.1:{port}"]))
    report = await shop.audited(exports=Exports([], [f"127.0.0.1:{port}"]))
    assert [text.partition(" ")[0] for text in report.unknown] == ["whether"]
    await server.stop(None)
