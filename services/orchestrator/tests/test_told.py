"""Who is told of runs and definitions, by webhooks and by a real broker: what events say, and what they never say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest
from amends_events import Topic, open_broker
from amends_orchestrator.announcer import SOURCE
from amends_testkit.answers import ScriptedAnswer
from amends_testkit.receiver import Receiver, receiving, verifies, write_settings
from amends_testkit.waiting import eventually
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import SecretStr

from amends.events.v1 import runs_pb2
from amends.events.v1 import webhooks_pb2 as wpb
from amends.events.v1.webhooks_pb2_grpc import WebhookServiceStub
from amends.saga.v1 import definition_service_pb2 as dpb
from amends.saga.v1 import run_service_pb2 as pb

from .shop import EXAMPLE, Client, Shop, open_shop, orchestrator, state

REFUSED = ScriptedAnswer.refused(grpc.StatusCode.FAILED_PRECONDITION, text="refunds are closed for 4111")
DECLINED = ScriptedAnswer.refused(grpc.StatusCode.FAILED_PRECONDITION, text="no slot at Main 1")
AWAY = ScriptedAnswer.refused(grpc.StatusCode.UNAVAILABLE, text="away")
OF_RUNS = [name for name in runs_pb2.DESCRIPTOR.message_types_by_name if name.startswith("Run") and name != "RunName"]
SECRET = ("tok_visa", "Berlin", "Main 1", "4111", "refunds are closed", "Ada", "1200")
"""What the caller or a participant said: it may be secret."""


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    async with open_shop() as shop:
        yield shop


@asynccontextmanager
async def telling(
    url: str, folder: Path, types: list[str] = OF_RUNS, **settings: Any
) -> AsyncIterator[tuple[Client, Receiver]]:
    """An orchestrator with one webhook."""
    async with receiving(folder) as receiver:
        path = write_settings(folder / "webhooks.json", receiver.entry(types=types))
        async with orchestrator(url, webhooks=path, **settings) as client:
            yield client, receiver


def facts(receiver: Receiver) -> list[dict[str, Any]]:
    """What the events say beside which run they are about."""
    return [
        {name: value for name, value in got.event["data"].items() if name not in ("runId", "run")}
        for got in receiver.received
    ]


async def test_a_person_is_told_of_a_parked_run_and_of_what_was_decided(database_url: str, shop: Shop, tmp_path: Path):
    async with telling(database_url, tmp_path) as (client, receiver):
        digest = await client.apply(shop)
        shop.shipping.script("Book", DECLINED)
        shop.payments.script("Refund", REFUSED)
        run = (await client.start("k")).run
        assert state(run) == "PARKED"
        await receiver.kinds("RunStarted", "RunTurnedBack", "RunParked")
        shop.payments.script("Refund", ScriptedAnswer.ok())
        await client.runs.ResolveRun(
            pb.ResolveRunRequest(
                run_id=run.run_id,
                resolution=pb.RESOLUTION_RETRY,
                expected_seq=run.parked.seq,
                actor="ada",
                reason="spoke with the bank",
            )
        )
        received = await receiver.kinds("RunStarted", "RunTurnedBack", "RunParked", "RunResolved", "RunEnded")
    assert facts(receiver) == [
        {"digest": digest},
        {"reason": "rejected", "step": "ship"},
        {"reason": "REJECTED", "step": "charge", "seq": str(run.parked.seq)},
        {"resolution": "retry", "step": "charge", "actor": "ada", "reason": "spoke with the bank"},
        {"state": "COMPENSATED", "reason": "rejected", "step": "ship"},
    ]
    named = {"namespace": "shop", "saga": "place-order", "idempotencyKey": "k"}
    for got in received:
        assert verifies(receiver.secret, got.headers, got.body)
        assert got.event["data"]["runId"] == got.event["subject"] == got.event["correlationid"] == run.run_id
        assert got.event["data"]["run"] == named
        assert got.event["source"] == SOURCE
        assert not [word for word in SECRET if word in got.body.decode()]
    numbers = [int(got.event["sequence"]) for got in received]
    assert numbers == sorted(set(numbers)), "they are the numbers of records"


async def test_a_cancelled_run_says_who_and_why(database_url: str, shop: Shop, tmp_path: Path):
    gate = asyncio.Event()
    shop.payments.script("Charge", ScriptedAnswer.ok().once(gate))
    async with telling(database_url, tmp_path) as (client, receiver):
        await client.apply(shop)
        run = (await client.start("k", wait=False)).run
        await eventually(lambda: shop.payments.calls("Charge"))
        await client.runs.CancelRun(pb.CancelRunRequest(run_id=run.run_id, actor="ada", reason="the customer called"))
        gate.set()
        await receiver.kinds("RunStarted", "RunCancelled", "RunTurnedBack", "RunEnded")
    assert facts(receiver)[1:3] == [{"actor": "ada", "reason": "the customer called"}, {"reason": "cancelled"}]


async def test_a_run_that_stalls_and_goes_on_is_told_once_each(database_url: str, shop: Shop, tmp_path: Path):
    saga = (EXAMPLE / "saga.yaml").read_text().replace("deadline: 60s", "deadline: 60s\n  stalledAfter: 200ms")
    shop.orders.script("Confirm", AWAY)
    quick = {"passivate_after": timedelta(milliseconds=100)}
    async with telling(database_url, tmp_path, **quick) as (client, receiver):
        await client.apply(shop, saga)
        before = datetime.now(UTC)
        await client.start("k", wait=False)
        await receiver.kinds("RunStarted", "RunStalled")
        calls = len(shop.orders.calls("Confirm"))
        await eventually(lambda: len(shop.orders.calls("Confirm")) > calls + 2, what="it is tried, and stays stalled")
        shop.orders.script("Confirm", ScriptedAnswer.ok())
        received = await receiver.kinds("RunStarted", "RunStalled", "RunRecovered", "RunEnded")
    stalled = received[1].event["data"]
    assert (stalled["reason"], stalled["step"]) == ("WAITING", "confirm")
    assert before - timedelta(minutes=1) < datetime.fromisoformat(stalled["since"]) < datetime.now(UTC)


async def test_changes_of_definitions_are_told_in_their_order(database_url: str, shop: Shop, tmp_path: Path):
    async with telling(database_url, tmp_path, ["DefinitionChanged"]) as (client, receiver):
        digest = await client.apply(shop)
        await client.definitions.DeleteSaga(dpb.DeleteSagaRequest(namespace="shop", name="place-order"))
        await client.definitions.DeleteSaga(dpb.DeleteSagaRequest(namespace="shop", name="place-order"))
        received = await receiver.kinds(*["DefinitionChanged"] * 7)
    told = {(data["definition"], data["change"], data.get("digest", "")) for data in facts(receiver)}
    assert told == {
        *((f"Participant/shop/{name}", "applied", "") for name in ("inventory", "orders", "payments", "shipping")),
        ("RetryPolicy/shop/quick", "applied", ""),
        ("Saga/shop/place-order", "applied", digest),
        ("Saga/shop/place-order", "deleted", ""),
    }
    saga = [got.event for got in received if got.event["subject"] == "Saga/shop/place-order"]
    assert int(saga[0]["sequence"]) < int(saga[1]["sequence"])


async def test_a_contract_that_does_not_fit_any_more_is_told(database_url: str, shop: Shop, tmp_path: Path):
    async with telling(database_url, tmp_path, ["DefinitionChanged"]) as (client, receiver):
        await client.apply(shop)
        await receiver.kinds(*["DefinitionChanged"] * 6)
        await client.definitions.DeleteParticipant(dpb.DeleteParticipantRequest(namespace="shop", name="payments"))
        await client.parts.refresher.refresh()
        await client.parts.refresher.refresh()
        await receiver.kinds(*["DefinitionChanged"] * 8)
        changes = [(data["definition"], data["change"]) for data in facts(receiver)[6:]]
        assert set(changes) == {("Participant/shop/payments", "deleted"), ("Saga/shop/place-order", "not-ready")}
        await client.apply(shop)
        await receiver.kinds(*["DefinitionChanged"] * 14)


async def test_a_run_that_cannot_be_read_is_told_once(database_url: str, shop: Shop, tmp_path: Path):
    gate = asyncio.Event()
    shop.payments.script("Charge", ScriptedAnswer.ok().once(gate))
    connection = await asyncpg.connect(database_url)
    async with telling(database_url, tmp_path) as (client, receiver):
        await client.apply(shop)
        run = (await client.start("k", wait=False)).run
        await eventually(lambda: shop.payments.calls("Charge"))
        fleet, claimer = client.parts.fleet, client.parts._claimer
        await connection.execute("UPDATE journal SET record = '\\xff' WHERE seq = 1")
        for _ in range(2):
            await connection.execute("UPDATE run SET fence = fence + 1, owner = NULL, due_at = NULL")
            live = fleet.get(next(iter(fleet.runs))) if fleet.runs else None
            if live is not None:
                gate.set()
                await eventually(lambda: not fleet.runs, what="the owner hears that it has lost the run")
            assert await claimer.take_one(run.run_id) is None
        await receiver.kinds("RunStarted", "RunStalled")
        assert facts(receiver)[1] == {"reason": "UNREADABLE"}
    await connection.close()


async def test_the_broker_has_each_run_from_its_start_to_its_end_in_order(database_url: str, shop: Shop, nats: Any):
    topic = Topic("amends.events.v1", 8)
    async with orchestrator(database_url, broker=SecretStr(nats.url)) as client:
        await client.apply(shop)
        runs = [answer.run for answer in await asyncio.gather(*(client.start(f"k{n}") for n in range(20)))]
        mine = {run.run_id for run in runs}
        pool = client.runtime.database.pool

        async def all_published() -> bool:
            return await pool.fetchval("SELECT count(*) FROM outbox") == 0

        await eventually(all_published, what="the outbox is empty")
        broker = open_broker(nats.url)
        found: dict[str, list[str]] = {}

        async def read(partition: int) -> None:
            async with aclosing(broker.read(topic.name, partition, 0, wait=timedelta(milliseconds=50))) as batches:
                async for batch in batches:
                    for entry in batch:
                        attributes = entry.record.attributes
                        if attributes["subject"] in mine:
                            assert partition == topic.partition_of(attributes["subject"])
                            found.setdefault(attributes["subject"], []).append(attributes["type"])

        readers = [asyncio.create_task(read(partition)) for partition in range(topic.partitions)]
        expected = {run: [f"{topic.name}.RunStarted", f"{topic.name}.RunEnded"] for run in mine}
        await eventually(lambda: found == expected, what="all are published")
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        await broker.close()


async def test_where_nobody_is_told_nothing_is_written(database_url: str, shop: Shop):
    async with orchestrator(database_url) as client:
        await client.apply(shop)
        assert state((await client.start("k")).run) == "COMPLETED"
    connection = await asyncpg.connect(database_url)
    for table in ("outbox", "webhook_delivery"):
        assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0
    await connection.close()


async def test_events_wait_for_a_broker_that_is_away_and_webhooks_do_not(database_url: str, shop: Shop, tmp_path: Path):
    nowhere = SecretStr("nats://127.0.0.1:9")
    async with telling(database_url, tmp_path, broker=nowhere) as (client, receiver):
        await client.apply(shop)
        assert state((await client.start("k")).run) == "COMPLETED"
        await receiver.kinds("RunStarted", "RunEnded")
    connection = await asyncpg.connect(database_url)
    assert await connection.fetchval("SELECT count(*) FROM outbox WHERE type LIKE '%.Run%'") == 2
    await connection.close()


# ------------------------------------------------------------------ what an administrator sees and decides


async def refusal(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return refused.value.code(), refused.value.details() or ""


async def test_an_administrator_lists_tests_and_decides(database_url: str, shop: Shop, tmp_path: Path):
    async with (
        telling(database_url, tmp_path, ["RunStarted"]) as (client, receiver),
        grpc.aio.insecure_channel(client.runtime.address) as channel,
    ):
        await client.apply(shop)
        webhooks = WebhookServiceStub(channel)
        receiver.script(410)
        await client.start("k")

        async def parked() -> Any:
            return (await webhooks.ListParkedWebhooks(wpb.ListParkedWebhooksRequest())).parked

        [waits] = await eventually(parked, what="the event is parked")
        assert (waits.webhook, waits.type, waits.attempts) == ("on-call", "amends.events.v1.RunStarted", 1)
        assert (waits.detail, waits.behind) == ("it answered 410", 0)
        [shown] = (await webhooks.ListWebhooks(wpb.ListWebhooksRequest())).webhooks
        assert shown.origin == f"https://localhost:{receiver.port}"
        assert "hidden" not in str(shown)
        assert (shown.parked, shown.due, shown.configured, list(shown.types)) == (1, 0, True, ["RunStarted"])

        receiver.received.clear()
        tested = await webhooks.TestWebhook(wpb.TestWebhookRequest(webhook="on-call"))
        assert (tested.delivered, tested.detail) == (True, "it answered 204")
        [test] = receiver.received
        assert (test.kind, test.event["subject"]) == ("WebhookTest", "on-call")
        assert verifies(receiver.secret, test.headers, test.body)

        decide = wpb.DecideWebhookRequest(webhook="on-call", event_id=waits.event_id, actor="ada", reason="mended")
        assert (await refusal(webhooks.DecideWebhook(decide)))[0] is grpc.StatusCode.INVALID_ARGUMENT
        decide.decision = wpb.WEBHOOK_DECISION_RETRY
        await webhooks.DecideWebhook(decide)
        await receiver.kinds("WebhookTest", "RunStarted")

        async def again() -> tuple[grpc.StatusCode, str]:
            return await refusal(webhooks.DecideWebhook(decide))

        gone = (grpc.StatusCode.FAILED_PRECONDITION, "The event is not parked, it is delivered.")
        await eventually(lambda: _equals(again, gone))
        decide.event_id = waits.event_id[:-1] + "0"
        if decide.event_id != waits.event_id:
            assert (await refusal(webhooks.DecideWebhook(decide)))[0] is grpc.StatusCode.NOT_FOUND
        unsigned = wpb.DecideWebhookRequest(webhook="on-call", event_id=waits.event_id, decision=decide.decision)
        assert (await refusal(webhooks.DecideWebhook(unsigned)))[0] is grpc.StatusCode.INVALID_ARGUMENT
        unknown = await refusal(webhooks.TestWebhook(wpb.TestWebhookRequest(webhook="nobody")))
        assert unknown[0] is grpc.StatusCode.NOT_FOUND

        since = Timestamp()
        since.FromDatetime(datetime.now(UTC) - timedelta(hours=1))
        replay = wpb.ReplayWebhookRequest(webhook="on-call", since=since, actor="ada", reason="they lost it")
        assert (await webhooks.ReplayWebhook(replay)).events == 1
        await receiver.kinds("WebhookTest", "RunStarted", "RunStarted")
        replay.webhook = "nobody"
        assert (await refusal(webhooks.ReplayWebhook(replay)))[0] is grpc.StatusCode.NOT_FOUND


async def _equals(ask: Any, expected: Any) -> bool:
    return bool(await ask() == expected)
