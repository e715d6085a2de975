"""Resources: what is refused and why, what changes nothing, and what happens when contracts change."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest
from amends_contracts import descriptor_set
from amends_orchestrator.calls.targets import TargetScope
from amends_testkit.participant import FakeParticipant
from amends_testkit.waiting import eventually
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from amends.saga.v1 import definition_service_pb2 as pb

from .shop import EXAMPLE, SERVICES, Client, Shop, open_shop, orchestrator, state

SAGA = (EXAMPLE / "saga.yaml").read_text()
PAYMENTS = """
apiVersion: amends.dev/v1alpha1
kind: Participant
metadata: {name: payments, namespace: shop}
spec: {service: shop.payments.v1.PaymentService, target: "TARGET", methods: ["*"], callers: [shop]}
"""


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    async with open_shop() as shop:
        yield shop


@pytest.fixture
async def client(database_url: str) -> AsyncIterator[Client]:
    async with orchestrator(database_url) as client:
        yield client


async def apply_saga(client: Client, text: str) -> pb.ApplySagaResponse:
    return await client.definitions.ApplySaga(pb.ApplySagaRequest(manifest=pb.Manifest(text=text, source="saga.yaml")))


async def apply_participant(client: Client, text: str, descriptors: bytes = b"") -> pb.ApplyParticipantResponse:
    manifest = pb.Manifest(text=text, source="payments.yaml")
    return await client.definitions.ApplyParticipant(
        pb.ApplyParticipantRequest(manifest=manifest, descriptors=descriptors)
    )


async def test_a_saga_without_participants_is_refused_with_all_that_is_missing(client: Client):
    answer = await apply_saga(client, SAGA)
    assert not answer.accepted
    assert answer.digest == ""
    assert {finding.code for finding in answer.findings} >= {"AM020"}
    assert all(finding.line > 0 for finding in answer.findings if finding.code == "AM020")
    assert not (await client.definitions.ListSagas(pb.ListSagasRequest())).sagas


async def test_checking_changes_nothing_and_reads_contracts_of_participants_in_the_text(client: Client, shop: Shop):
    manifests = [pb.Manifest(text=text, source=f"{n}.yaml") for n, text in enumerate([*shop.manifests(), SAGA])]
    answer = await client.definitions.CheckSaga(pb.CheckSagaRequest(manifests=manifests))
    assert [finding for finding in answer.findings if finding.severity == pb.SEVERITY_ERROR] == []
    assert not (await client.definitions.ListParticipants(pb.ListParticipantsRequest())).participants


@pytest.mark.parametrize(
    ("target", "says"),
    [("dns:///outside.example.com:80", "does not call it"), ("dns:///169.254.169.254:80", "is no target")],
)
async def test_a_participant_outside_the_allowed_targets_is_refused(client: Client, target: str, says: str):
    answer = await apply_participant(client, PAYMENTS.replace("TARGET", target))
    assert not answer.accepted
    [finding] = [finding for finding in answer.findings if finding.severity == pb.SEVERITY_ERROR]
    assert finding.line == 5
    assert says in finding.message


async def test_with_cluster_targets_this_machine_is_refused_at_apply(database_url: str, shop: Shop):
    async with orchestrator(database_url, targets=TargetScope.CLUSTER) as client:
        answer = await apply_participant(client, PAYMENTS.replace("TARGET", shop.payments.target))
        assert not answer.accepted


async def test_a_participant_without_reflection_comes_with_its_descriptors(client: Client):
    async with await FakeParticipant.start(descriptor_set(), [SERVICES["payments"]], reflect=False) as payments:
        text = PAYMENTS.replace("TARGET", payments.target)
        without = await apply_participant(client, text)
        assert without.accepted
        assert not without.participant.ready
        assert "no reflection" in without.participant.message
        given = await apply_participant(client, text, descriptor_set().SerializeToString())
        assert given.accepted
        assert given.participant.ready
        kinds = {method.name: method.kind for method in given.participant.methods}
        assert kinds["Charge"] == "guarded"


async def test_bytes_that_are_no_descriptors_are_refused(client: Client, shop: Shop):
    answer = await apply_participant(client, PAYMENTS.replace("TARGET", shop.payments.target), b"\xff\xff\xff")
    assert not answer.accepted
    assert [finding.code for finding in answer.findings] == ["AM026"]


async def test_a_method_that_has_gone_leaves_the_saga_in_force_not_ready_and_comes_back(client: Client, shop: Shop):
    await client.apply(shop)
    await shop.payments.stop()
    async with await FakeParticipant.start(without_refund(), [SERVICES["payments"]], port=port(shop)):
        saga = await refreshed(client, ready=False)
        assert "Refund" in saga.message
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.start("k")
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    await shop.payments.listen(port=port(shop))
    await refreshed(client, ready=True)
    assert state((await client.start("k")).run) == "COMPLETED"


async def test_a_participant_that_is_away_during_a_refresh_stays_as_it_was(client: Client, shop: Shop):
    await client.apply(shop)
    await shop.payments.stop()
    await client.parts.refresher.refresh()
    assert all(p.ready for p in (await client.definitions.ListParticipants(pb.ListParticipantsRequest())).participants)


async def test_a_participant_that_is_changed_while_its_service_is_away_keeps_its_contract(client: Client, shop: Shop):
    await client.apply(shop)
    await shop.payments.stop()
    changed = PAYMENTS.replace("TARGET", shop.payments.target).replace("[shop]", "[shop, other]")
    answer = await apply_participant(client, changed)
    assert (answer.participant.ready, len(answer.participant.methods) > 1) == (True, True)
    elsewhere = await apply_participant(client, changed.replace(shop.payments.target, "127.0.0.1:1"))
    assert (elsewhere.accepted, elsewhere.participant.ready) == (True, False)


async def test_what_is_applied_here_is_in_force_at_another_replica(client: Client, shop: Shop, database_url: str):
    async with orchestrator(database_url) as other:
        digest = await client.apply(shop)
        answer = await other.start("k")
        assert state(answer.run) == "COMPLETED"
        assert answer.run.digest == digest


async def test_a_new_version_is_for_new_runs_and_the_list_says_who_is_on_which(client: Client, shop: Shop):
    first = await client.apply(shop)
    second = await client.apply_saga(SAGA.replace("deadline: 60s", "deadline: 50s"))
    assert first != second
    assert (await client.start("k")).run.digest == second
    [saga] = (await client.definitions.ListSagas(pb.ListSagasRequest(namespace="shop"))).sagas
    assert (saga.digest, saga.ready, list(saga.steps)) == (second, True, ["reserve", "charge", "ship", "confirm"])


async def test_what_is_deleted_is_gone_and_deleting_again_says_so(client: Client, shop: Shop):
    await client.apply(shop)
    request = pb.DeleteSagaRequest(namespace="shop", name="place-order")
    assert (await client.definitions.DeleteSaga(request)).deleted
    assert not (await client.definitions.DeleteSaga(request)).deleted
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.start("k")
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("text", ["", ": : :", "kind: Saga", "a: [", "[1, 2]", "\x00", PAYMENTS, SAGA + "---\n" + SAGA])
async def test_a_text_that_is_not_one_saga_is_answered_with_findings(client: Client, text: str):
    answer = await apply_saga(client, text)
    assert not answer.accepted
    assert answer.findings


async def test_two_policies_for_one_method_are_listed_as_a_conflict(client: Client, shop: Shop):
    await client.apply(shop)
    text = "apiVersion: amends.dev/v1alpha1\nkind: RetryPolicy\nmetadata: {name: other, namespace: shop}\nspec: {}\n"
    answer = await client.definitions.ApplyRetryPolicy(pb.ApplyRetryPolicyRequest(manifest=pb.Manifest(text=text)))
    assert answer.accepted
    listed = (await client.definitions.ListRetryPolicies(pb.ListRetryPoliciesRequest())).retry_policies
    assert {policy.name: list(policy.conflicts) for policy in listed} == {
        "other": ["shop/quick"],
        "quick": ["shop/other"],
    }


async def refreshed(client: Client, *, ready: bool) -> pb.SagaInfo:
    """The saga once a refresh has made it ready, or not; the participant may still be coming up."""

    async def look() -> pb.SagaInfo | None:
        await client.parts.refresher.refresh()
        [saga] = (await client.definitions.ListSagas(pb.ListSagasRequest())).sagas
        return saga if saga.ready is ready else None

    saga = await eventually(look)
    assert saga is not None
    return saga


def without_refund() -> FileDescriptorSet:
    files = FileDescriptorSet()
    files.CopyFrom(descriptor_set())
    for file in files.file:
        if file.package == "shop.payments.v1":
            for service in file.service:
                kept = [method for method in service.method if method.name != "Refund"]
                del service.method[:]
                service.method.extend(kept)
    return files


def port(shop: Shop) -> int:
    return int(shop.payments.target.rpartition(":")[2])


async def test_a_service_that_nobody_serves_is_told_once_with_its_address_and_the_cause(client: Client, shop: Shop):
    away = shop.payments.target
    await shop.payments.stop()
    manifests = [pb.Manifest(text=text, source=f"{n}.yaml") for n, text in enumerate([*shop.manifests(), SAGA])]
    answer = await client.definitions.CheckSaga(pb.CheckSagaRequest(manifests=manifests))
    [finding] = [finding for finding in answer.findings if finding.severity == pb.SEVERITY_ERROR]
    assert finding.code == "AM025"
    assert finding.message.startswith(f"The descriptors of Participant shop/payments ({away}) are not known: ")
    assert "refused" in finding.message
