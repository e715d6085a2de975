"""A caller's key: whoever asks again gets the run, and is never told that it is not there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from hashlib import sha256

import asyncpg
import grpc
import pytest
from amends_orchestrator.journal.batch import StartAnswer
from amends_orchestrator.runner.fleet import Limits
from amends_saga.journal import idempotency_key
from amends_testkit.answers import ScriptedAnswer
from amends_testkit.waiting import eventually

from amends.saga.v1 import definition_service_pb2 as dpb
from amends.saga.v1 import run_service_pb2 as pb

from .journal_helpers import Journal
from .shop import EXAMPLE, Client, Shop, open_shop, orchestrator, state

GIVEN = {"orderId": "o-1", "note": "leave it at the door"}


def saga(name: str = "stock", *, fields: str = "order_id: string, note: string") -> str:
    return (
        f"apiVersion: amends.dev/v1alpha1\nkind: Saga\nmetadata: {{name: {name}, namespace: shop}}\n"
        f"spec:\n  input: {{{fields}}}\n  steps:\n"
        "    - name: reserve\n      call: shop.inventory.v1.InventoryService/Reserve\n"
        '      request: "ReserveRequest{order_id: input.order_id}"\n'
        "      compensate:\n        call: shop.inventory.v1.InventoryService/Release\n"
        '        request: "ReleaseRequest{order_id: input.order_id}"\n'
    )


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    async with open_shop() as shop:
        yield shop


@pytest.fixture
async def client(database_url: str, shop: Shop) -> AsyncIterator[Client]:
    async with orchestrator(database_url) as client:
        await client.apply(shop, saga())
        yield client


async def refused(client: Client, key: str, given: dict[str, str], name: str = "stock") -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.start(key, saga=name, json=given)
    return caught.value.code()


async def test_the_same_start_is_answered_with_its_run_whatever_became_of_the_saga(client: Client, shop: Shop):
    async def the_same(new: grpc.StatusCode | None, given: dict[str, str] = GIVEN) -> None:
        """The old key has its run, with the old input alone; a new key is refused."""
        again = await client.start("k", saga="stock", json=GIVEN)
        assert (again.created, again.run.run_id, state(again.run)) == (False, first.run.run_id, "COMPLETED")
        assert await refused(client, "k", GIVEN | {"note": "ring twice"}) is grpc.StatusCode.ALREADY_EXISTS
        if new is not None:
            assert await refused(client, "new", given) is new

    first = await client.start("k", saga="stock", json=GIVEN)
    assert (first.created, state(first.run)) == (True, "COMPLETED")
    await client.apply_saga(saga(fields="note: string, order_id: string"))  # other numbers, so other bytes
    await the_same(None)
    await client.apply_saga(saga(fields="order_id: string"))
    await the_same(grpc.StatusCode.INVALID_ARGUMENT)
    await client.apply_saga(saga("other"))
    assert await refused(client, "k", GIVEN, "other") is grpc.StatusCode.ALREADY_EXISTS
    client.parts.fleet.limits = Limits(backlog=0)
    await the_same(grpc.StatusCode.UNAVAILABLE, {"orderId": "o"})
    client.parts.fleet.limits = Limits()
    await client.definitions.DeleteParticipant(dpb.DeleteParticipantRequest(namespace="shop", name="inventory"))
    await the_same(grpc.StatusCode.FAILED_PRECONDITION, {"orderId": "o"})
    await client.definitions.DeleteSaga(dpb.DeleteSagaRequest(namespace="shop", name="stock"))
    await the_same(grpc.StatusCode.NOT_FOUND)
    assert len(shop.inventory.calls("Reserve")) == 1


async def test_a_run_under_way_is_found_and_waited_for_after_its_saga_was_deleted(client: Client, shop: Shop):
    shop.inventory.script("Reserve", ScriptedAnswer.ok().after(timedelta(milliseconds=200)))
    first = await client.start("k", saga="stock", json=GIVEN, wait=False)
    await client.definitions.DeleteSaga(dpb.DeleteSagaRequest(namespace="shop", name="stock"))
    again = await client.start("k", saga="stock", json=GIVEN)
    assert (again.run.run_id, state(again.run)) == (first.run.run_id, "COMPLETED")


async def test_a_start_that_is_refused_waits_for_one_with_its_key_that_is_under_way(client: Client):
    row = client.parts.registry.sagas["shop", "stock"]
    starts = [asyncio.create_task(client.start("k", saga="stock", json=GIVEN)) for _ in range(8)]
    await eventually(lambda: client.parts.writer.backlog > 0 or bool(client.parts.fleet.runs))
    # In force now: another input. Those that have not begun yet are refused by it, and find the run under way.
    await client.apply_saga(saga(fields="order_id: string"))
    assert client.parts.registry.sagas["shop", "stock"].digest != row.digest
    starts += [asyncio.create_task(client.start("k", saga="stock", json=GIVEN)) for _ in range(8)]
    answers = await asyncio.gather(*starts)
    assert len({answer.run.run_id for answer in answers}) == 1
    assert sum(answer.created for answer in answers) == 1


async def test_a_key_belongs_to_its_namespace(client: Client, shop: Shop):
    mine = await client.start("k", saga="stock", json=GIVEN)
    grant = [text.replace("callers: [shop]", "callers: [shop, other]") for text in shop.manifests()]
    for text in grant:
        await client.definitions.ApplyParticipant(dpb.ApplyParticipantRequest(manifest=dpb.Manifest(text=text)))
    await client.apply_saga(saga().replace("namespace: shop", "namespace: other"))
    request = pb.StartRunRequest(namespace="other", saga="stock", idempotency_key="k", wait=True)
    request.json.update(GIVEN)
    theirs = await client.runs.StartRun(request, timeout=10)
    assert theirs.created
    for namespace, run in (("shop", mine.run), ("other", theirs.run)):
        found = await client.runs.GetRun(pb.GetRunRequest(namespace=namespace, idempotency_key="k"))
        assert found.run.run_id == run.run_id
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.runs.GetRun(pb.GetRunRequest(namespace="third", idempotency_key="k"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_start_whose_caller_has_given_up_is_not_sent_any_more(journal: Journal, connection: asyncpg.Connection):
    loop = asyncio.get_running_loop()
    late, timely = journal.new("late"), journal.new("timely")
    answers: dict[str, StartAnswer | Exception] = {}
    done = asyncio.Event()

    def answered(what: StartAnswer | Exception) -> None:
        answers["timely"] = what
        done.set()

    journal.writer.start(late, lambda what: answers.update(late=what), loop.time() - 0.001)
    journal.writer.start(timely, answered, loop.time() + 60)
    await asyncio.wait_for(done.wait(), 10)
    assert isinstance(answers["late"], TimeoutError)
    assert isinstance(answers["timely"], StartAnswer)
    assert await connection.fetchval("SELECT array_agg(idempotency_key) FROM run") == ["timely"]


async def test_the_key_of_a_step_cannot_be_worked_out_from_the_runs_id_and_stays_with_every_owner(
    client: Client, shop: Shop, database_url: str, connection: asyncpg.Connection
):
    await client.apply_saga((EXAMPLE / "saga.yaml").read_text())
    shop.shipping.script("Book", ScriptedAnswer.refused(grpc.StatusCode.FAILED_PRECONDITION, reason="NO_SLOT"))
    shop.payments.script(
        "Refund", ScriptedAnswer.refused(grpc.StatusCode.FAILED_PRECONDITION, reason="CLOSED"), ScriptedAnswer.ok()
    )
    run = (await client.start("k")).run
    assert state(run) == "PARKED"
    [charge, *_] = shop.payments.calls("Charge")
    secret = bytes(await connection.fetchval("SELECT secret FROM installation"))
    assert len(secret) == 32
    assert charge.key == idempotency_key(run.run_id, "charge", secret)
    assert charge.key != sha256(f"{run.run_id}/charge".encode()).hexdigest()
    async with orchestrator(database_url) as other:
        decision = pb.ResolveRunRequest(run_id=run.run_id, resolution=pb.RESOLUTION_RETRY, expected_seq=run.parked.seq)
        decision.actor, decision.reason = "ada", "open again"
        await other.runs.ResolveRun(decision, timeout=10)
        assert state(await other.ended(run.run_id)) == "COMPENSATED"
    assert {call.key for call in shop.payments.received} == {charge.key}


async def test_a_run_of_the_time_before_the_secret_keeps_its_keys(
    client: Client, shop: Shop, connection: asyncpg.Connection
):
    shop.inventory.script("Reserve", ScriptedAnswer.refused(grpc.StatusCode.UNAVAILABLE, text="away"))
    run = (await client.start("k", saga="stock", json=GIVEN, wait=False)).run
    await shop.inventory.called("Reserve")
    shop.inventory.script("Reserve", ScriptedAnswer.ok())
    # As an orchestrator before this version has left it.
    await connection.execute("UPDATE run SET rules = 1, fence = fence + 1, owner = NULL, due_at = now()")
    assert state(await client.ended(run.run_id)) == "COMPLETED"
    assert shop.inventory.received[-1].key == sha256(f"{run.run_id}/reserve".encode()).hexdigest()
