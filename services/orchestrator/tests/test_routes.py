"""What a namespace reaches a service through is pinned: nobody else can block it or take it over."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest
from amends_contracts import descriptor_set
from amends_testkit.participant import FakeParticipant
from amends_testkit.waiting import eventually

from amends.saga.v1 import definition_service_pb2 as pb

from .shop import SERVICES, Client, orchestrator, state

SAGA = """
apiVersion: amends.dev/v1alpha1
kind: Saga
metadata: {name: pay, namespace: web}
spec:
  input: {order: string}
  deadline: 5s
  steps:
    - name: pay
      pivot: true
      call: shop.payments.v1.PaymentService/Charge
      request: "ChargeRequest{order_id: input.order, card_token: 'tok'}"
"""
NAMED = SAGA.replace("  deadline", "  participants: {shop.payments.v1.PaymentService: WHOM}\n  deadline")
PARTICIPANT = """
apiVersion: amends.dev/v1alpha1
kind: Participant
metadata: {name: payments, namespace: NAMESPACE}
spec: {service: shop.payments.v1.PaymentService, target: "TARGET", methods: ["*"], callers: [shop, web]}
"""


@pytest.fixture
async def honest() -> AsyncIterator[FakeParticipant]:
    async with await FakeParticipant.start(descriptor_set(), [SERVICES["payments"]]) as participant:
        yield participant


@pytest.fixture
async def stranger() -> AsyncIterator[FakeParticipant]:
    async with await FakeParticipant.start(descriptor_set(), [SERVICES["payments"]]) as participant:
        yield participant


@pytest.fixture
async def client(database_url: str, honest: FakeParticipant) -> AsyncIterator[Client]:
    """Sagas of `web` call payments of `shop`."""
    async with orchestrator(database_url) as client:
        await put(client, honest, "shop")
        await client.apply_saga(SAGA)
        yield client


async def put(client: Client, participant: FakeParticipant, namespace: str) -> None:
    text = PARTICIPANT.replace("NAMESPACE", namespace).replace("TARGET", participant.target)
    answer = await client.definitions.ApplyParticipant(pb.ApplyParticipantRequest(manifest=pb.Manifest(text=text)))
    assert answer.accepted, answer.findings


async def delete(client: Client, namespace: str) -> None:
    request = pb.DeleteParticipantRequest(namespace=namespace, name="payments")
    assert (await client.definitions.DeleteParticipant(request)).deleted


async def apply(client: Client, text: str) -> pb.ApplySagaResponse:
    return await client.definitions.ApplySaga(pb.ApplySagaRequest(manifest=pb.Manifest(text=text)))


async def start(client: Client, key: str) -> str:
    answer = await client.start(key, saga="pay", namespace="web", json={"order": key})
    return state(answer.run)


async def is_ready(client: Client) -> bool:
    """Whether a look at the contracts finds the saga ready."""
    await client.parts.refresher.refresh()
    [saga] = (await client.definitions.ListSagas(pb.ListSagasRequest(namespace="web"))).sagas
    return saga.ready


async def is_refused(client: Client, key: str) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await start(client, key)
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    return refused.value.details() or ""


async def test_a_second_participant_for_a_service_blocks_nobody(
    client: Client, honest: FakeParticipant, stranger: FakeParticipant
):
    await put(client, stranger, "strange")
    assert await start(client, "a") == "COMPLETED"
    await client.parts.refresher.refresh()
    assert await start(client, "b") == "COMPLETED"
    assert (await apply(client, SAGA)).accepted
    assert await start(client, "c") == "COMPLETED"
    assert (len(honest.calls("Charge")), len(stranger.calls("Charge"))) == (3, 0)


async def test_a_service_that_is_away_is_not_taken_over_and_comes_back_by_its_name(
    client: Client, honest: FakeParticipant, stranger: FakeParticipant
):
    await put(client, stranger, "strange")
    await delete(client, "shop")
    assert "shop/payments" in await is_refused(client, "a")
    await client.parts.refresher.refresh()
    await is_refused(client, "b")
    again = await apply(client, SAGA)
    assert [finding.code for finding in again.findings if finding.severity == pb.SEVERITY_ERROR] == ["AM020"]
    await put(client, honest, "shop")
    await eventually(lambda: is_ready(client))
    assert await start(client, "c") == "COMPLETED"
    assert not stranger.received


async def test_a_saga_that_is_deleted_and_applied_anew_reaches_who_it_reached_before(
    client: Client, honest: FakeParticipant, stranger: FakeParticipant
):
    await put(client, stranger, "strange")
    await client.definitions.DeleteSaga(pb.DeleteSagaRequest(namespace="web", name="pay"))
    await delete(client, "shop")
    assert not (await apply(client, SAGA)).accepted
    await put(client, honest, "shop")
    assert (await apply(client, SAGA)).accepted
    assert await start(client, "a") == "COMPLETED"
    assert not stranger.received


async def test_a_saga_names_whom_it_means_when_there_are_two_from_the_beginning(
    database_url: str, honest: FakeParticipant, stranger: FakeParticipant
):
    async with orchestrator(database_url) as client:
        await put(client, stranger, "strange")
        await put(client, honest, "shop")
        refused = await apply(client, SAGA)
        assert [finding.code for finding in refused.findings if finding.severity == pb.SEVERITY_ERROR] == ["AM021"]
        assert (await apply(client, NAMED.replace("WHOM", "shop/payments"))).accepted
        assert await start(client, "a") == "COMPLETED"
        assert (len(honest.calls("Charge")), len(stranger.calls("Charge"))) == (1, 0)


async def test_a_saga_that_names_another_moves_its_namespace_there(
    client: Client, honest: FakeParticipant, stranger: FakeParticipant
):
    await put(client, stranger, "moved")
    assert (await apply(client, NAMED.replace("WHOM", "moved/payments"))).accepted
    assert await start(client, "a") == "COMPLETED"
    assert (len(honest.calls("Charge")), len(stranger.calls("Charge"))) == (0, 1)
    second = NAMED.replace("name: pay, namespace", "name: pay-too, namespace").replace("WHOM", "shop/payments")
    refused = await apply(client, second)
    [error] = [finding for finding in refused.findings if finding.severity == pb.SEVERITY_ERROR]
    assert error.message == ("Saga pay of this namespace names moved/payments for `shop.payments.v1.PaymentService`.")


async def test_the_participant_of_the_own_namespace_takes_over_from_anothers(
    client: Client, honest: FakeParticipant, stranger: FakeParticipant
):
    await put(client, stranger, "web")
    assert await start(client, "a") == "COMPLETED"
    assert len(stranger.calls("Charge")) == 1
    await delete(client, "web")
    await client.parts.refresher.refresh()
    assert await start(client, "b") == "COMPLETED", "nobody of `web` has applied a saga since: the pin is the old one"


async def test_the_own_participant_that_is_away_is_not_replaced_by_anothers(
    database_url: str, honest: FakeParticipant, stranger: FakeParticipant
):
    async with orchestrator(database_url) as client:
        await put(client, honest, "web")
        await client.apply_saga(SAGA)
        await put(client, stranger, "strange")
        assert await start(client, "a") == "COMPLETED"
        await delete(client, "web")
        assert "web/payments" in await is_refused(client, "b")
        assert not stranger.received


async def test_sagas_of_a_release_that_pinned_nothing_are_pinned_by_the_next_look(
    client: Client, honest: FakeParticipant, stranger: FakeParticipant
):
    async with client.parts._pool.acquire() as connection:
        await connection.execute("DELETE FROM route")
    await client.parts.registry.reload(force=True)

    async def is_pinned() -> bool:
        await client.parts.refresher.refresh()
        return client.parts.registry.pin("web", SERVICES["payments"]) is not None

    await eventually(is_pinned)
    await put(client, stranger, "strange")
    assert await start(client, "a") == "COMPLETED"
    assert not stranger.received
