"""What a customer is told agrees with what the run of the order did, whatever was lost in between."""

import asyncio

import pytest
from amends_testkit.answers import ScriptedAnswer
from amends_testkit.waiting import eventually

from amends.saga.v1 import run_pb2, run_service_pb2
from shop.orders.v1 import orders_pb2

from .conftest import EXAMPLE, Shop

SAGA = (EXAMPLE / "saga.yaml").read_text()
OTHER_INPUT = """
apiVersion: amends.dev/v1alpha1
kind: Saga
metadata: {name: place-order, namespace: shop}
spec:
  input: {order_id: string, billing: shop.types.v1.Address}
  deadline: 60s
  steps:
    - name: reserve
      call: shop.inventory.v1.InventoryService/Reserve
      request: "ReserveRequest{order_id: input.order_id, lines: []}"
      compensate:
        call: shop.inventory.v1.InventoryService/Release
        request: "ReleaseRequest{order_id: input.order_id}"
"""


async def completed(shop: Shop, order_id: str) -> bool:
    return (await shop.run(order_id)).state == run_pb2.RUN_STATE_COMPLETED


@pytest.mark.parametrize("is_old", [False, True], ids=["as it is", "an orchestrator that looks the key up last"])
async def test_an_order_whose_run_began_unheard_is_not_rejected_when_the_saga_wants_other_input(
    shop: Shop, is_old: bool
):
    booked = asyncio.Event()
    shop.neighbours["shipping"].script("Book", ScriptedAnswer.ok(tracking_id="trk-1").once(booked))
    shop.wire.loses_answers = True
    placed = await shop.place("o-1")
    assert (placed.state, placed.run_id) == (orders_pb2.ORDER_STATE_PENDING, "")
    await shop.apply_saga(OTHER_INPUT)
    shop.wire.loses_answers, shop.wire.looks_at_the_input_first = False, is_old
    await shop.make_due()

    async def follows_its_run():
        order = await shop.order("o-1")
        assert order.state == orders_pb2.ORDER_STATE_PENDING
        return order.run_id

    run_id = await eventually(follows_its_run)
    assert run_id == (await shop.run("o-1")).run_id
    assert shop.wire.started.count("o-1") > 1
    booked.set()

    async def ended():
        order = await shop.order("o-1")
        return order if order.state != orders_pb2.ORDER_STATE_PENDING else None

    order = await eventually(ended)
    assert order.state == orders_pb2.ORDER_STATE_CONFIRMED
    assert (order.tracking_id, order.payment_id) == ("trk-1", "pay-1")
    await eventually(lambda: completed(shop, "o-1"))
    assert len(shop.neighbours["payments"].effects) == 1


async def test_a_new_order_that_does_not_fit_the_saga_is_rejected_and_nothing_runs(shop: Shop):
    await shop.apply_saga(OTHER_INPUT)
    order = await shop.place("o-1")
    assert (order.state, order.reason) == (orders_pb2.ORDER_STATE_REJECTED, "the order could not be processed")
    assert shop.neighbours["inventory"].received == []


async def parked_at_confirm(shop: Shop, order_id: str) -> run_pb2.Run:
    """An order whose confirmation was refused: the run waits for a person behind the pivot."""
    await shop.apply_saga(SAGA.replace("tracking_id: ship.tracking_id", "tracking_id: ''"))
    await shop.place(order_id)

    async def parked() -> run_pb2.Run | None:
        run = await shop.run(order_id)
        return run if run.state == run_pb2.RUN_STATE_PARKED else None

    run = await eventually(parked)
    assert run is not None
    assert run.parked.step == "confirm"
    return run


@pytest.mark.parametrize("wait", [True, False], ids=["asked again and waited for", "followed up"])
async def test_an_order_whose_confirmation_a_person_skipped_is_confirmed_with_the_papers_of_its_run(
    shop: Shop, wait: bool
):
    run = await parked_at_confirm(shop, "o-1")
    await shop.database.pool.execute("UPDATE orders SET follow_up_at = now() + interval '1 hour'")
    await shop.resolve(run, run_service_pb2.RESOLUTION_SKIP)
    await eventually(lambda: completed(shop, "o-1"))
    order = await shop.place("o-1", wait=wait)

    async def confirmed():
        now = await shop.order("o-1")
        return now if now.state == orders_pb2.ORDER_STATE_CONFIRMED else None

    if not wait:
        order = await eventually(confirmed)
    assert order.state == orders_pb2.ORDER_STATE_CONFIRMED
    assert (order.tracking_id, order.payment_id) == ("trk-1", "pay-1")


async def test_an_order_that_cannot_be_confirmed_is_refunded_when_a_person_says_so(shop: Shop):
    run = await parked_at_confirm(shop, "o-1")
    assert "refund" in [choice.amendment for choice in run.parked.choices]
    await shop.resolve(run, run_service_pb2.RESOLUTION_AMEND, amendment="refund")
    await eventually(lambda: completed(shop, "o-1"))
    after = await shop.run("o-1")
    assert (after.amendment, after.message) == ("refund", "COMPLETED (amended by a person: refund)")
    assert {step.name: step.state for step in after.steps}["confirm"] == run_pb2.STEP_STATE_SKIPPED_BY_PERSON

    async def refunded():
        await shop.make_due()
        now = await shop.order("o-1")
        return now if now.state == orders_pb2.ORDER_STATE_REFUNDED else None

    order = await eventually(refunded)
    assert order is not None
    assert order.attention == "the money went back: call parcel trk-1 off, and put its stock back"
    assert [method for method, _ in shop.neighbours["payments"].effects] == ["Charge", "Refund"]


async def test_an_order_says_that_its_run_waits_for_a_person(shop: Shop):
    run = await parked_at_confirm(shop, "o-1")

    async def says_so():
        await shop.make_due()
        return (await shop.order("o-1")).attention

    assert await eventually(says_so) == f"the run {run.run_id} of this order waits for a decision"
