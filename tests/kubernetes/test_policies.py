"""RetryPolicies: in force in running processes within five seconds, the most specific wins, ties on every side."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from amends_demo.shop import order
from amends_testkit.kubernetes import Kubernetes
from amends_testkit.waiting import eventually

from amends.saga.v1 import definition_service_pb2 as definitions
from amends.saga.v1 import run_pb2

from .conftest import Namespace, Platform, a_namespace

FIVE = timedelta(seconds=5)
PAYMENTS = "shop.payments.v1.PaymentService"
WITHOUT_BREAKER = {"circuitBreaker": {"minimumCalls": 1_000_000}, "budget": {"ratio": 100, "minPerSecond": 1000}}


def policy(name: str, **spec: Any) -> dict:
    return {"apiVersion": "amends.dev/v1alpha1", "kind": "RetryPolicy", "metadata": {"name": name}, "spec": spec}


def hasty(name: str, attempts: int, **selector: list[str]) -> dict:
    """A policy that tries again at once, and so often."""
    backoff = {"initial": "100ms", "max": "200ms"}
    return policy(name, selector=selector, attempts=attempts, timeout="1s", backoff=backoff, **WITHOUT_BREAKER)


async def within_five_seconds(condition: Callable[[], Awaitable[object]], since: datetime) -> None:
    await eventually(condition, timeout=FIVE)
    assert datetime.now(UTC) - since < FIVE


async def compiled(namespace: Namespace) -> dict[str, dict]:
    """What is in the ConfigMap, by name."""
    said = await namespace.kubectl("get", "configmap", "amends-retry-policies", "--ignore-not-found", "-o", "json")
    data = json.loads(said)["data"]["policies.json"] if said else '{"policies": []}'
    return {entry["name"]: entry for entry in json.loads(data)["policies"]}


async def in_force(namespace: Namespace) -> dict[str, int]:
    """The attempts of the policies that the orchestrator has, by name."""
    request = definitions.ListRetryPoliciesRequest(namespace=namespace.name)
    known = await namespace.platform.shop.definitions.ListRetryPolicies(request, timeout=10)
    return {info.name: info.attempts for info in known.retry_policies}


async def test_a_policy_is_in_force_and_compiled_within_five_seconds_and_gone_as_soon(served: Namespace) -> None:
    began = datetime.now(UTC)
    await served.apply(policy("booking", selector={"methods": ["Book"]}, timeout="1s", attempts=7))

    async def there() -> bool:
        entry = (await compiled(served)).get("shop/booking", {})
        return (await in_force(served)).get("booking") == entry.get("attempts") == 7

    await within_five_seconds(there, began)
    began = datetime.now(UTC)
    await served.kubectl("delete", "retrypolicy", "booking")

    async def gone() -> bool:
        return "booking" not in await in_force(served) and "shop/booking" not in await compiled(served)

    await within_five_seconds(gone, began)


async def test_policies_that_overlap_as_specifically_are_in_conflict_on_every_side(served: Namespace) -> None:
    await served.apply(
        policy("one", selector={"participants": ["shop.orders.v1.OrderService"], "methods": ["Confirm", "Reject"]}),
        policy("two", selector={"participants": ["a.v1.S", "shop.orders.v1.OrderService"], "methods": ["Confirm"]}),
        policy("three", selector={"participants": ["a.v1.S"], "methods": ["Confirm"]}),
        policy("apart", selector={"participants": ["a.v1.S"], "methods": ["Reject"]}),
        policy("wider", selector={"participants": ["shop.orders.v1.OrderService"]}),
    )
    against = {"one": ["shop/two"], "two": ["shop/one", "shop/three"], "three": ["shop/two"]}
    for name, others in against.items():

        async def all_are_named(name: str = name, others: list[str] = others) -> bool:
            conflicted = await served.until("retrypolicy", name, "Conflicted")
            assert conflicted["status"]["conflicts"] == others  # the others may become known one by one
            return True

        await eventually(all_are_named, what=f"the conflicts of {name}")
        assert (await served.condition("retrypolicy", name, "Conflicted", "True"))["reason"] == "SelectedTwice"
        assert (await served.condition("retrypolicy", name, "Ready", "False"))["reason"] == "SelectedTwice"
    for name in ("apart", "wider"):
        assert "conflicts" not in (await served.until("retrypolicy", name, "Accepted"))["status"]
    await served.kubectl("delete", "retrypolicy", "two")
    for name in ("one", "three"):
        await served.until("retrypolicy", name, "Accepted")
        await served.condition("retrypolicy", name, "Ready", "True")
    await served.kubectl("delete", "retrypolicy", "one", "three", "apart", "wider")


async def test_a_saga_whose_calls_two_policies_select_says_so_and_waits_until_one_goes(served: Namespace) -> None:
    await served.apply(policy("rival"))
    assert (await served.condition("saga", "fulfil-order", "Ready", "False"))["reason"] == "PolicyConflict"
    await served.kubectl("delete", "retrypolicy", "rival")
    await served.condition("saga", "fulfil-order", "Ready", "True")


@pytest.fixture(scope="module")
async def shop(
    cluster: Kubernetes, platform: Platform, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Namespace]:
    """A namespace of this module, whose policies are changed."""
    async with a_namespace(cluster, platform, tmp_path_factory.mktemp("policies"), "policies") as made:
        await made.start()
        await made.install()
        yield made


@pytest.fixture
async def no_payments(platform: Platform) -> AsyncIterator[None]:
    """Nobody answers where payments should be."""
    platform.stack.child("payments").kill()
    yield
    await platform.stack.start_one("payments")


async def run_of(namespace: Namespace, name: str) -> run_pb2.Run:
    uid = (await namespace.get("sagarun", name))["metadata"]["uid"]
    (run,) = [run for run in await namespace.platform.runs(namespace.name) if run.idempotency_key.endswith(uid)]
    return run


async def charges(namespace: Namespace, name: str) -> int:
    """How often the card was tried to be charged, as far as the journal knows."""
    run = await run_of(namespace, name)
    return next(step.attempts for step in run.steps if step.name == "charge")


async def undoing(namespace: Namespace, name: str) -> bool:
    return (await run_of(namespace, name)).state == run_pb2.RUN_STATE_COMPENSATING


async def started_and_undoing(namespace: Namespace, name: str) -> bool:
    status = (await namespace.get("sagarun", name)).get("status", {})
    return bool(status.get("runId")) and await undoing(namespace, name)


async def has(namespace: Namespace, name: str, attempts: int | None) -> bool:
    """Whether the orchestrator has a policy with so many attempts; None: or none of that name."""
    return (await in_force(namespace)).get(name) == attempts


@pytest.mark.usefixtures("no_payments")
async def test_a_run_in_flight_follows_a_changed_policy_within_five_seconds(shop: Namespace) -> None:
    await shop.apply(hasty("charge", 1000, participants=[PAYMENTS], methods=["Charge"]))
    await eventually(partial(has, shop, "charge", 1000))
    await shop.apply(shop.run("completed", "patient"))
    await shop.until("sagarun", "patient", "Running")

    async def tried_often() -> bool:
        return await charges(shop, "patient") > 5

    await eventually(tried_often)
    began = datetime.now(UTC)
    await shop.kubectl("patch", "retrypolicy", "charge", "--type=merge", "-p", '{"spec": {"attempts": 2}}')
    await within_five_seconds(lambda: undoing(shop, "patient"), began)


@pytest.mark.usefixtures("no_payments")
async def test_the_most_specific_policy_wins(shop: Namespace) -> None:
    """That of the method in the service before that of the service, that before the one of the method alone."""
    every = [
        hasty("charge", 5, participants=[PAYMENTS], methods=["Charge"]),
        hasty("payments", 4, participants=[PAYMENTS]),
        hasty("any-charge", 3, methods=["Charge"]),
        hasty("default", 2),
    ]
    await shop.apply(*every)
    for one in every:
        name, attempts = one["metadata"]["name"], one["spec"]["attempts"]
        await eventually(partial(has, shop, name, attempts))
    for one in every:
        name = f"by-{one['metadata']['name']}"
        await shop.apply(shop.run("completed", name))
        await eventually(partial(started_and_undoing, shop, name))
        assert await charges(shop, name) == one["spec"]["attempts"]
        await shop.kubectl("delete", "retrypolicy", one["metadata"]["name"])
        await eventually(partial(has, shop, one["metadata"]["name"], None))


class Noting(grpc.GenericRpcHandler):
    """Answers no call, and notes how long each would have waited."""

    def __init__(self) -> None:
        self.deadlines: list[float] = []

    def service(self, details: Any) -> Any:
        async def note(_: bytes, context: Any) -> None:
            self.deadlines.append(context.time_remaining())
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not here")

        return grpc.unary_unary_rpc_method_handler(note)


@pytest.fixture
async def noting(platform: Platform, tmp_path: Path) -> AsyncIterator[Noting]:
    """In place of the orchestrator that the orders service asks; orders mounts its policies from `tmp_path`."""
    handler = Noting()
    server = grpc.aio.server(handlers=[handler])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    platform.stack.child("orders").kill()
    told = {
        "AMENDS_ORCHESTRATOR_TARGET": f"127.0.0.1:{port}",
        "AMENDS_RETRY_POLICIES": str(tmp_path / "policies.json"),
        "AMENDS_FOLLOW_UP_EVERY": "100ms",
        "AMENDS_FOLLOW_UP_AT_MOST": "200ms",
    }
    await platform.stack.start_one("orders", told)
    yield handler
    platform.stack.child("orders").kill()
    await platform.stack.start_one("orders")
    await server.stop(None)


async def project(namespace: Namespace, folder: Path, number: int) -> None:
    """Mounts the ConfigMap as the kubelet does: a new folder, and a symbolic link swapped to it in one step."""
    data = (await namespace.get("configmap", "amends-retry-policies"))["data"]
    version = folder / f"..{number}"
    version.mkdir()
    for name, text in data.items():
        (version / name).write_text(text)
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    draft = folder / "..data_tmp"
    draft.symlink_to(version.name)
    draft.replace(folder / "..data")


async def test_a_running_service_follows_the_compiled_policies_within_five_seconds(
    served: Namespace, noting: Noting, tmp_path: Path
) -> None:
    """From kubectl apply to the calls of the orders service, which is told nothing and not started again."""
    pid = served.platform.stack.child("orders").pid

    async def applied(timeout: str, number: int) -> None:
        selector = {"participants": ["amends.saga.v1.RunService"]}
        await served.apply(policy("asking", selector=selector, timeout=timeout, attempts=1))

        async def there() -> bool:
            return (await compiled(served)).get("shop/asking", {}).get("timeout") == timeout

        await eventually(there)
        await project(served, tmp_path, number)

    await applied("3s", 1)
    await served.platform.shop.orders.PlaceOrder(order("asks", "tok_visa", country="DE", quantity=1), timeout=20)
    await eventually(lambda: noting.deadlines and 2 < noting.deadlines[-1] <= 3.1)
    await applied("40s", 2)
    changed = datetime.now(UTC)
    await eventually(lambda: noting.deadlines[-1] > 30, timeout=FIVE)
    assert datetime.now(UTC) - changed < FIVE
    assert served.platform.stack.child("orders").pid == pid
    await served.kubectl("delete", "retrypolicy", "asking")


def pod(name: str, *volumes: dict) -> dict:
    mounts = [{"name": volume["name"], "mountPath": f"/{volume['name']}"} for volume in volumes]
    container = {"name": "main", "image": "main:1", "volumeMounts": mounts}
    spec = {"containers": [container], "volumes": list(volumes)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


MOUNTED = {"name": "policies", "configMap": {"name": "amends-retry-policies"}}
PROJECTED = {"name": "policies", "projected": {"sources": [{"configMap": {"name": "amends-retry-policies"}}]}}
OTHER = {"name": "other", "configMap": {"name": "other"}}
RIGHT = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "Role",
    "metadata": {"name": "touch-pods"},
    "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "patch"]}],
}
GRANT = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "RoleBinding",
    "metadata": {"name": "touch-pods"},
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "touch-pods"},
    "subjects": [{"kind": "User", "name": "operator", "apiGroup": "rbac.authorization.k8s.io"}],
}


async def test_pods_that_mount_the_policies_are_touched_when_they_change_and_no_other_if_somebody_wants_it(
    cluster: Kubernetes, platform: Platform, tmp_path: Path
) -> None:
    async def told() -> dict[str, str]:
        items = (await cluster.get("-n", "touching", "pods"))["items"]
        return {
            item["metadata"]["name"]: item["metadata"]["annotations"]["amends.dev/policy"]
            for item in items
            if "amends.dev/policy" in item["metadata"].get("annotations", {})
        }

    async with a_namespace(cluster, platform, tmp_path, "touching") as namespace:
        await namespace.apply(
            pod("mounts", MOUNTED), pod("projects", OTHER, PROJECTED), pod("other", OTHER), pod("none")
        )
        await namespace.apply(policy("first", attempts=2))
        await namespace.start()
        await eventually(lambda: compiled(namespace))
        assert await told() == {}
        await namespace.stop()

        without_right = await namespace.start(touch_pods="true")
        await namespace.apply(policy("first", attempts=3))
        await eventually(lambda: "policies.pods_not_touched" in without_right.log.read_text())
        assert (await compiled(namespace))["touching/first"]["attempts"] == 3
        await namespace.stop()

        await namespace.apply(RIGHT, GRANT)
        await namespace.start(touch_pods="true")
        before = await eventually(told)
        assert set(before) == {"mounts", "projects"}
        changed = datetime.now(UTC)
        await namespace.apply(policy("first", attempts=4))

        async def again() -> bool:
            now = await told()
            return set(now) == set(before) and all(now[name] != before[name] for name in now)

        await within_five_seconds(again, changed)
