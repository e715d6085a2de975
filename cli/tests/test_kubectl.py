"""`kubectl amends`: finds the cluster's orchestrator, forwards a port, follows kubectl's flags, leaves nothing behind.

kubectl is a stand-in that forwards on this machine. The last tests use kubectl itself, and a real API server.
"""

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from amends_cli import cluster
from amends_cli.main import main
from amends_contracts import descriptor_set
from amends_testkit.answers import ScriptedAnswer
from amends_testkit.kubernetes import HOW_TO_GET, Kubernetes, assets
from amends_testkit.participant import FakeParticipant

from amends.events.v1 import events_service_pb2 as events
from amends.monitor.v1 import monitor_service_pb2 as monitor
from amends.saga.v1 import definition_service_pb2 as definitions
from amends.saga.v1 import run_pb2
from amends.saga.v1 import run_service_pb2 as api

from .conftest import Amends, Result

RUN = "018f0000-0000-7000-8000-000000000001"
COMPLETED = run_pb2.Run(run_id=RUN, namespace="shop", saga="pay", state=run_pb2.RUN_STATE_COMPLETED)
PAYMENTS = "shop.payments.v1.PaymentService"


def service(name: str, namespace: str = "amends", port: int = 50051, **labels: str) -> dict[str, Any]:
    ports = [{"name": "metrics", "port": 9090}, {"name": "grpc", "port": port}]
    return {"metadata": {"name": name, "namespace": namespace, "labels": labels}, "spec": {"ports": ports}}


@dataclass
class Fake:
    """What the stand-in answers, and how it was called."""

    file: Path
    state: dict[str, Any] = field(default_factory=dict)

    def set(self, **state: Any) -> None:
        self.state |= state
        self.file.write_text(json.dumps(self.state))

    @property
    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in self.file.with_suffix(".calls").read_text().splitlines()]

    def called(self, word: str) -> list[list[str]]:
        return [call for call in self.calls if word in call]


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, orchestrator: FakeParticipant) -> Fake:
    program = tmp_path / "bin" / "kubectl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).with_name("fake_kubectl.py")} "$@"\n')
    program.chmod(0o755)
    fake = Fake(tmp_path / "kubectl.json")
    fake.set(
        namespace="shop",
        services=[service("amends-orchestrator"), service("amends-operator"), service("orchestrator-headless")],
        objects={},
        targets={"service/amends-orchestrator": orchestrator.target},
    )
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_KUBECTL", str(fake.file))
    return fake


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    for name in ("AMENDS_ADDRESS", cluster.VARIABLE, cluster.NAMESPACE_VARIABLE):
        monkeypatch.setenv(name, "")  # so that what the command sets is taken back
        monkeypatch.delenv(name)
    yield
    cluster.use(None)


@pytest.fixture
def plugin(capsys: pytest.CaptureFixture[str]) -> Amends:
    """Runs `kubectl amends` with arguments."""

    async def amends(*arguments: str) -> Result:
        def call() -> int:
            try:
                main(list(arguments), program="/usr/local/bin/kubectl-amends")
            except SystemExit as end:
                return int(end.code or 0)
            return 0

        code = await asyncio.to_thread(call)
        out, err = capsys.readouterr()
        return Result(code, out, err)

    return amends


async def test_the_clusters_orchestrator_is_found_and_reached_without_a_manual_step(
    plugin, kubectl, orchestrator
) -> None:
    orchestrator.script("ListRuns", ScriptedAnswer.ok(api.ListRunsResponse(runs=[COMPLETED])))
    result = await plugin("list")
    assert (result.code, result.err) == (0, "")
    assert RUN in result.out
    assert orchestrator.calls("ListRuns")[0].request.namespace == "shop"
    (forward,) = kubectl.called("port-forward")
    assert forward == [
        *("port-forward", "--address=127.0.0.1", "--namespace=amends", "service/amends-orchestrator", ":50051")
    ]


