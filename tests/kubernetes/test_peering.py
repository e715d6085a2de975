"""Several instances at a time: one works, the others wait, and one of them goes on when it dies."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import yaml
from amends_embedded import Child
from amends_testkit.kube_proxy import KubeProxy
from amends_testkit.kubernetes import Kubernetes
from amends_testkit.waiting import eventually

from .conftest import ROOT, Namespace, Platform, a_namespace

TAKEN_OVER = timedelta(seconds=40)


@pytest.fixture
async def peering(
    cluster: Kubernetes, platform: Platform, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Namespace]:
    """A namespace in which instances see each other, with the rights that operator/deploy gives."""
    documents = list(yaml.safe_load_all((ROOT / "operator/deploy/peering.yaml").read_text()))
    documents[3]["subjects"] = [{"kind": "User", "name": "operator", "apiGroup": "rbac.authorization.k8s.io"}]
    await cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(documents[0]))
    await cluster.kubectl("wait", "--for=condition=Established", "crd/kopfpeerings.kopf.dev", "--timeout=30s")
    async with a_namespace(cluster, platform, tmp_path_factory.mktemp("peering"), "peering") as made:
        await made.apply(*documents[1:])
        yield made


async def works(namespace: Namespace, operator: Child, expected: bool) -> bool:
    return (await namespace.metric(operator, "active") == 1.0) is expected


async def last_seen(namespace: Namespace, priority: int) -> str:
    """When an instance gave its last sign of life."""
    records = (await namespace.cluster.get("kopfpeering", "amends-operator", "-n", namespace.name))["status"].values()
    return next(str(record["lastseen"]) for record in records if record["priority"] == priority)


async def test_one_of_several_instances_works_and_another_takes_over_when_it_dies(
    peering: Namespace, proxy: KubeProxy
) -> None:
    first = await peering.start(peering="amends-operator", peering_priority="2")
    await eventually(lambda: works(peering, first, True))
    second = await peering.start(server=proxy.url, peering="amends-operator", peering_priority="1", watch_silence="2s")
    await eventually(lambda: works(peering, second, False))
    await peering.install()
    await peering.apply(peering.run("completed", "by-the-first"))
    await peering.until("sagarun", "by-the-first", "Completed")
    assert {passing.path.split("?")[0].split("/")[2] for passing, _ in proxy.writes()} == {"kopf.dev"}

    before = await last_seen(peering, priority=1)

    async def sign_of_life() -> bool:
        return await last_seen(peering, priority=1) > before

    await eventually(sign_of_life, timeout=TAKEN_OVER)  # much longer than its watches may be silent
    assert await peering.probe(second, "/healthz") == 200
    assert await peering.probe(second, "/readyz") == 200
    first.kill()
    await peering.apply(peering.run("completed", "by-the-second"))
    await eventually(lambda: works(peering, second, True), timeout=TAKEN_OVER)
    await peering.until("sagarun", "by-the-second", "Completed")
    third = await peering.start(peering="amends-operator", peering_priority="3")
    await eventually(lambda: works(peering, second, False))
    await eventually(lambda: works(peering, third, True))
    await peering.apply(peering.run("completed", "by-the-third"))
    await peering.until("sagarun", "by-the-third", "Completed")
    await third.terminate()
    await eventually(lambda: works(peering, second, True))
    assert len(await peering.platform.runs(peering.name)) == 3
