"""Whole runs: a real orchestrator on a real Postgres, real gRPC participants that answer as scripted."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator

import grpc
import pytest
from amends_orchestrator.runner.live import LiveRun
from amends_testkit.answers import ScriptedAnswer
from amends_testkit.waiting import eventually

from .shop import Client, Shop, open_shop, orchestrator, state, states


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    async with open_shop() as shop:
        yield shop


@pytest.fixture
async def client(database_url: str, shop: Shop) -> AsyncIterator[Client]:
    async with orchestrator(database_url) as client:
        await client.apply(shop)
        yield client


async def test_an_order_goes_through_and_every_step_is_called_once(client: Client, shop: Shop):
    answer = await client.start("k")
    assert answer.created
    assert state(answer.run) == "COMPLETED"
    assert set(states(answer.run).values()) == {"DONE"}
    assert len(shop.inventory.calls("Reserve")) == len(shop.payments.calls("Charge")) == 1
    assert len(shop.shipping.calls("Book")) == len(shop.orders.calls("Confirm")) == 1
    [charge] = shop.payments.calls("Charge")
    assert charge.metadata["amends-run-id"] == answer.run.run_id
    assert charge.metadata["amends-step"] == "charge"
    assert charge.metadata["amends-operation"] == "action"
    assert charge.metadata["amends-fence"] == "1"
    shown = await client.run(answer.run.run_id)
    assert shown.input["orderId"] == "o-1"
    assert shown.input["cardToken"] == "[REDACTED]"


async def test_a_run_that_ended_leaves_the_memory_at_once_and_not_with_the_next_collection(client: Client):
    gc.disable()
    try:
        run = (await client.start("k")).run
        assert state(run) == "COMPLETED"

        def in_memory() -> bool:
            """Other tests of this process may have left theirs, whose runs did not end."""
            return any(isinstance(thing, LiveRun) and thing.info.name == run.run_id for thing in gc.get_objects())

        await eventually(lambda: not in_memory())
    finally:
        gc.enable()


async def test_a_declined_card_releases_the_reservation(client: Client, shop: Shop):
    shop.payments.script(
        "Charge", ScriptedAnswer.refused(grpc.StatusCode.FAILED_PRECONDITION, text="the card was declined")
    )
    run = (await client.start("k")).run
    assert state(run) == "COMPENSATED"
    assert run.message == "COMPENSATED: charge was rejected: the card was declined"
    assert states(run) == {"reserve": "COMPENSATED", "charge": "REJECTED", "ship": "PENDING", "confirm": "PENDING"}
    assert [call.metadata["amends-action-outcome"] for call in shop.inventory.calls("Release")] == ["ok"]
    assert [call.metadata["amends-action-outcome"] for call in shop.payments.calls("Refund")] == ["unknown"]
    assert shop.payments.effects == []


async def test_a_rejected_pivot_is_voided_before_anything_is_undone(client: Client, shop: Shop):
    shop.shipping.script("Book", ScriptedAnswer.refused(grpc.StatusCode.FAILED_PRECONDITION, text="no slot"))
    run = (await client.start("k")).run
    assert state(run) == "COMPENSATED"
    assert [call.operation for call in shop.shipping.calls("Book")] == ["action", "void"]
    kinds = [event.kind for event in await client.timeline(run.run_id)]
    assert kinds.index("DECIDED") > kinds.index("INTENT")
    undone = [method for method, _ in shop.payments.effects + shop.inventory.effects]
    assert sorted(undone) == ["Charge", "Refund", "Release", "Reserve"]


async def test_a_pivot_that_never_answered_is_not_said_to_be_rejected_and_each_of_its_calls_is_counted(
    client: Client, shop: Shop
):
    shop.shipping.script("Book", ScriptedAnswer.refused(grpc.StatusCode.UNAVAILABLE, text="away"))
    run = (await client.start("k")).run
    assert run.message == "COMPENSATED: ship did not answer: away"
    [ship] = [step for step in run.steps if step.name == "ship"]
    calls = [call for call in shop.shipping.calls("Book") if call.operation == "action"]
    assert (states(run)["ship"], ship.attempts) == ("VOIDED", len(calls))
    assert len(calls) == 3, "as often as its policy allows"


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED])
async def test_a_lost_answer_is_asked_for_again_with_the_same_key(client: Client, shop: Shop, code: grpc.StatusCode):
    """CANCELLED comes of a server that stops: it is no reason to give up."""
    shop.payments.script("Charge", ScriptedAnswer.lost(code), ScriptedAnswer.ok())
    run = (await client.start("k")).run
    assert state(run) == "COMPLETED"
    calls = shop.payments.calls("Charge")
    assert len(calls) == 2
    assert len({call.key for call in calls}) == 1
    assert len(shop.payments.effects) == 1


async def test_the_same_key_is_the_same_run_and_another_payload_is_refused(client: Client, shop: Shop):
    first = await client.start("k")
    again = await client.start("k")
    assert not again.created
    assert again.run.run_id == first.run.run_id
    assert len(shop.payments.calls("Charge")) == 1
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.start("k", json={"orderId": "another", "total": {}, "address": {}})
    assert refused.value.code() is grpc.StatusCode.ALREADY_EXISTS


async def test_the_timeline_tells_the_story_without_gaps(client: Client, shop: Shop):
    run = (await client.start("k")).run
    events = await client.timeline(run.run_id)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert [event.kind for event in events] == [
        "STARTED", "ANSWERED", "ANSWERED", "INTENT", "ANSWERED", "ANSWERED", "ENDED",
    ]  # fmt: skip
