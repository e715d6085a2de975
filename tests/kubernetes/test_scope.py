"""Which namespaces are served: one, several, or all where somebody grants that; and every example as it stands."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import yaml
from amends_testkit.kubernetes import Kubernetes, assets

from amends.saga.v1 import definition_service_pb2 as pb

from .conftest import EXAMPLES, ROOT, Namespace, Platform, a_namespace, granting


@pytest.fixture(scope="module")
async def other_cluster(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Kubernetes]:
    """An API server of its own, for an operator that sees everything on it."""
    programs = assets()
    assert programs is not None
    async with await Kubernetes.start(tmp_path_factory.mktemp("scope"), programs) as server:
        await server.define(ROOT / "charts/amends-crds/templates")
        yield server


async def works(namespace: Namespace, name: str) -> None:
    await namespace.install()
    await namespace.apply(namespace.run("completed", name))
    await namespace.until("sagarun", name, "Completed")
    compiled = (await namespace.get("configmap", "amends-retry-policies"))["data"]["policies.json"]
    assert f"{namespace.name}/charge" in compiled


async def test_several_namespaces_are_served_each_with_its_own_role(
    other_cluster: Kubernetes, platform: Platform, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("several")
    async with (
        a_namespace(other_cluster, platform, folder, "left") as left,
        a_namespace(other_cluster, platform, folder, "right") as right,
        a_namespace(other_cluster, platform, folder, "beside") as beside,
    ):
        await left.start(namespaces="left,right")
        await asyncio.gather(works(left, "first"), works(right, "second"))
        await beside.apply(*beside.example("shop/participants.yaml"))
        await works(left, "third")
        assert (await beside.get("participant", "payments"))["status"] == {"observedGeneration": -1}


@pytest.fixture
async def others_stay(platform: Platform) -> AsyncIterator[None]:
    """What the other cluster's operators have in force is there again afterwards.

    An operator that serves all namespaces takes out of the orchestrator, which both clusters share here, whatever its
    own cluster does not have.
    """
    stub: Any = platform.shop.definitions
    participants = (await stub.ListParticipants(pb.ListParticipantsRequest(), timeout=10)).participants
    policies = (await stub.ListRetryPolicies(pb.ListRetryPoliciesRequest(), timeout=10)).retry_policies
    sagas = (await stub.ListSagas(pb.ListSagasRequest(), timeout=10)).sagas
    yield
    for apply, request, infos in (
        (stub.ApplyParticipant, pb.ApplyParticipantRequest, participants),
        (stub.ApplyRetryPolicy, pb.ApplyRetryPolicyRequest, policies),
        (stub.ApplySaga, pb.ApplySagaRequest, sagas),
    ):
        for info in infos:
            await apply(request(manifest=pb.Manifest(text=info.manifest), namespace=info.namespace), timeout=20)


@pytest.mark.usefixtures("others_stay")
async def test_all_namespaces_are_served_where_that_is_granted(
    other_cluster: Kubernetes, platform: Platform, tmp_path_factory: pytest.TempPathFactory
) -> None:
    await other_cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(granting("ClusterRole")))
    folder = tmp_path_factory.mktemp("all")
    async with a_namespace(other_cluster, platform, folder, "early") as early:
        await early.start(namespaces="*")
        await works(early, "one")
        async with a_namespace(other_cluster, platform, folder, "late") as late:
            await works(late, "two")


async def test_every_example_of_an_installation_is_applied_and_waited_for(served: Namespace) -> None:
    """The folder's own runs under their own names; what is waited for is what the page says."""
    runs = [yaml.safe_load(path.read_text()) for path in sorted((EXAMPLES / "runs").glob("*.yaml"))]
    for run in runs:
        run["spec"]["input"]["orderId"] = f"as-it-stands-{run['spec']['input']['orderId']}"
    await served.apply(*runs)
    await served.kubectl(
        "wait", "--for=condition=Ready", "saga/fulfil-order", "participant/inventory", "participant/payments",
        "participant/shipping", "retrypolicy/default", "retrypolicy/charge", "--timeout=30s",
    )  # fmt: skip
    names = {"completed": "order-1", "declined": "order-2", "slow": "order-4"}
    await served.kubectl(
        "wait", "--for=condition=Ended", "--timeout=40s", *(f"sagarun/{name}" for name in names.values())
    )
    await served.kubectl("wait", "--for=condition=Ready", "--timeout=10s", "sagarun/order-1", "sagarun/order-4")
    await served.kubectl("wait", "--for=condition=Stalled", "--timeout=30s", "sagarun/order-3")
    rows = (await served.kubectl("get", "sagaruns", "order-1", "order-2", "order-3", "order-4")).splitlines()[1:]
    assert [row.split()[2] for row in rows] == ["Completed", "Compensated", "Parked", "Completed"]
    await served.kubectl("annotate", "sagarun", "order-3", "amends.dev/skip=refunded by hand, ticket 4711")
    await served.until("sagarun", "order-3", "Compensated")
