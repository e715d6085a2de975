"""What people do with runs: resolve parked ones, cancel, park stalled ones; here and through another replica."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import grpc
import pytest
from amends_testkit.answers import ScriptedAnswer
from amends_testkit.waiting import eventually
from prometheus_client import REGISTRY

from amends.saga.v1 import run_pb2
from amends.saga.v1 import run_service_pb2 as pb

from .shop import INPUT, POLICY, Client, Shop, open_shop, orchestrator, state, states

REFUSED = ScriptedAnswer.refused(grpc.StatusCode.FAILED_PRECONDITION, text="refunds are closed")
DECLINED = ScriptedAnswer.refused(grpc.StatusCode.FAILED_PRECONDITION, text="no slot")
AWAY = ScriptedAnswer.refused(grpc.StatusCode.UNAVAILABLE, text="away")


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    async with open_shop() as shop:
        yield shop


@pytest.fixture
async def client(database_url: str, shop: Shop) -> AsyncIterator[Client]:
    async with orchestrator(database_url) as client:
        await client.apply(shop)
        yield client


async def parked(client: Client, shop: Shop, key: str = "k") -> pb.StartRunResponse:
    """A run whose refund is refused."""
    shop.shipping.script("Book", DECLINED)
    shop.payments.script("Refund", REFUSED)
    answer = await client.start(key)
    assert state(answer.run) == "PARKED", answer.run
    return answer


def resolve(run_id: str, resolution: pb.Resolution.ValueType, seq: int, **more: object) -> pb.ResolveRunRequest:
    more = {"actor": "ada", "reason": "spoke with the bank"} | more
    return pb.ResolveRunRequest(run_id=run_id, resolution=resolution, expected_seq=seq, **more)


async def refusal(call: object) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call  # type: ignore[misc]
    return refused.value.code(), refused.value.details() or ""


async def test_a_refused_refund_parks_and_retry_compensates_with_who_and_why_in_the_journal(client: Client, shop: Shop):
    run = (await parked(client, shop)).run
    assert run.parked.step == "charge"
    assert run.parked.reason == "REJECTED"
    assert set(run.parked.resolutions) == {"retry", "skip"}
    assert [(choice.resolution, choice.effect) for choice in run.parked.choices] == [("retry", ""), ("skip", "")]
    assert run.message == "PARKED: charge: REJECTED: refunds are closed"
    shop.payments.script("Refund", ScriptedAnswer.ok())
    await client.runs.ResolveRun(resolve(run.run_id, pb.RESOLUTION_RETRY, run.parked.seq))
    after = await client.ended(run.run_id)
    assert state(after) == "COMPENSATED"
    assert after.fence == 2
    [resolved] = [event for event in await client.timeline(run.run_id) if event.kind == "RESOLVED"]
    assert (resolved.actor, resolved.message) == ("ada", "retry: spoke with the bank")


async def parked_behind(client: Client, shop: Shop) -> run_pb2.Run:
    """A run whose confirmation, behind the pivot, is refused."""
    shop.orders.script(
        "Confirm", ScriptedAnswer.refused(grpc.StatusCode.FAILED_PRECONDITION, text="the order is closed")
    )
    run = (await client.start("k")).run
    assert (state(run), run.parked.step) == ("PARKED", "confirm")
    return run


async def test_behind_the_pivot_a_person_has_the_money_given_back_and_the_run_is_completed(client: Client, shop: Shop):
    run = await parked_behind(client, shop)
    assert list(run.parked.resolutions) == ["retry", "skip", "amend"]
    assert [(choice.resolution, choice.amendment) for choice in run.parked.choices][-1] == ("amend", "refund")
    assert "refund" not in states(run)
    await client.runs.ResolveRun(resolve(run.run_id, pb.RESOLUTION_AMEND, run.parked.seq, amendment="refund"))
    after = await client.ended(run.run_id)
    assert after.message == "COMPLETED (amended by a person: refund)"
    assert (after.amendment, after.skipped_by_person) == ("refund", 1)
    assert (states(after)["confirm"], states(after)["refund"]) == ("SKIPPED_BY_PERSON", "DONE")
    assert shop.orders.calls("Confirm", "void")
    [refund] = shop.payments.calls("Refund")
    [charge] = shop.payments.calls("Charge")
    assert refund.key != charge.key
    assert shop.inventory.calls("Release") == []
    [resolved] = [event for event in await client.timeline(run.run_id) if event.kind == "RESOLVED"]
    assert (resolved.actor, resolved.message) == ("ada", "amend refund: spoke with the bank")


@pytest.mark.parametrize("name", ["", "reserve", "nothing"])
async def test_an_amendment_that_is_none_is_refused_with_those_that_there_are(client: Client, shop: Shop, name: str):
    run = await parked_behind(client, shop)
    wish = resolve(run.run_id, pb.RESOLUTION_AMEND, run.parked.seq, amendment=name)
    code, message = await refusal(client.runs.ResolveRun(wish))
    assert (code, message) == (grpc.StatusCode.FAILED_PRECONDITION, "Say which amendment: refund.")
    other = resolve(run.run_id, pb.RESOLUTION_SKIP, run.parked.seq, amendment="refund")
    assert (await refusal(client.runs.ResolveRun(other)))[0] is grpc.StatusCode.INVALID_ARGUMENT


PLAIN = """
apiVersion: amends.dev/v1alpha1
kind: Saga
metadata: {name: place-order, namespace: shop}
spec:
  input: {customer: string}
  deadline: 60s
  steps:
    - name: place
      call: shop.orders.v1.OrderService/PlaceOrder
      request: "PlaceOrderRequest{customer_id: input.customer}"
      compensate:
        call: shop.orders.v1.OrderService/SetPrice
        request: "SetPriceRequest{sku: place.order.order_id}"
