"""What the environments deploy, shown to a real API server of the version that the charts are for."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import yaml
from amends_testkit.kubernetes import HOW_TO_GET, KubectlError, Kubernetes, assets

from .conftest import ENVS, ROOT, TAGGED, Helm, pods

NAMESPACES = ("amends", "data", "gitops", "shop")
FOREIGN = ("ServiceMonitor", "PrometheusRule")
"""Kinds of the Prometheus operator, which this server does not know."""
pytestmark = pytest.mark.kubernetes
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


@pytest.fixture(scope="session")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Kubernetes]:
    """A server of its own with our kinds, and the namespaces that the environments deploy into, where pods are
    restricted."""
    programs = assets()
    if programs is None:
        pytest.skip(HOW_TO_GET)
    made = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}}
        for name in NAMESPACES
    ]
    async with await Kubernetes.start(tmp_path_factory.mktemp("charts"), programs) as server:
        await server.define(ROOT / "charts/amends-crds/templates")
        await server.kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump_all(made))
        yield server


async def try_on(cluster: Kubernetes, namespace: str, *manifests: dict[str, Any]) -> str:
    """What the server says to objects that are applied and not kept. Raises KubectlError."""
    placed = [one | {"metadata": {"namespace": namespace} | one["metadata"]} for one in manifests]
    apply = ("apply", "--server-side", "--dry-run=server", "--validate=strict", "-o", "json", "-f", "-")
    return await cluster.kubectl(*apply, stdin=yaml.safe_dump_all(placed))


@pytest.mark.parametrize("name", ENVS)
async def test_the_server_takes_every_object_of_an_environment(cluster: Kubernetes, helm: Helm, name: str) -> None:
    deploy = yaml.safe_load(ENVS[name].read_text())["deploy"]
    known = [one for one in helm.deployed(name) if one["kind"] not in FOREIGN]
    assert known
    await try_on(cluster, deploy["namespace"], *known)


@pytest.mark.parametrize("name", [name for name in ENVS if not name.endswith(("amends-crds", "sagas"))])
async def test_every_pod_is_admitted_where_pods_are_restricted(cluster: Kubernetes, helm: Helm, name: str) -> None:
    deploy = yaml.safe_load(ENVS[name].read_text())["deploy"]
    found = list(pods(helm.deployed(name)))
    assert found
    for owner, template in found:
        claimed = [{"name": "data", "emptyDir": {}}]  # of a StatefulSet, which makes a claim for each pod
        volumes = [*template["spec"].get("volumes", ()), *claimed]
        spec = template["spec"] | {"serviceAccountName": "default", "volumes": volumes}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"{owner}-try"}, "spec": spec}
        await try_on(cluster, deploy["namespace"], pod)


async def test_the_git_server_is_admitted_too(cluster: Kubernetes, helm: Helm, values) -> None:
    found = list(pods(helm.render("git-server", values(TAGGED), namespace="gitops")))
    assert found
    for _, template in found:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "git-try"}, "spec": template["spec"]}
        await try_on(cluster, "gitops", pod)


async def test_a_pod_that_is_not_restricted_is_refused(cluster: Kubernetes) -> None:
    """So that the tests above can fail."""
    bare = {"containers": [{"name": "a", "image": "python:3.13-slim"}]}
    with pytest.raises(KubectlError, match="violates PodSecurity"):
        await try_on(cluster, "shop", {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bare"}, "spec": bare})


async def test_a_field_that_kubernetes_does_not_know_is_refused(cluster: Kubernetes, helm: Helm) -> None:
    (service,) = (
        one for one in helm.deployed("kind/payments") if one["kind"] == "Service" and "clusterIP" in one["spec"]
    )
    wrong = json.loads(json.dumps(service))
    wrong["spec"]["clusterIp"] = "None"
    with pytest.raises(KubectlError, match="clusterIp"):
        await try_on(cluster, "shop", wrong)