async def test_events_are_asked_of_the_services_that_are_named(plugin, kubectl) -> None:
    topics = {name: events.TopicStatus(name=f"shop.{name}.events.v1", partitions=8) for name in ("orders", "payments")}
    async with AsyncExitStack() as stack:
        targets = {}
        for name, topic in topics.items():
            asked = await FakeParticipant.start(descriptor_set(), ["amends.events.v1.EventsService"])
            await stack.enter_async_context(asked)
            asked.script("ListTopics", ScriptedAnswer.ok(events.ListTopicsResponse(topics=[topic])))
            targets[f"service/{name}"] = asked.target
        kubectl.set(objects={f"service/{name}": service(name) for name in topics}, targets=targets)
        named = [word for name in topics for word in ("--service", f"shop/{name}")]
        result = await plugin("events", "topics", *named, "--context", "kind")
    assert result.code == 0, result
    assert [line.split()[:2] for line in result.out.splitlines()[1:]] == [
        [f"shop/{name}", f"shop.{name}.events.v1"] for name in topics
    ]
    assert [call[-2] for call in kubectl.called("port-forward")] == ["service/orders", "service/payments"]
    unnamed = await plugin("events", "topics")
    assert (unnamed.code, "--service shop/payments" in unnamed.err) == (2, True)


async def test_the_flags_of_kubectl_go_to_kubectl_wherever_they_stand(plugin, kubectl, orchestrator) -> None:
    result = await plugin("list", "--context", "kind", "--kubeconfig=/tmp/config", "-A")
    assert result.code == 0, result
    assert all(call[:2] == ["--context=kind", "--kubeconfig=/tmp/config"] for call in kubectl.calls)
    assert orchestrator.calls("ListRuns")[0].request.namespace == ""
    assert kubectl.called("config") == []


@pytest.mark.parametrize("words", [("list", "-n", "other"), ("-n", "other", "list"), ("--namespace=other", "list")])
async def test_a_namespace_that_is_given_is_taken(plugin, kubectl, orchestrator, words: tuple[str, ...]) -> None:
    await plugin(*words)
    assert orchestrator.calls("ListRuns")[0].request.namespace == "other"
    assert kubectl.called("config") == []


async def test_an_address_of_a_local_orchestrator_is_not_taken_for_the_clusters(
    plugin, kubectl, orchestrator, monkeypatch
) -> None:
    monkeypatch.setenv("AMENDS_ADDRESS", "127.0.0.1:9")
    assert (await plugin("list")).code == 0
    assert (await plugin("list", "--address", "127.0.0.1:9")).code == 3


@pytest.mark.parametrize(
    ("services", "said"),
    [
        ([], "there is no orchestrator in this cluster"),
        ([service("orchestrator", "a"), service("orchestrator", "b")], "several orchestrators: a/orchestrator, b/orch"),
    ],
)
async def test_no_orchestrator_and_too_many_are_told_with_the_way_out(plugin, kubectl, services, said: str) -> None:
    kubectl.set(services=services)
    result = await plugin("list")
    assert result.code == 1
    assert said in result.err
    assert "--orchestrator NAMESPACE/SERVICE" in result.err


async def test_the_clusters_monitor_is_found_like_its_orchestrator(plugin, kubectl) -> None:
    none = await plugin("flows")
    assert (none.code, "there is no monitor in this cluster" in none.err) == (1, True)
    async with await FakeParticipant.start(descriptor_set(), ["amends.monitor.v1.MonitorService"]) as watching:
        services = [service("amends-orchestrator"), service("monitor"), service("monitor-headless")]
        kubectl.set(services=services, targets={"service/monitor": watching.target})
        watching.script("ListFlows", ScriptedAnswer.ok(monitor.ListFlowsResponse()))
        found = await plugin("flows", "--state", "late")
        assert (found.code, found.err) == (0, "no flows\n")
        assert watching.calls("ListFlows")[0].request.namespace == "shop"


async def test_an_orchestrator_can_be_named(plugin, kubectl, orchestrator) -> None:
    kubectl.set(services=[], targets={"service/engine": orchestrator.target}, objects={})
    kubectl.set(objects={"service/engine": service("engine", "other", port=7400)})
    assert (await plugin("list", "--orchestrator", "other/engine")).code == 0
    assert kubectl.called("port-forward")[0][-2:] == ["service/engine", ":7400"]
    assert (await plugin("list", "--orchestrator=other/engine:7000")).code == 0
    assert kubectl.called("port-forward")[1][-1] == ":7000"
    assert (await plugin("list", "--orchestrator", "engine")).code == 2


