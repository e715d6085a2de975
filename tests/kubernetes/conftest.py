"""What the operator's tests stand on: a real API server, the real orchestrator and shop, and operators as processes."""

import asyncio
import itertools
import json
import re
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from amends_demo.place import ShopFolder
from amends_demo.shop import Shop, visiting
from amends_demo.stack import SERVICES, Stack, running
from amends_embedded import Child
from amends_testkit.kube_proxy import KubeProxy
from amends_testkit.kubernetes import Kubernetes
from amends_testkit.waiting import eventually

from amends.saga.v1 import run_pb2
from amends.saga.v1 import run_service_pb2 as runs

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "kubernetes"
RULES: list[dict[str, Any]] = yaml.safe_load((ROOT / "charts/operator/values.yaml").read_text())["rbac"]["rules"]
"""What the operator's chart lets it do in a namespace that it serves."""
PATIENCE = timedelta(seconds=30)
PATIENT = json.dumps({"spec": {"timeout": "50s", "attempts": 20}})
"""Attempts for as long as a service takes to start again."""
AS_BEFORE = json.dumps({"spec": {"timeout": "2s", "attempts": 4}})
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
async def cluster(kubernetes: Kubernetes) -> Kubernetes:
    """The API server with our resources."""
    await kubernetes.define(ROOT / "charts/amends-crds/templates")
    return kubernetes


@dataclass(slots=True)
class Platform:
    """The orchestrator, the monitor and the shop."""

    stack: Stack
    shop: Shop

    async def runs(self, namespace: str) -> list[run_pb2.Run]:
        """All runs of a namespace."""
        request = runs.ListRunsRequest(namespace=namespace, page_size=1000)
        return list((await self.shop.runs.ListRuns(request, timeout=20)).runs)

    async def timeline(self, run_id: str) -> list[run_pb2.RunEvent]:
        """All records of a run that has ended."""
        call = self.shop.runs.WatchRun(runs.WatchRunRequest(run_id=run_id), timeout=20)
        return [answer.event async for answer in call if answer.HasField("event")]


@pytest.fixture(scope="session")
async def platform(cluster: Kubernetes, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Platform]:
    """Two replicas of the orchestrator, and the shop's services, with stock and without events."""
    async with a_platform(ShopFolder(tmp_path_factory.mktemp("shop")), events=False) as platform:
        yield platform


@asynccontextmanager
async def a_platform(place: ShopFolder, *, events: bool) -> AsyncIterator[Platform]:
    """Starts a platform; `events` that nobody reads would cost all tests beside it their processor."""
    async with running(place, events=events) as stack, visiting(stack) as shop:
        await shop.stock_up()
        yield Platform(stack, shop)


@dataclass(slots=True)
class Namespace:
    """A namespace of one test, and short ways to look into it."""

    cluster: Kubernetes
    platform: Platform
    name: str
    folder: Path
    operators: list[Child] = field(default_factory=list)

    async def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return await self.cluster.kubectl("-n", self.name, *arguments, stdin=stdin)

    async def apply(self, *documents: dict) -> None:
        await self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(documents))

    async def look(self, kind: str, name: str) -> dict | None:
        """An object of ours, or a ConfigMap, as it is now; None when there is none."""
        group = "/api/v1" if kind == "configmap" else "/apis/amends.dev/v1alpha1"
        plural = f"{kind.removesuffix('y')}ies" if kind.endswith("y") else f"{kind}s"
        return await self.cluster.read(f"{group}/namespaces/{self.name}/{plural}/{name}")

    async def get(self, kind: str, name: str) -> dict:
        found = await self.look(kind, name)
        assert found is not None, f"there is no {kind} {name} in {self.name}"
        return found

    async def gone(self, kind: str, name: str) -> bool:
        return await self.look(kind, name) is None

    async def until(self, kind: str, name: str, *phases: str, timeout: timedelta = PATIENCE) -> dict:
        """Waits until an object is in one of these phases for its generation, and returns it."""

        async def look() -> dict:
            body = await self.get(kind, name)
            status = body.get("status", {})
            assert status.get("phase") in phases, f"{name}: {status}"
            return body if status["observedGeneration"] == body["metadata"]["generation"] else {}

        return await eventually(look, timeout=timeout, what=f"{kind} {name} {'/'.join(phases)}")

    async def condition(self, kind: str, name: str, condition: str, status: str) -> dict:
        """Waits for a condition, and returns it."""

        async def look() -> dict:
            found = (await self.get(kind, name)).get("status", {}).get("conditions", [])
            return next((one for one in found if (one["type"], one["status"]) == (condition, status)), {})

        return await eventually(look, timeout=PATIENCE, what=f"{kind} {name} {condition}={status}")

    async def told(self, name: str, reason: str) -> int:
        """Waits for events of a reason about an object, which come after its status; how many there are."""
        flags = ("--field-selector", f"involvedObject.name={name},reason={reason}", "-o", "name")

        async def look() -> int:
            return len((await self.kubectl("get", "events", *flags)).split())

        return await eventually(look, timeout=PATIENCE, what=f"an event {reason} about {name}")

    def example(self, path: str) -> list[dict]:
        """Resources of an example, with the addresses and the namespace of this test."""
        documents = [document for document in yaml.safe_load_all((EXAMPLES / path).read_text()) if document]
        targets = {service: self.platform.stack.address(name) for name, service in SERVICES.items()}
        for document in documents:
            document["metadata"].pop("namespace", None)
            if document["kind"] == "Participant":
                document["spec"]["target"] = targets[document["spec"]["service"]]
                document["spec"]["callers"] = [self.name]
        return documents

    def run(self, example: str, name: str) -> dict:
        """A SagaRun like one of the examples, for an order of its own."""
        (document,) = self.example(f"runs/{example}.yaml")
        document["metadata"]["name"] = name
        document["spec"]["input"]["orderId"] = f"{self.name}-{name}"
        return document

    async def install(self) -> None:
        """Applies the example's participants, policies and saga, and waits for them."""
        await self.apply(
            *self.example("shop/participants.yaml"),
            *self.example("shop/retry-policies.yaml"),
            *self.example("shop/saga.yaml"),
        )
        await self.kubectl("wait", "--for=condition=Ready", "--timeout=40s", "saga,participant,retrypolicy", "--all")

    async def start(
        self, server: str = "", program: Sequence[str] = ("-m", "amends_operator"), **settings: str
    ) -> Child:
        """Starts an operator for this namespace, with the rights that its Role gives; `server` is a proxy."""
        number = next(_numbers)
        kubeconfig = self.cluster.kubeconfig("operator", server=server, namespace=self.name)
        environment = {
            "KUBECONFIG": str(kubeconfig),
            "AMENDS_NAMESPACES": self.name,
            "AMENDS_ORCHESTRATOR_TARGET": self.platform.stack.orchestrator,
            "AMENDS_MONITOR_TARGET": self.platform.stack.address("monitor"),
            "AMENDS_LOG_FORMAT": "console",
            "AMENDS_SLOWEST_LOOK": "1s",
            "AMENDS_RESYNC": "2s",
            **{f"AMENDS_{name.upper()}": value for name, value in settings.items()},
        }
        child = Child.start(
            f"operator-{number}",
            [sys.executable, *program],
            log=self.folder / f"operator-{number}.log",
            report=self.folder / f"operator-{number}.json",
            environment=environment,
        )
        self.operators.append(child)
        await child.ready()
        return child

    async def probe(self, child: Child, path: str) -> int:
        """The HTTP status of a probe."""
        address = (await child.ready())["metrics"]

        def ask() -> int:
            try:
                with urllib.request.urlopen(f"http://{address}{path}", timeout=5) as answer:
                    return int(answer.status)
            except urllib.error.HTTPError as error:
                return error.code

        return await asyncio.to_thread(ask)

    async def metric(self, operator: Child, name: str) -> float:
        """A figure that an operator gives of itself, one without labels."""
        address = (await operator.ready())["metrics"]

        def read() -> str:
            with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
                return str(answer.read().decode())

        found = re.search(rf"^amends_operator_{name} (\S+)$", await asyncio.to_thread(read), re.MULTILINE)
        assert found is not None, f"the operator says nothing of {name}"
        return float(found[1])

    async def stop(self) -> None:
        """Stops every operator of the namespace. What is in it goes with the API server."""
        for child in self.operators:
            await child.terminate(timedelta(seconds=3))
        self.operators.clear()


