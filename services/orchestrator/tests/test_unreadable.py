"""A run that this replica cannot read is shown as its row says and decided by nobody here: another one may read it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import grpc
import pytest
from amends_testkit.answers import ScriptedAnswer

from amends.saga.v1 import run_pb2
from amends.saga.v1 import run_service_pb2 as pb

from .shop import Client, Shop, open_shop, orchestrator, state

DECLINED = ScriptedAnswer.refused(grpc.StatusCode.FAILED_PRECONDITION, text="no slot")


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    async with open_shop() as shop:
        yield shop


async def parked(client: Client, shop: Shop) -> run_pb2.Run:
    shop.shipping.script("Book", DECLINED)
    shop.payments.script("Refund", DECLINED)
    run = (await client.start("k")).run
    assert state(run) == "PARKED"
    return run


def resolve(run: run_pb2.Run, **more: object) -> pb.ResolveRunRequest:
    facts = {"resolution": pb.RESOLUTION_SKIP, "actor": "ada", "reason": "because"} | more
    return pb.ResolveRunRequest(run_id=run.run_id, expected_seq=run.parked.seq, **facts)


async def refused(call: object) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call  # type: ignore[misc]
    return error.value.code(), error.value.details() or ""


async def watched(client: Client, run: run_pb2.Run) -> list[pb.WatchRunResponse]:
    return [answer async for answer in client.runs.WatchRun(pb.WatchRunRequest(run_id=run.run_id), timeout=20)]


async def test_a_run_whose_definition_cannot_be_read_is_shown_and_not_decided(database_url: str, shop: Shop):
    async with orchestrator(database_url) as client:
        await client.apply(shop)
        run = await parked(client, shop)
    connection = await asyncpg.connect(database_url)
    await connection.execute("UPDATE definition SET bundle = 'no bundle'")
    await connection.execute("DELETE FROM saga")
    async with orchestrator(database_url) as client:
        shown = await client.run(run.run_id)
        assert (state(shown), shown.message, shown.idempotency_key) == ("PARKED", run.message, "k")
        (answer,) = await watched(client, run)
        assert (state(answer.run), answer.event.seq) == ("PARKED", 0)
        code, said = await refused(client.runs.ResolveRun(resolve(run)))
        assert (code, said.startswith("The run cannot be read here")) == (grpc.StatusCode.FAILED_PRECONDITION, True)
        code, said = await refused(client.start("k"))
        assert code is grpc.StatusCode.UNAVAILABLE, "not a refusal: the run is there"
        assert said.startswith("There is a run with this key, but it cannot be read here")
    await connection.close()


async def test_a_journal_that_cannot_be_read_is_told_as_far_as_it_can_be(database_url: str, shop: Shop):
    async with orchestrator(database_url) as client:
        await client.apply(shop)
        run = await parked(client, shop)
    connection = await asyncpg.connect(database_url)
    await connection.execute("UPDATE journal SET record = '\\xff' WHERE seq = 3")
    async with orchestrator(database_url) as client:
        *told, last = await watched(client, run)
        assert [answer.event.seq for answer in told if answer.event.seq] == [1, 2]
        assert state(last.run) == "PARKED"
    await connection.close()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"result": {}, "result_json": "{}"}, "Give result or result_json, not both."),
        ({"result_json": '"' + "x" * 300_000 + '"'}, "The result has 300,002 bytes; at most 262,144 are taken."),
        ({"result_json": '{"nothing": 1}'}, "The result does not fit: nothing:"),
        ({"result": {"nothing": 1}}, "The result does not fit: nothing:"),
        ({"result_json": "{"}, "The result does not fit:"),
    ],
)
async def test_a_result_that_is_none_is_refused_and_the_run_stays_parked(
    database_url: str, shop: Shop, given: dict[str, object], says: str
):
    async with orchestrator(database_url) as client:
        await client.apply(shop)
        run = await parked(client, shop)
        code, said = await refused(client.runs.ResolveRun(resolve(run, **given)))
        assert (code, said[: len(says)]) == (grpc.StatusCode.INVALID_ARGUMENT, says)
        assert state(await client.run(run.run_id)) == "PARKED"


async def test_a_parked_run_is_parked_already_and_not_cancelled(database_url: str, shop: Shop):
    async with orchestrator(database_url) as client:
        await client.apply(shop)
        run = await parked(client, shop)
        answer = await client.runs.ResolveRun(resolve(run, resolution=pb.RESOLUTION_PARK))
        assert state(answer.run) == "PARKED"
        cancel = pb.CancelRunRequest(run_id=run.run_id, actor="ada", reason="because")
        code, said = await refused(client.runs.CancelRun(cancel))
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert said == "The run is parked: resolve it, for example with `compensate`."
        unknown = pb.ListRunsRequest(states=[99])  # type: ignore[list-item]
        assert (await refused(client.runs.ListRuns(unknown)))[0] is grpc.StatusCode.INVALID_ARGUMENT
        wanted = pb.ListRunsRequest(states=[run_pb2.RUN_STATE_PARKED])
        assert [one.run_id for one in (await client.runs.ListRuns(wanted)).runs] == [run.run_id]
