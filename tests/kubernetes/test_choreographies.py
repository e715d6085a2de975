"""Choreographies on a real API server: handed on to the real monitor, which reads the events of the real shop."""

import base64
from collections.abc import AsyncIterator

import pytest
import yaml
from amends_chassis.dial import dial
from amends_contracts import descriptor_set
from amends_demo.place import ShopFolder
from amends_testkit.kubernetes import Kubernetes
from amends_testkit.waiting import eventually

from amends.monitor.v1 import monitor_service_pb2 as pb
from amends.monitor.v1.monitor_service_pb2_grpc import MonitorServiceStub
from shop.types.v1.types_pb2 import FULFILMENT_CHOREOGRAPHED

from .conftest import PATIENCE, ROOT, Namespace, Platform, a_namespace, a_platform

ORDER = (ROOT / "examples/place-order/choreography.yaml").read_text()
PLACED, REFUNDED = "shop.orders.events.v1.OrderPlaced", "shop.orders.events.v1.OrderRefunded"


def choreography(name: str) -> dict:
    """The shop's choreography under another name, with the contracts in a ConfigMap."""
    document: dict = yaml.safe_load(ORDER)
    document["metadata"] = {"name": name}
    document["spec"]["descriptors"] = {"configMapRef": {"name": "shop-events", "key": "events.binpb"}}
    return document


@pytest.fixture(scope="module")
async def platform(cluster: Kubernetes, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Platform]:
    """A platform whose events are published, and read by the monitor."""
    async with a_platform(ShopFolder(tmp_path_factory.mktemp("events")), events=True) as platform:
        yield platform


@pytest.fixture(scope="module")
async def served(
    cluster: Kubernetes, platform: Platform, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Namespace]:
    """A namespace of that platform, with an operator at work."""
    async with a_namespace(cluster, platform, tmp_path_factory.mktemp("flows"), "flows") as made:
        await made.start()
        await made.install()
        yield made


@pytest.fixture
async def contracts(served: Namespace) -> AsyncIterator[Namespace]:
    """A namespace with the contracts of the events; what was made is deleted, so that nothing reads on."""
    data = base64.b64encode(descriptor_set().SerializeToString()).decode()
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "shop-events"}}
    await served.kubectl(
        "create", "-f", "-", stdin=yaml.safe_dump({**config_map, "binaryData": {"events.binpb": data}})
    )
    yield served
    await served.kubectl("delete", "choreographies", "--all")
    await served.kubectl("delete", "configmap", "shop-events")


async def flows(namespace: Namespace, name: str, **wanted: int) -> dict:
    """Waits until the status counts at least so many flows, and returns the object."""

    async def look() -> dict:
        body = await namespace.get("choreography", name)
        counts = body.get("status", {}).get("flows", {})
        return body if all(counts.get(state, 0) >= number for state, number in wanted.items()) else {}

    return await eventually(look, timeout=PATIENCE, what=f"{name} counts {wanted}")


async def test_a_choreography_is_watched_and_kubectl_tells_where_its_flows_are(contracts: Namespace) -> None:
    await contracts.apply(choreography("by-events"))
    body = await contracts.until("choreography", "by-events", "Accepted")
    held = {one["type"]: (one["status"], one["reason"]) for one in body["status"]["conditions"]}
    assert held == {"Accepted": ("True", "Accepted"), "InTime": ("True", "InTime"), "Ready": ("True", "Accepted")}
    before = body["status"]["flows"]["endedWell"]
    shop = contracts.platform.shop
    await shop.place("kubectl-by-events", fulfilment=FULFILMENT_CHOREOGRAPHED)
    await flows(contracts, "by-events", endedWell=before + 1)
    header, row = (await contracts.kubectl("get", "choreographies")).splitlines()
    assert header.split() == ["NAME", "READY", "PHASE", "RUNNING", "LATE", "WELL", "UNDONE", "AGE"]
    assert row.split()[:3] == ["by-events", "True", "Accepted"]


async def test_late_flows_are_told_and_do_not_make_it_unready(contracts: Namespace) -> None:
    document = choreography("refunded")
    document["spec"] |= {
        "participants": [{"name": "orders", "publishes": [PLACED, REFUNDED]}],
        "events": [
            {"event": PLACED, "answers": [{"by": "orders", "with": [REFUNDED], "within": "1s"}]},
            {"event": REFUNDED, "ends": "Well"},
        ],
    }
    await contracts.apply(document)
    await contracts.platform.shop.place("kubectl-late", fulfilment=FULFILMENT_CHOREOGRAPHED)
    await flows(contracts, "refunded", late=1)
    late = await contracts.condition("choreography", "refunded", "InTime", "False")
    assert late["reason"] == "Late"
    assert "kubectl amends flows --state late" in late["message"]
    await contracts.kubectl("wait", "--for=condition=Ready", "--timeout=10s", "choreography/refunded")


async def test_a_broken_one_is_refused_with_its_findings_and_what_was_watched_stays(contracts: Namespace) -> None:
    await contracts.apply(choreography("broken"))
    good = await contracts.until("choreography", "broken", "Accepted")
    document = choreography("broken")
    for event in document["spec"]["events"]:
        event.pop("undoneBy", None)
    await contracts.apply(document)
    body = await contracts.until("choreography", "broken", "Refused")
    assert {one["code"] for one in body["status"]["findings"]} == {"AM094"}
    ready = next(one for one in body["status"]["conditions"] if one["type"] == "Ready")
    assert "The version that was in force before stays in force." in ready["message"]
    assert body["status"]["digest"] == good["status"]["digest"]


async def test_contracts_that_are_missing_are_told(served: Namespace) -> None:
    await served.apply(choreography("without"))
    body = await served.until("choreography", "without", "Refused")
    assert {one["reason"] for one in body["status"]["conditions"]} == {"DescriptorsNotFound"}
    await served.kubectl("delete", "choreography", "without")


async def test_one_that_is_deleted_is_watched_no_more(contracts: Namespace) -> None:
    await contracts.apply(choreography("deleted"))
    await contracts.until("choreography", "deleted", "Accepted")
    async with dial(contracts.platform.stack.address("monitor")) as channel:
        stub = MonitorServiceStub(channel)

        async def names() -> set[str]:
            request = pb.ListChoreographiesRequest(namespace=contracts.name)
            return {one.name for one in (await stub.ListChoreographies(request, timeout=10)).choreographies}

        assert "deleted" in await names()
        await contracts.kubectl("delete", "choreography", "deleted")

        async def gone() -> bool:
            return "deleted" not in await names()

        await eventually(gone, timeout=PATIENCE, what="the monitor watches it no more")


async def test_a_suspended_one_is_left_alone(contracts: Namespace) -> None:
    document = choreography("suspended")
    document["spec"]["suspend"] = True
    await contracts.apply(document)
    body = await contracts.until("choreography", "suspended", "Suspended")
    assert "digest" not in body["status"]
