"""Under a load of searches an autoscaler adds pods of search, and of nothing else; orders are placed as before.

It takes some minutes and a server of metrics, which it installs: SCALING=1 make test-kind ARGS="-k scaling".
"""

import asyncio
import json
import os
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from amends_demo.shop import Shop

from .cluster import Clone, Trickle, say, until

pytestmark = [
    pytest.mark.kind,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.environ.get("SCALING") != "1", reason="takes minutes more: SCALING=1 runs it"),
]

METRICS_SERVER = Path(__file__).with_name("metrics-server.yaml")
SCALED = "autoscaling: {enabled: true, minReplicas: 1, maxReplicas: 3}\n"
LOAD = """
import asyncio, grpc.aio
from shop.search.v1 import search_pb2 as pb
from shop.search.v1.search_pb2_grpc import SearchServiceStub

async def main():
    options = [("grpc.lb_policy_name", "round_robin"), ("grpc.dns_min_time_between_resolutions_ms", 5000)]
    async with grpc.aio.insecure_channel("dns:///search.shop.svc.cluster.local:50051", options) as channel:
        stub = SearchServiceStub(channel)
        async def search():
            while True:
                try:
                    await stub.Search(pb.SearchRequest(query="asam"), timeout=10, wait_for_ready=True)
                except grpc.aio.AioRpcError:
                    await asyncio.sleep(0.1)
        await asyncio.gather(*(search() for _ in range(8)))

asyncio.run(main())
"""


def install_metrics_server(clone: Clone) -> None:
    """Where no registry can be reached the image is one of this machine's, and kind is given it."""
    text = METRICS_SERVER.read_text()
    (image,) = (
        document["spec"]["template"]["spec"]["containers"][0]["image"]
        for document in yaml.safe_load_all(text)
        if document["kind"] == "Deployment"
    )
    if subprocess.run(["docker", "image", "inspect", image], capture_output=True).returncode == 0:
        clone.run("kind", "load", "docker-image", image, "--name", clone.cluster.name)
    clone.kubectl("apply", "-f", "-", stdin=text)


def searching_pod(image: str) -> dict[str, Any]:
    """A pod that searches; the policies let callers with the gateway's name in."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "searching", "namespace": "shop", "labels": {"app.kubernetes.io/name": "gateway"}},
        "spec": {
            "restartPolicy": "OnFailure",
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    "name": "searching",
                    "image": image,
                    "command": ["python", "-c", LOAD],
                    "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                }
            ],
        },
    }


def replicas(clone: Clone) -> dict[str, int]:
    """How many pods each deployable of the shop has."""
    found = clone.get("deployments", "-n", "shop")["items"]
    return {one["metadata"]["name"]: one["status"].get("readyReplicas", 0) for one in found}


def shares(clone: Clone) -> list[int]:
    """How much processor time each pod of search uses, in thousandths of a core; empty while nobody knows."""
    selector = "app.kubernetes.io/name=search"
    told = clone.kubectl("top", "pods", "-n", "shop", "-l", selector, "--no-headers")
    return [int(line.split()[1].removesuffix("m")) for line in told.splitlines()]


async def test_a_load_of_searches_scales_search_and_nothing_else(clone: Clone, shop: Shop) -> None:
    install_metrics_server(clone)
    values = clone.root / "argocd" / "envs" / "kind" / "search.yaml"
    values.write_text(values.read_text() + SCALED)
    clone.commit("search: follow the load")
    clone.push()

    def measured() -> bool:
        scaler = clone.get("horizontalpodautoscaler", "search", "-n", "shop")
        return bool(scaler and scaler["status"].get("currentMetrics"))

    await until("the autoscaler knows the use of search", measured, timedelta(minutes=4))
    before = replicas(clone)
    others = [name for name in before if name != "search"]
    image = clone.get("deployment", "search", "-n", "shop")["spec"]["template"]["spec"]["containers"][0]["image"]
    clone.kubectl("apply", "-f", "-", stdin=json.dumps(searching_pod(image)))
    try:
        async with Trickle(shop, "search is under load", timedelta(seconds=1)) as orders:
            await until("search has another pod", lambda: replicas(clone)["search"] >= 2, timedelta(minutes=4))
            each = "each pod has its share: clients look for pods when a connection ends"
            await until(each, lambda: len(shares(clone)) > 1 and min(shares(clone)) > 10, timedelta(minutes=3))
            await asyncio.to_thread(say, clone.kubectl("top", "pods", "-n", "shop"))
        after = replicas(clone)
    finally:
        clone.kubectl("delete", "pod", "searching", "-n", "shop", "--grace-period=1")
    assert {name: after[name] for name in others} == {name: before[name] for name in others}
    assert not orders.failed
    assert orders.placed