def granting(kind: Literal["Role", "ClusterRole"]) -> list[dict[str, Any]]:
    """What gives the operator the rights that its chart gives it: here, or in every namespace."""
    group = "rbac.authorization.k8s.io"
    named = {"apiVersion": f"{group}/v1", "metadata": {"name": "amends-operator"}}
    return [
        named | {"kind": kind, "rules": RULES},
        named
        | {
            "kind": f"{kind}Binding",
            "roleRef": {"apiGroup": group, "kind": kind, "name": "amends-operator"},
            "subjects": [{"kind": "User", "name": "operator", "apiGroup": group}],
        },
    ]


@asynccontextmanager
async def a_namespace(cluster: Kubernetes, platform: Platform, folder: Path, name: str) -> AsyncIterator[Namespace]:
    await cluster.kubectl("create", "namespace", name)
    await cluster.kubectl("-n", name, "apply", "-f", "-", stdin=yaml.safe_dump_all(granting("Role")))
    namespace = Namespace(cluster, platform, name, folder)
    try:
        yield namespace
    finally:
        await namespace.stop()


@pytest.fixture(scope="session")
async def served(
    cluster: Kubernetes, platform: Platform, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Namespace]:
    """A namespace with the example installed and an operator at work, for all tests that break neither."""
    async with a_namespace(cluster, platform, tmp_path_factory.mktemp("served"), "shop") as made:
        await made.start()
        await made.install()
        yield made


@pytest.fixture(scope="session")
async def installed(
    cluster: Kubernetes, platform: Platform, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Namespace]:
    """A namespace with the example installed; its operator is stopped again."""
    async with a_namespace(cluster, platform, tmp_path_factory.mktemp("faulty"), "faulty") as made:
        await made.start()
        await made.install()
        await made.stop()
        yield made


@pytest.fixture
async def faulty(installed: Namespace) -> AsyncIterator[Namespace]:
    """The same for one test, which starts operators of its own; they are stopped after it."""
    yield installed
    await installed.stop()


@pytest.fixture
async def proxy(cluster: Kubernetes) -> AsyncIterator[KubeProxy]:
    """What stands between an operator and the API server."""
    async with await KubeProxy.start(cluster) as started:
        yield started


@pytest.fixture
async def silent_cards(served: Namespace) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Hold every answer about tok_slow until the test calls what this yields: a run waits as long as a test needs."""
    stack = served.platform.stack
    await served.kubectl("patch", "retrypolicy", "charge", "--type=merge", "-p", PATIENT)
    await served.until("retrypolicy", "charge", "Accepted")
    stack.child("payments").kill()
    await stack.start_one("payments", {"AMENDS_SLOW_ANSWER": "10m"})

    async def answer() -> None:
        stack.child("payments").kill()
        await stack.start_one("payments")

    yield answer
    await answer()
    await served.kubectl("patch", "retrypolicy", "charge", "--type=merge", "-p", AS_BEFORE)