"""


async def test_who_has_an_effect_undone_says_what_its_compensation_needs_to_know(client: Client, shop: Shop):
    await client.apply_saga(PLAIN)
    shop.orders.script("PlaceOrder", AWAY)
    run = (await client.start("k", json={"customer": "ada"})).run
    assert (state(run), run.parked.reason) == ("PARKED", "PLAIN_IN_DOUBT")
    asked = resolve(run.run_id, pb.RESOLUTION_COMPENSATE, run.parked.seq, effect=pb.EFFECT_HAPPENED)
    code, said = await refusal(client.runs.ResolveRun(asked))
    assert (code, said) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "The compensation of place uses its response, so say what it answered.",
    )
    assert not shop.orders.calls("SetPrice")
    asked.result.update({"order": {"orderId": "o-7"}})
    await client.runs.ResolveRun(asked)
    assert state(await client.ended(run.run_id)) == "COMPENSATED"
    (undo,) = shop.orders.calls("SetPrice")
    assert undo.request.sku == "o-7"
    assert undo.metadata["amends-action-outcome"] == "ok"


async def test_skipping_voids_the_refund_first_and_the_end_says_so(client: Client, shop: Shop):
    run = (await parked(client, shop)).run
    await client.runs.ResolveRun(resolve(run.run_id, pb.RESOLUTION_SKIP, run.parked.seq))
    after = await client.ended(run.run_id)
    assert after.message.startswith("COMPENSATED (1 skipped by a person)")
    assert after.skipped_by_person == 1
    assert states(after)["charge"] == "SKIPPED_BY_PERSON"
    assert shop.payments.calls("Refund", "void")


async def test_a_decision_about_a_state_that_is_gone_is_refused(client: Client, shop: Shop):
    run = (await parked(client, shop)).run
    code, _ = await refusal(client.runs.ResolveRun(resolve(run.run_id, pb.RESOLUTION_RETRY, run.parked.seq - 1)))
    assert code is grpc.StatusCode.ABORTED
    code, text = await refusal(client.runs.ResolveRun(resolve(run.run_id, pb.RESOLUTION_COMPENSATE, run.parked.seq)))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "not possible here" in text
    code, _ = await refusal(client.runs.ResolveRun(resolve(run.run_id, pb.RESOLUTION_SKIP, run.parked.seq, reason=" ")))
    assert code is grpc.StatusCode.INVALID_ARGUMENT


async def test_two_people_who_decide_at_once_cannot_both_win(client: Client, shop: Shop):
    run = (await parked(client, shop)).run
    shop.payments.script("Refund", ScriptedAnswer.ok())
    request = resolve(run.run_id, pb.RESOLUTION_RETRY, run.parked.seq)
    answers = await asyncio.gather(*(client.runs.ResolveRun(request) for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(answer, pb.ResolveRunResponse) for answer in answers) == 1
    assert state(await client.ended(run.run_id)) == "COMPENSATED"


async def test_a_run_is_cancelled_while_it_waits_for_an_answer(client: Client, shop: Shop):
    gate = asyncio.Event()
    shop.payments.script("Charge", ScriptedAnswer.ok().once(gate))
    run = (await client.start("k", wait=False)).run
    await shop.payments.called("Charge")
    answer = await client.runs.CancelRun(
        pb.CancelRunRequest(run_id=run.run_id, actor="ada", reason="wrong address"), timeout=5
    )
    assert not answer.pending, "its owner is asked, and answers when the wish is durable: it waits for no call"
    gate.set()
    after = await client.ended(run.run_id)
    assert state(after) == "COMPENSATED"
    assert "wrong address" in after.message


async def test_a_cancel_after_the_pivots_intent_is_refused(client: Client, shop: Shop):
    gate = asyncio.Event()
    shop.orders.script("Confirm", ScriptedAnswer.ok().once(gate))
    run = (await client.start("k", wait=False)).run
    await shop.orders.called("Confirm")
    code, _ = await refusal(client.runs.CancelRun(pb.CancelRunRequest(run_id=run.run_id, actor="a", reason="b")))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    gate.set()
    assert state(await client.ended(run.run_id)) == "COMPLETED"
    code, text = await refusal(client.runs.CancelRun(pb.CancelRunRequest(run_id=run.run_id, actor="a", reason="b")))
    assert (code, text) == (grpc.StatusCode.FAILED_PRECONDITION, "The run has ended: COMPLETED.")
    code, text = await refusal(client.runs.ResolveRun(resolve(run.run_id, pb.RESOLUTION_RETRY, 0)))
    assert (code, text) == (grpc.StatusCode.FAILED_PRECONDITION, "The run has ended: COMPLETED.")


async def test_who_decides_about_a_run_that_waits_and_is_not_parked_is_told_what_there_is_to_do(
    client: Client, shop: Shop
):
    gate = asyncio.Event()
    shop.payments.script("Charge", ScriptedAnswer.ok().once(gate))
    run = (await client.start("k", wait=False)).run
    await shop.payments.called("Charge")
    code, text = await refusal(client.runs.ResolveRun(resolve(run.run_id, pb.RESOLUTION_SKIP, 0)))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert text == "The run is RUNNING and not parked: retry it now, park it first, or wait for its next attempt."
    code, _ = await refusal(client.runs.ResolveRun(resolve(run.run_id, pb.RESOLUTION_RETRY, 3)))
    assert code is grpc.StatusCode.ABORTED, "who has seen it parked was not fast enough"
    gate.set()
    assert state(await client.ended(run.run_id)) == "COMPLETED"


PATIENT = POLICY.replace("initial: 10ms, max: 50ms", "initial: 10m, max: 10m")
SOON = 5
"""Seconds within which a run ends once it is retried: far less than what it would wait for its next attempt."""


@pytest.mark.parametrize("owner", ["this replica", "another replica", "nobody"])
async def test_a_run_that_waits_is_tried_once_when_a_person_says_so(database_url: str, shop: Shop, owner: str):
    after = timedelta(milliseconds=20) if owner == "nobody" else timedelta(hours=1)
    away = AWAY.asking_for(timedelta(minutes=5))
    shop.payments.script("Charge", away, away, ScriptedAnswer.ok())
    async with orchestrator(database_url, passivate_after=after) as client, orchestrator(database_url) as second:
        await client.apply(shop, policy=PATIENT)
        run = (await client.start("k", wait=False)).run
        asked = second if owner == "another replica" else client

        async def waits(attempts: int) -> bool:
            step = (await client.run(run.run_id)).steps[1]
            return step.attempts == attempts and (owner != "nobody" or not client.parts.fleet.runs)

        for attempts in (1, 2):
            await eventually(lambda attempts=attempts: waits(attempts))
            answer = await asked.runs.ResolveRun(resolve(run.run_id, pb.RESOLUTION_RETRY, 0), timeout=SOON)
            assert not answer.pending
        async with asyncio.timeout(SOON):
            assert state(await client.ended(run.run_id)) == "COMPLETED"
        assert len(shop.payments.calls("Charge")) == 3


async def test_a_retry_that_names_no_record_does_not_decide_about_a_parked_run(client: Client, shop: Shop):
    run = (await parked(client, shop)).run
    code, text = await refusal(client.runs.ResolveRun(resolve(run.run_id, pb.RESOLUTION_RETRY, 0)))
    assert (code, "parked" in text) == (grpc.StatusCode.ABORTED, True)
    assert state(await client.run(run.run_id)) == "PARKED"


async def test_the_time_for_which_a_run_was_parked_is_added_to_its_deadline(
    client: Client, shop: Shop, database_url: str
):
    shop.shipping.script("Book", DECLINED)
    shop.payments.script("Refund", REFUSED)
    before = (await client.start("k")).run
    assert state(before) == "PARKED"
    await client.runs.ResolveRun(resolve(before.run_id, pb.RESOLUTION_RETRY, before.parked.seq))
    after = await client.ended(before.run_id)
    watch = client.runs.WatchRun(pb.WatchRunRequest(run_id=before.run_id, after_seq=before.parked.seq))
    resolved = (await anext(aiter(watch))).event
    watch.cancel()
    parked_for = resolved.at.ToDatetime() - before.parked.since.ToDatetime()
    assert parked_for > timedelta(0)
    assert after.deadline.ToDatetime() - before.deadline.ToDatetime() == parked_for


async def test_another_replica_passes_a_cancel_on_to_the_owner(client: Client, shop: Shop, database_url: str):
    gate = asyncio.Event()
    shop.payments.script("Charge", ScriptedAnswer.ok().once(gate))
    run = (await client.start("k", wait=False)).run
    await shop.payments.called("Charge")
    async with orchestrator(database_url) as other:
        request = pb.CancelRunRequest(run_id=run.run_id, actor="ada", reason="elsewhere")
        await other.runs.CancelRun(request, timeout=10)
        gate.set()
        assert state(await other.ended(run.run_id)) == "COMPENSATED"


async def test_a_stalled_run_says_why_and_can_be_parked_and_resolved(database_url: str, shop: Shop):
    saga = (
        "apiVersion: amends.dev/v1alpha1\nkind: Saga\nmetadata: {name: slow, namespace: shop}\n"
        "spec:\n  input: {order_id: string, card_token: string, "
        "lines: repeated shop.types.v1.Line, total: shop.types.v1.Money}\n"
        "  deadline: 60s\n  stalledAfter: 100ms\n  steps:\n"
        "    - name: reserve\n      call: shop.inventory.v1.InventoryService/Reserve\n"
        '      request: "ReserveRequest{order_id: input.order_id, lines: input.lines}"\n'
        "      compensate:\n        call: shop.inventory.v1.InventoryService/Release\n"
        '        request: "ReleaseRequest{order_id: input.order_id}"\n'
        "    - name: charge\n      call: shop.payments.v1.PaymentService/Charge\n"
        '      request: "ChargeRequest{order_id: input.order_id, amount: input.total, card_token: input.card_token}"\n'
        "      compensate:\n        call: shop.payments.v1.PaymentService/Refund\n"
        '        request: "RefundRequest{order_id: input.order_id}"\n'
    )
    shop.payments.script("Charge", DECLINED)
    shop.inventory.script("Release", AWAY)
    async with orchestrator(database_url) as client:
        await client.apply(shop, saga)
        order = {key: INPUT[key] for key in ("orderId", "lines", "total", "cardToken")}
        run = (await client.start("k", saga="slow", wait=False, json=order)).run

        async def stalled() -> bool:
            return (await client.run(run.run_id)).HasField("stalled")

        await eventually(stalled)
        shown = await client.run(run.run_id)
        assert shown.stalled.step == "reserve"
        assert "away" in shown.stalled.reason

        async def listed() -> bool:
            found = await client.runs.ListRuns(pb.ListRunsRequest(stalled=True))
            return [item.run_id for item in found.runs] == [run.run_id]

        await eventually(listed)
        answer = await client.runs.ResolveRun(resolve(run.run_id, pb.RESOLUTION_PARK, 0), timeout=15)
        assert state(answer.run) == "PARKED"
        shop.inventory.script("Release", ScriptedAnswer.ok())
        await client.runs.ResolveRun(resolve(run.run_id, pb.RESOLUTION_RETRY, answer.run.parked.seq))
        assert state(await client.ended(run.run_id)) == "COMPENSATED"


async def test_a_run_that_is_not_stalled_cannot_be_parked(client: Client, shop: Shop):
    gate = asyncio.Event()
    shop.payments.script("Charge", ScriptedAnswer.ok().once(gate))
    run = (await client.start("k", wait=False)).run
    await shop.payments.called("Charge")
    code, _ = await refusal(client.runs.ResolveRun(resolve(run.run_id, pb.RESOLUTION_PARK, 0)))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    gate.set()
    assert state(await client.ended(run.run_id, timedelta(seconds=10))) == "COMPLETED"


async def test_unknown_runs_and_odd_ids_are_not_found(client: Client):
    for run_id in ("", "x", "018f0000-0000-7000-8000-000000000000"):
        code, _ = await refusal(client.runs.CancelRun(pb.CancelRunRequest(run_id=run_id, actor="a", reason="b")))
        assert code is grpc.StatusCode.NOT_FOUND


async def test_runs_that_end_or_are_parked_are_counted_by_their_state(client: Client, shop: Shop):
    def counted() -> dict[str, float]:
        names = ("COMPLETED", "COMPENSATED", "PARKED", "RUNNING")
        labels = {"namespace": "shop", "saga": "place-order"}
        return {
            name: REGISTRY.get_sample_value("amends_runs_ended_total", labels | {"state": name}) or 0 for name in names
        }

    before = counted()
    await client.start("completed")
    shop.shipping.script("Book", DECLINED)
    await client.start("compensated")
    await parked(client, shop, "parked")
    after = counted()
    assert {name: after[name] - before[name] for name in after} == {
        "COMPLETED": 1,
        "COMPENSATED": 1,
        "PARKED": 1,
        "RUNNING": 0,
    }


async def test_who_watches_sees_the_run_as_it_was_at_each_change_of_its_state(client: Client, shop: Shop):
    shop.shipping.script("Book", DECLINED)
    run = (await client.start("k")).run
    answers = [answer async for answer in client.runs.WatchRun(pb.WatchRunRequest(run_id=run.run_id))]
    shown = [answer.run for answer in answers if answer.HasField("run")]
    assert [state(one) for one in shown][:2] == ["RUNNING", "COMPENSATING"]
    assert state(shown[-1]) == "COMPENSATED"
    assert all(
        one.seq == answer.event.seq for one, answer in zip(shown[:2], answers, strict=False) if one is answer.run
    )
    assert [len(one.steps) for one in shown] == [4] * len(shown)
    assert states(shown[0])["charge"] == "PENDING"
    assert states(shown[-1])["charge"] == "COMPENSATED"