async def test_what_kubectl_refuses_is_said_in_its_words(plugin, kubectl) -> None:
    kubectl.set(targets={})
    result = await plugin("list")
    assert result.code == 1
    assert "service/amends-orchestrator not found" in result.err
    assert "kubectl get pods -n amends" in result.err


async def test_without_kubectl_the_way_to_it_is_said(plugin, monkeypatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    result = await plugin("list")
    assert result.code == 1
    assert "there is no kubectl on PATH" in result.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("get", "order-7"),
        ("watch", "order-7"),
        ("resolve", "order-7", "retry", "--reason", "closed"),
        ("cancel", "order-7", "--reason", "changed"),
    ],
)
async def test_a_run_can_be_named_by_its_resource(plugin, kubectl, orchestrator, arguments: tuple[str, ...]) -> None:
    kubectl.set(objects={"sagaruns.amends.dev/order-7": {"status": {"runId": RUN}}})
    orchestrator.script("GetRun", ScriptedAnswer.ok(api.GetRunResponse(run=COMPLETED)))
    orchestrator.script("WatchRun", ScriptedAnswer.streamed(api.WatchRunResponse(run=COMPLETED)))
    result = await plugin(*arguments)
    assert result.code == 0, result
    assert {call.request.run_id for call in orchestrator.received} == {RUN}
    assert "--namespace=shop" in kubectl.called("sagaruns.amends.dev")[0]


async def test_a_resource_without_a_run_and_one_that_is_not_there_are_told_apart(plugin, kubectl) -> None:
    kubectl.set(objects={"sagaruns.amends.dev/order-7": {"status": {"message": "the orchestrator is away"}}})
    waiting, missing = await plugin("get", "order-7"), await plugin("get", "order-8")
    assert "shop/order-7 has no run yet: the orchestrator is away" in waiting.err
    assert '"order-8" not found' in missing.err
    assert (waiting.code, missing.code) == (1, 1)


async def test_watching_goes_on_through_a_new_port_when_the_pod_is_gone(
    plugin, kubectl, orchestrator, tmp_path
) -> None:
    first = api.WatchRunResponse(run=run_pb2.Run(run_id=RUN, state=run_pb2.RUN_STATE_RUNNING))
    held = asyncio.Event()
    orchestrator.script("WatchRun", ScriptedAnswer.streamed(first).once(held))
    watching = asyncio.create_task(plugin("watch", RUN))
    await orchestrator.called("WatchRun")
    orchestrator.script("WatchRun", ScriptedAnswer.streamed(api.WatchRunResponse(run=COMPLETED)))
    for forward in _running(str(tmp_path)):
        os.kill(forward, signal.SIGKILL)  # as kubectl ends when it has lost the pod
    result = await watching
    assert result.code == 0, result
    assert len(orchestrator.calls("WatchRun")) == 2
    first_forward, second_forward = (call[-1] for call in kubectl.called("port-forward"))
    assert (first_forward, second_forward.endswith(":50051")) == (":50051", True)
    assert second_forward != first_forward


async def test_nothing_is_left_running(plugin, kubectl, tmp_path: Path) -> None:
    assert (await plugin("list")).code == 0
    assert _running(str(tmp_path)) == []


def _running(folder: str) -> list[int]:
    """The ids of this test's stand-ins that still run."""
    commands = [(path, _read(path)) for path in Path("/proc").glob("[0-9]*/cmdline")]
    return [
        int(path.parent.name)
        for path, line in commands
        if "fake_kubectl" in line and folder in _read(path.with_name("environ"))
    ]


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


SAGA = """\
apiVersion: amends.dev/v1alpha1
kind: Saga
metadata: {name: pay}
spec:
  input: {order_id: string}
  deadline: 60s
  steps:
    - name: charge
      call: shop.payments.v1.PaymentService/Charge
      request: "ChargeRequest{order_id: input.order_id}"
      compensate:
        call: shop.payments.v1.PaymentService/Refund
        request: "RefundRequest{order_id: input.order_id}"
"""
TARGET = "dns:///payments.shop.svc.cluster.local:50051"
PARTICIPANT = f"""\
apiVersion: amends.dev/v1alpha1
kind: Participant
metadata: {{name: payments, namespace: shop}}
spec: {{service: {PAYMENTS}, target: "{TARGET}", methods: ["*"], callers: [shop]}}
"""


