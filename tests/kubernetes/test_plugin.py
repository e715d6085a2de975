"""`kubectl amends` as people call it: kubectl itself, a real API server, the cluster's orchestrator behind a forward.

There is no kubelet here, so the forwarded port leads to the orchestrator directly; all else is as in any cluster. The
person who calls has the rights that the how-to names, and no others.
"""

import asyncio
import json
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from amends_testkit.waiting import eventually

from shop.payments.v1 import payments_pb2

from .conftest import EXAMPLES, Namespace

SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {
        "name": "orchestrator",
        "namespace": "amends",
        "labels": {"app.kubernetes.io/part-of": "amends", "app.kubernetes.io/name": "orchestrator"},
    },
    "spec": {"ports": [{"name": "grpc", "port": 50051}]},
}
RIGHTS = [
    {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "person"},
        "rules": [
            {"apiGroups": [""], "resources": ["services"], "verbs": ["list"]},
            {"apiGroups": ["amends.dev"], "resources": ["sagaruns"], "verbs": ["get"]},
            {"apiGroups": [""], "resources": ["pods/portforward"], "verbs": ["create"]},
        ],
    },
    {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "person"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "person"},
        "subjects": [{"kind": "User", "name": "person", "apiGroup": "rbac.authorization.k8s.io"}],
    },
]


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


@dataclass
class Person:
    """Somebody with kubectl, the plugin and a context of the namespace."""

    namespace: Namespace
    environment: dict[str, str]

    async def says(self, command: str) -> Answer:
        """Runs `kubectl amends ...`."""
        child = await asyncio.create_subprocess_exec(
            self.environment["KUBECTL"],
            "amends",
            *shlex.split(command),
            env=self.environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await child.communicate()
        return Answer(child.returncode or 0, out.decode(), err.decode())


@pytest.fixture
async def person(served: Namespace, tmp_path: Path) -> Person:
    cluster, stack = served.cluster, served.platform.stack
    if await cluster.kubectl("get", "namespace", "amends", "--ignore-not-found") == "":
        await cluster.kubectl("create", "namespace", "amends")
    await cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all([SERVICE, *RIGHTS]))
    program = tmp_path / "bin" / "kubectl"
    program.parent.mkdir()
    script = Path(__file__).with_name("without_kubelet.py")
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {script} "$@"\n')
    program.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AMENDS_")}
    environment = kept | {
        "PATH": os.pathsep.join([str(program.parent), str(Path(sys.executable).parent), os.environ["PATH"]]),
        "HOME": str(tmp_path),
        "KUBECTL": str(cluster.programs / "kubectl"),
        "KUBECONFIG": str(cluster.kubeconfig("person", namespace=served.name)),
        "FORWARDED": json.dumps({"amends/orchestrator": stack.address("orchestrator-1")}),
    }
    return Person(served, environment)


@pytest.fixture
def saga(tmp_path: Path) -> Path:
    """A file with the saga that is in force, to be changed."""
    path = tmp_path / "saga.yaml"
    path.write_text((EXAMPLES / "shop" / "saga.yaml").read_text())
    return path


def change(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new))


async def test_a_parked_run_is_found_watched_and_resolved_by_the_name_of_its_resource(
    served: Namespace, person: Person
) -> None:
    await served.apply(served.run("parked", "by-plugin"))
    await served.until("sagarun", "by-plugin", "Parked")
    shown = await person.says("get by-plugin")
    assert shown.code == 0, shown
    for part in ("PARKED", "disputed", "retry", "skip"):
        assert part in shown.out
    watched = await person.says("watch by-plugin --until-parked")
    assert "cannot be refunded" in watched.out
    close = payments_pb2.CloseDisputeRequest(order_id=f"{served.name}-by-plugin")
    await served.platform.shop.payments.CloseDispute(close, timeout=20)
    resolved = await person.says("resolve by-plugin retry --reason 'the dispute is closed' --actor grace")
    assert resolved.code == 0, resolved
    ended = await served.until("sagarun", "by-plugin", "Compensated")
    assert any("by grace" in line and "the dispute is closed" in line for line in ended["status"]["timeline"])
    story = await person.says("watch by-plugin")
    assert (story.code, "COMPENSATED" in story.out) == (4, True)


async def test_a_decision_that_is_not_possible_is_refused_in_words(served: Namespace, person: Person) -> None:
    await served.apply(served.run("completed", "done-already"))
    await served.until("sagarun", "done-already", "Completed")
    refused = await person.says("resolve done-already retry --reason again")
    assert (refused.code, "COMPLETED" in refused.err) == (1, True)


async def test_a_saga_is_checked_against_the_contracts_that_are_in_force(person: Person, saga: Path) -> None:
    good = await person.says(f"check {saga}")
    assert good.code == 0, good
    change(saga, "input.card_token", "input.card_tokn")
    bad = await person.says(f"check {saga}")
    assert bad.code == 1
    assert "card_tokn" in bad.out + bad.err
    assert "^" in bad.out + bad.err


async def test_a_change_is_shown_with_the_runs_that_it_leaves_alone(
    served: Namespace, person: Person, saga: Path
) -> None:
    await served.apply(served.run("parked", "in-flight"))
    digest = (await served.until("sagarun", "in-flight", "Parked"))["status"]["digest"]

    async def unchanged() -> bool:
        return "unchanged" in (await person.says(f"diff {saga}")).out

    await eventually(unchanged)
    change(saga, "deadline: 60s", "deadline: 90s")
    shown = await person.says(f"diff {saga}")
    assert shown.code == 0, shown
    for part in ("changed", "60s", "90s", digest[:12], "parked", "those in flight end as they began"):
        assert part in shown.out
    await person.says("resolve in-flight skip --reason 'by hand' --actor ada")
    await served.until("sagarun", "in-flight", "Compensated")


async def test_a_saga_is_explored_with_the_participants_that_are_in_force(person: Person, saga: Path) -> None:
    explored = await person.says(f"explore {saga} --bound owners=1 --bound crashes=0 --bound resolutions=0 -o json")
    assert explored.code == 0, explored
    (seen,) = json.loads(explored.out)
    assert (seen["saga"], seen["holds"]) == ("fulfil-order", True)


async def test_runs_of_the_contexts_namespace_are_listed_and_nothing_is_left_running(
    served: Namespace, person: Person
) -> None:
    await served.apply(served.run("completed", "listed"))
    run_id = (await served.until("sagarun", "listed", "Completed"))["status"]["runId"]
    listed = await person.says("list")
    assert listed.code == 0, listed
    assert run_id in listed.out
    assert forwards(person.environment["KUBECONFIG"], person.environment["HOME"]) == []


def forwards(*told: str) -> list[str]:
    """Return the commands that still forward ports and have all of these words in their environment."""
    found = [(_read(path), _read(path.with_name("environ"))) for path in Path("/proc").glob("[0-9]*/cmdline")]
    return [
        command for command, told_to in found if "port-forward" in command and all(part in told_to for part in told)
    ]


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # it has ended meanwhile
        return ""
