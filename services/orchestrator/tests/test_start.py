"""The way in: what StartRun refuses, that a trace goes through, and that nothing is acknowledged that is not kept."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import asyncpg
import grpc
import pytest
from amends_testkit.answers import ScriptedAnswer
from amends_testkit.waiting import eventually

from amends.saga.v1 import definition_service_pb2 as dpb
from amends.saga.v1 import run_service_pb2 as pb

from .shop import INPUT, Client, Shop, open_shop, orchestrator, state

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    async with open_shop() as shop:
        yield shop


@pytest.fixture
async def client(database_url: str, shop: Shop) -> AsyncIterator[Client]:
    async with orchestrator(database_url) as client:
        await client.apply(shop)
        yield client


def start(**fields: Any) -> pb.StartRunRequest:
    request = pb.StartRunRequest(**({"namespace": "shop", "saga": "place-order", "idempotency_key": "k"} | fields))
    if "binary" not in fields and "json" not in fields:
        request.json.update(INPUT)
    return request


@pytest.mark.parametrize(
    ("fields", "code", "says"),
    [
        ({"idempotency_key": ""}, grpc.StatusCode.INVALID_ARGUMENT, "idempotency_key"),
        ({"idempotency_key": "x" * 256}, grpc.StatusCode.INVALID_ARGUMENT, "idempotency_key"),
        ({"idempotency_key": "a\0b"}, grpc.StatusCode.INVALID_ARGUMENT, "idempotency_key"),
        ({"saga": ""}, grpc.StatusCode.INVALID_ARGUMENT, "name"),
        ({"saga": "no-such"}, grpc.StatusCode.NOT_FOUND, "no such saga"),
        ({"namespace": "other"}, grpc.StatusCode.NOT_FOUND, "no such saga"),
        ({"namespace": "a\0b"}, grpc.StatusCode.INVALID_ARGUMENT, "NUL"),
        ({"binary": b"\xff\xff"}, grpc.StatusCode.INVALID_ARGUMENT, "PlaceOrderInput"),
        ({"json": {"orderID": "o"}}, grpc.StatusCode.INVALID_ARGUMENT, "orderID"),
    ],
)
async def test_a_start_that_cannot_be_is_refused_with_a_sentence(
    client: Client, fields: dict[str, Any], code: grpc.StatusCode, says: str
):
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.runs.StartRun(start(**fields), timeout=10)
    assert refused.value.code() is code
    assert says in (refused.value.details() or "")
    assert not (await client.runs.ListRuns(pb.ListRunsRequest())).runs


@pytest.mark.parametrize("sampled", ["00", "01"])
async def test_one_trace_follows_a_start_into_every_participant(client: Client, shop: Shop, sampled: str):
    header = f"00-{TRACE}-00f067aa0ba902b7-{sampled}"
    await client.runs.StartRun(start(wait=True), timeout=10, metadata=(("traceparent", header),))
    for part in shop.parts.values():
        [call] = part.received
        _, trace, _, flags = call.metadata["traceparent"].split("-")
        assert (trace, flags) == (TRACE, sampled)


async def test_a_wait_that_is_too_short_answers_with_the_run_as_it_stands(client: Client, shop: Shop):
    shop.payments.script("Charge", ScriptedAnswer.ok().after(timedelta(milliseconds=300)))
    request = start(wait=True)
    request.wait_timeout.FromTimedelta(timedelta(milliseconds=20))
    answer = await client.runs.StartRun(request, timeout=10)
    assert state(answer.run) == "RUNNING"
    assert state(await client.ended(answer.run.run_id)) == "COMPLETED"


async def test_a_run_of_another_replica_is_waited_for(client: Client, shop: Shop, database_url: str):
    shop.payments.script("Charge", ScriptedAnswer.ok().after(timedelta(milliseconds=200)))
    await client.runs.StartRun(start())
    async with orchestrator(database_url) as other:
        answer = await other.runs.StartRun(start(wait=True), timeout=10)
    assert not answer.created
    assert state(answer.run) == "COMPLETED"


async def test_a_run_is_read_by_the_key_of_its_caller(client: Client):
    started = await client.start("mine")
    found = await client.runs.GetRun(pb.GetRunRequest(namespace="shop", idempotency_key="mine"))
    assert found.run.run_id == started.run.run_id
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.runs.GetRun(pb.GetRunRequest(namespace="shop", idempotency_key="theirs"))
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_saga_whose_grant_was_taken_back_is_not_started_until_it_is_given_again(client: Client, shop: Shop):
    [payments] = [text for text in shop.manifests() if "PaymentService" in text]

    async def grant(callers: str) -> None:
        text = payments.replace("callers: [shop]", f"callers: {callers}")
        request = dpb.ApplyParticipantRequest(manifest=dpb.Manifest(text=text, source="payments.yaml"))
        assert (await client.definitions.ApplyParticipant(request)).accepted

    await grant("[other]")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.runs.StartRun(start(), timeout=10)
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "shop/payments does not list the namespace" in (refused.value.details() or "")
    assert not (await client.runs.ListRuns(pb.ListRunsRequest())).runs
    await grant("[shop]")
    assert state((await client.runs.StartRun(start(wait=True), timeout=10)).run) == "COMPLETED"


async def test_an_answer_has_as_much_of_the_timeline_as_was_asked_for(client: Client):
    answer = await client.runs.StartRun(start(wait=True, timeline=100), timeout=10)
    run_id = answer.run.run_id
    whole = await client.timeline(run_id)
    assert list(answer.timeline) == whole
    last = await client.runs.GetRun(pb.GetRunRequest(run_id=run_id, timeline=2))
    assert list(last.timeline) == whole[-2:]
    again = await client.runs.StartRun(start(timeline=1), timeout=10)
    assert (again.created, list(again.timeline)) == (False, whole[-1:])
    assert not (await client.runs.GetRun(pb.GetRunRequest(run_id=run_id))).timeline
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.runs.GetRun(pb.GetRunRequest(run_id=run_id, timeline=101))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_request_over_the_size_limit_is_never_sent_and_never_retried(client: Client, shop: Shop):
    client.parts.channels.max_message_bytes = 200
    await client.parts.registry.reload(force=True)
    answer = await client.start("k", json=INPUT | {"lines": [{"sku": "s" * 40, "quantity": 1}] * 10})
    assert state(answer.run) == "COMPENSATED"
    timeline = await client.timeline(answer.run.run_id)
    assert timeline[1].message.startswith("REQUEST_TOO_LARGE")
    assert "ATTEMPT_FAILED" not in [event.kind for event in timeline]
    assert not shop.inventory.calls("Reserve", "action")


async def test_a_run_that_is_ours_by_the_database_alone_is_not_forgotten(client: Client, shop: Shop, database_url: str):
    shop.payments.script("Charge", ScriptedAnswer.ok().after(timedelta(milliseconds=300)))
    run = (await client.start("k", wait=False)).run
    await shop.payments.called("Charge")
    live = next(iter(client.parts.fleet.runs.values()))
    live.leave()  # as after a claim whose answer was lost: the row says that it is ours, the memory does not
    del client.parts.fleet.runs[live.info.id]
    assert state(await client.ended(run.run_id)) == "COMPLETED"


async def test_a_journal_with_a_gap_is_never_run_and_visibly_stalled(client: Client, shop: Shop, database_url: str):
    shop.payments.script("Charge", ScriptedAnswer.ok().after(timedelta(milliseconds=300)))
    run = (await client.start("k", wait=False)).run
    await shop.payments.called("Charge")
    live = next(iter(client.parts.fleet.runs.values()))
    live.leave()
    del client.parts.fleet.runs[live.info.id]
    await client.parts.writer.flushed()
    connection = await asyncpg.connect(database_url)
    await connection.execute("UPDATE journal SET seq = seq + 1 WHERE seq > 1")

    async def stalled() -> bool:
        return "UNREADABLE" in (await client.run(run.run_id)).stalled.reason

    await eventually(stalled)
    await connection.close()
    assert len(shop.payments.calls("Charge")) == 1