async def test_a_saga_is_explored_with_the_participants_that_are_in_force(
    plugin, kubectl, orchestrator, tmp_path
) -> None:
    target = "dns:///payments.shop.svc.cluster.local:50051"
    known = definitions.ParticipantInfo(
        namespace="shop",
        name="payments",
        service=PAYMENTS,
        target=target,
        manifest=PARTICIPANT.replace("TARGET", target),
    )
    others = definitions.ParticipantInfo(
        namespace="other", name="payments", service=PAYMENTS, target="127.0.0.1:9", manifest="spec: {callers: [shop]}"
    )
    participants = definitions.ListParticipantsResponse(participants=[known, others])
    orchestrator.script("ListParticipants", ScriptedAnswer.ok(participants))
    (tmp_path / "saga.yaml").write_text(SAGA)
    async with await FakeParticipant.start(descriptor_set(), [PAYMENTS]) as payments:
        kubectl.set(targets=kubectl.state["targets"] | {"service/payments": payments.target})
        result = await plugin("explore", "saga.yaml", "-o", "json")
    assert result.code == 0, result
    (seen,) = json.loads(result.out)
    assert (seen["namespace"], seen["saga"], seen["holds"]) == ("shop", "pay", True)
    assert "--namespace=shop" in kubectl.called("service/payments")[0]


async def test_a_saga_whose_participants_nobody_knows_is_not_explored(plugin, kubectl, orchestrator, tmp_path) -> None:
    (tmp_path / "saga.yaml").write_text(SAGA)
    result = await plugin("explore", "saga.yaml")
    assert result.code == 1
    assert f"knows no participant for {PAYMENTS}" in result.err


real = pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl on PATH")


async def real_kubectl(*arguments: str, **environment: str) -> tuple[int, str]:
    """kubectl itself, with the plugin of this environment on PATH."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    child = await asyncio.create_subprocess_exec(
        *("kubectl", *arguments),
        env=os.environ | {"PATH": path} | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    out, _ = await child.communicate()
    return child.returncode or 0, out.decode()


@real
async def test_kubectl_knows_the_plugin_and_completes_it() -> None:
    code, shown = await real_kubectl("amends", "--help")
    assert (code, shown.split()[:3]) == (0, ["Usage:", "kubectl", "amends"])
    _, words = await real_kubectl("__complete", "amends", "re")
    assert words.splitlines()[:2] == ["resolve", ":4"]
    _, words = await real_kubectl("__complete", "amends", "resolve", "some-run", "")
    assert words.splitlines()[:6] == ["retry", "skip", "compensate", "amend", "park", ":4"]


@pytest.fixture
async def own_kubernetes(tmp_path: Path) -> AsyncIterator[Kubernetes]:
    """An API server for one test: on the shared one others have an orchestrator, too."""
    programs = assets()
    if programs is None:
        pytest.skip(HOW_TO_GET)
    async with await Kubernetes.start(tmp_path / "kubernetes", programs) as server:
        yield server


async def test_an_api_server_is_asked_for_the_service_and_the_run(own_kubernetes: Kubernetes) -> None:
    crds = Path(__file__).parents[2] / "charts" / "amends-crds" / "templates"
    await own_kubernetes.define(crds)
    made = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "engine",
            "labels": {"app.kubernetes.io/part-of": "amends", "app.kubernetes.io/name": "orchestrator"},
        },
        "spec": {"ports": [{"name": "grpc", "port": 7400}]},
    }
    run = {
        "apiVersion": "amends.dev/v1alpha1",
        "kind": "SagaRun",
        "metadata": {"name": "order-7"},
        "spec": {"saga": "pay"},
        "status": {"runId": RUN},
    }
    await own_kubernetes.kubectl("create", "-f", "-", stdin=json.dumps(made))
    await own_kubernetes.kubectl("create", "-f", "-", stdin=json.dumps(run))
    await own_kubernetes.kubectl("replace", "--subresource=status", "-f", "-", stdin=json.dumps(run))
    reached = cluster.KubectlCluster((f"--kubeconfig={own_kubernetes.kubeconfig()}",))
    assert await asyncio.to_thread(reached.namespace) == "default"
    assert await asyncio.to_thread(reached.orchestrator) == cluster.Service("default", "engine", 7400)
    assert await asyncio.to_thread(reached.run_id, "default", "order-7") == RUN
