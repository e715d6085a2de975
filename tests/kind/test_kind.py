"""The whole way, on a real kind cluster with a real Argo CD: `make test-kind`.

The tests run in this order and share one cluster; each leaves it as it found it.
"""

import json
import re
import subprocess
import time
import urllib.error
import urllib.request
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
import yaml
from amends_delivery import images, inputs
from amends_delivery.kind import argocd, secrets
from amends_demo.shop import Shop

from .cluster import NAMESPACES, SERVICES, Clone, Trickle, grpcurl, say, until

pytestmark = [pytest.mark.kind, pytest.mark.timeout(1800)]  # the first one builds images and brings up the cluster

UP_WITHIN, SHIPPED_WITHIN, ROLLED_OUT_WITHIN = 8 * 60, 90, 20
MOST_MEMORY = 4.5
ADDRESS = {"recipient": "Ada", "street": "Rosenweg 3", "city": "Berlin", "postalCode": "10115", "country": "DE"}
EXAMPLES = "examples/kubernetes"


def place(order_id: str, card: str = "tok_visa") -> dict[str, Any]:
    asked = {"orderId": order_id, "customerId": "ada", "cardToken": card, "wait": True, "address": ADDRESS}
    asked["lines"] = [{"sku": "tea-assam", "quantity": 1}]
    placed: dict[str, Any] = grpcurl("127.0.0.1:7410", "shop.orders.v1.OrderService/PlaceOrder", data=asked)["order"]
    return placed


# ---------------------------------------------------------------- from nothing


def test_from_no_cluster_to_everything_synced_and_healthy(clone: Clone) -> None:
    found = argocd.applications(clone.cluster)
    assert set(found) == set(argocd.expected(clone.root))
    assert [state for state in found.values() if not state.well] == []
    assert clone.up_after < UP_WITHIN
    assert "Synced" in clone.make("kind-status")


@pytest.mark.parametrize("name", [*NAMESPACES, "catalog", "customers", "gateway", "identity", "search", "git-server"])
def test_an_image_adds_little_to_its_base(clone: Clone, name: str) -> None:
    size = ("docker", "image", "inspect", "--format", "{{.Size}}")
    base = int(clone.run(*size, inputs.base_image()))
    image = images.reference(clone.root, inputs.deployables(clone.root)[name])
    added = (int(clone.run(*size, image)) - base) / 1e6
    say(f"{name} adds {added:.0f} MB")
    assert added < {"orchestrator": 150, "operator": 90}.get(name, 80)  # CEL, and the clients of Kubernetes


def test_kind_up_again_changes_nothing(clone: Clone) -> None:
    before = clone.git("rev-parse", "HEAD"), clone.pods(*NAMESPACES)
    began = time.monotonic()
    clone.make("kind-up")
    say(f"kind-up again took {time.monotonic() - began:.0f} s")
    assert (clone.git("rev-parse", "HEAD"), clone.pods(*NAMESPACES)) == before


def test_every_pod_is_admitted_where_pods_are_restricted(clone: Clone) -> None:
    for namespace in ("amends", "data", "gitops", "shop"):
        labels = clone.get("namespace", namespace)["metadata"]["labels"]
        assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
        pods = clone.get("pods", "-n", namespace)["items"]
        assert pods
        assert {pod["status"]["phase"] for pod in pods} == {"Running"}, namespace
    (git,) = clone.get("pods", "-n", "gitops")["items"]
    assert [one["restartCount"] for one in git["status"]["containerStatuses"]] == [0]


def test_no_secret_of_the_installation_is_in_git(clone: Clone) -> None:
    texts = [*secrets.read(clone.cluster, "data", "postgres-roles").values()]
    texts += secrets.read(clone.cluster, "gitops", "git-server").values()
    assert len(texts) >= 8
    tracked = clone.git("ls-files").split()
    for name in tracked:
        content = (clone.root / name).read_bytes()
        assert [text for text in texts if text.encode() in content] == [], name


def test_the_installation_takes_less_than_four_and_a_half_gigabytes(clone: Clone) -> None:
    node = f"{clone.cluster.name}-control-plane"
    shown = clone.run("docker", "stats", "--no-stream", "--format", "{{.MemUsage}}", node)
    found = re.match(r"([\d.]+)(GiB|MiB)", shown)
    assert found is not None, shown
    used = float(found[1]) / (1 if found[2] == "GiB" else 1024) * 1.074
    say(f"the node uses {used:.1f} GB")
    assert used < MOST_MEMORY


# ---------------------------------------------------------------- used


def test_grpcurl_lists_the_services_and_places_an_order(clone: Clone) -> None:
    assert "shop.orders.v1.OrderService" in grpcurl("127.0.0.1:7410", "list")["said"]
    assert "amends.saga.v1.RunService" in grpcurl("127.0.0.1:7400", "list")["said"]
    assert place("by-grpcurl")["state"] == "ORDER_STATE_CONFIRMED"
    declined = place("by-grpcurl-declined", "tok_chargeDeclined")
    assert declined["state"] == "ORDER_STATE_REJECTED"


async def test_kubectl_apply_of_a_run_completes_and_one_with_a_declined_card_compensates(clone: Clone) -> None:
    clone.kubectl("apply", "-n", "shop", "-f", str(clone.root / EXAMPLES / "shop" / "saga.yaml"))
    wait = ("wait", "-n", "shop", "--timeout=60s")
    clone.kubectl(*wait, "--for=condition=Ready", "saga/fulfil-order")
    for name in ("completed", "declined"):
        clone.kubectl("create", "-n", "shop", "-f", str(clone.root / EXAMPLES / "runs" / f"{name}.yaml"))
    clone.kubectl(*wait, "--for=condition=Ended", "sagarun/order-1", "sagarun/order-2")
    assert clone.get("sagarun", "order-1", "-n", "shop")["status"]["phase"] == "Completed"
    compensated = clone.get("sagarun", "order-2", "-n", "shop")["status"]
    assert compensated["phase"] == "Compensated"
    assert "declined" in json.dumps(compensated).lower()
    clone.kubectl("delete", "-n", "shop", "sagarun/order-1", "sagarun/order-2", "saga/fulfil-order")


def test_kubectl_amends_finds_the_orchestrator_of_the_cluster_by_itself(clone: Clone) -> None:
    context = f"--context=kind-{clone.cluster.name}"
    listed = clone.run("kubectl", "amends", "list", "-n", "shop", context)
    assert "place-order" in listed
    clone.run("kubectl", "amends", "check", "charts/sagas/sagas/saga.yaml", "-n", "shop", context)


@pytest.mark.parametrize("name", [*NAMESPACES, "postgres"])
def test_helm_test_passes_for_each_deployable(clone: Clone, name: str) -> None:
    """Argo CD renders with helm and keeps no release, so the test's pod is rendered and run by hand."""
    namespace = NAMESPACES.get(name, "data")
    clone.run("helm", "dependency", "build", f"charts/{name}", check=False)
    values = ("-f", f"{argocd.ENVIRONMENT}/{name}.yaml", "--kube-version", "1.34.4")
    rendered = clone.run("helm", "template", name, f"charts/{name}", "-n", namespace, *values)
    (pod,) = (one for one in yaml.safe_load_all(rendered) if one and one["kind"] == "Pod")
    clone.kubectl("create", "-n", namespace, "-f", "-", stdin=yaml.safe_dump(pod))
    try:
        done = "--for=jsonpath={.status.phase}=Succeeded"
        clone.kubectl("wait", "-n", namespace, f"pod/{pod['metadata']['name']}", done, "--timeout=60s")
    finally:
        clone.kubectl("delete", "-n", namespace, f"pod/{pod['metadata']['name']}", "--wait=false")


# ---------------------------------------------------------------- delivered


async def test_shipping_a_service_fails_no_order_and_restarts_nobody_else(clone: Clone, shop: Shop) -> None:
    others = [name for name in NAMESPACES if name != "payments"]
    before, image = clone.pods(*others), clone.image("payments")
    clone.edit("services/payments/src/shop_payments/domain.py", '"""', '"""Shipped. ')
    clone.commit("payments: say that it was shipped")
    async with Trickle(shop, "payments is shipped") as trickle:
        began = time.monotonic()
        said = await until("make ship", lambda: clone.make("ship", "payments"), timedelta(minutes=5))
        took = time.monotonic() - began
    rolled_out = float(re.findall(r"(\d+) s after the push", said)[0])
    say(f"make ship took {took:.0f} s, of which {rolled_out:.0f} s after the push")
    assert trickle.failed == trickle.rejected == []
    assert trickle.placed
    assert clone.pods(*others) == before
    assert clone.image("payments") != image
    assert took < SHIPPED_WITHIN
    assert rolled_out < ROLLED_OUT_WITHIN

    clone.git("revert", "--no-edit", "HEAD")
    async with Trickle(shop, "payments is taken back") as trickle:
        clone.push()
        took = await until("the old version", lambda: clone.deployed("payments"), timedelta(minutes=3))
    say(f"git revert and push: the old version after {took:.0f} s")
    assert trickle.failed == trickle.rejected == []
    assert clone.image("payments") == image
    assert clone.pods(*others) == before


@pytest.mark.parametrize("name", ["orders", "orchestrator"])
async def test_shipping_the_front_or_the_orchestrator_fails_no_order(clone: Clone, shop: Shop, name: str) -> None:
    file = {"orders": "shop_orders/domain.py", "orchestrator": "amends_orchestrator/settings.py"}[name]
    clone.edit(f"services/{name}/src/{file}", '"""', '"""Shipped. ')
    clone.commit(f"{name}: say that it was shipped")
    async with Trickle(shop, f"{name} is shipped") as trickle:
        await until("make ship", lambda: clone.make("ship", name), timedelta(minutes=5))
    assert trickle.failed == trickle.rejected == []
    assert trickle.placed


async def test_pods_that_are_deleted_lose_no_order(clone: Clone, shop: Shop) -> None:
    """There is one pod of each service in kind: while it is away, orders may be compensated. All of them end."""
    async with Trickle(shop, "pods are deleted") as trickle:
        for name in (*SERVICES, "orchestrator"):
            gone = clone.get("pods", "-n", NAMESPACES[name], "-l", f"app.kubernetes.io/name={name}")["items"][0]
            clone.kubectl("delete", "pod", "-n", NAMESPACES[name], gone["metadata"]["name"], "--wait=false")
            rollout = ("rollout", "status", f"deployment/{name}", "-n", NAMESPACES[name], "--timeout=120s")
            await until(f"{name} again", partial(clone.kubectl, *rollout), timedelta(minutes=3))
    assert trickle.failed == []
    said = await until("an audit", clone.audit, timedelta(minutes=2))
    say(said.strip().splitlines()[-1])


async def test_a_pod_that_is_killed_without_a_word_loses_no_order(clone: Clone, shop: Shop) -> None:
    """No drain, no preStop: what a lost node looks like from outside. Orders may be late, none is lost."""
    async with Trickle(shop, "a pod is killed") as trickle:
        gone = clone.get("pods", "-n", "amends", "-l", "app.kubernetes.io/name=orchestrator")["items"][0]
        clone.kubectl("delete", "pod", "-n", "amends", gone["metadata"]["name"], "--grace-period=0", "--force")
        rollout = ("rollout", "status", "deployment/orchestrator", "-n", "amends", "--timeout=120s")
        await until("the orchestrator again", lambda: clone.kubectl(*rollout), timedelta(minutes=3))
    assert trickle.failed == []
    await until("an audit", clone.audit, timedelta(minutes=2))


async def test_a_retry_policy_that_is_pushed_takes_effect_in_running_pods(clone: Clone) -> None:
    before = clone.pods(*SERVICES, "orchestrator")
    file = "charts/sagas/sagas/retry-policies.yaml"
    clone.edit(file, "timeout: 3s", "timeout: 3100ms")
    clone.commit("sagas: be a little more patient")
    began = time.monotonic()
    clone.push()

    def followed() -> bool:
        log = clone.kubectl("logs", "-n", "shop", "deployment/orders", "--since=5m")
        return "policies.changed" in log and _timeout_in(clone) == "3100ms"

    await until("the orders service follows the new policy", followed, timedelta(minutes=3))
    say(f"orders follows the pushed policy after {time.monotonic() - began:.0f} s")
    assert clone.pods(*SERVICES, "orchestrator") == before
    clone.git("revert", "--no-edit", "HEAD")
    clone.push()
    clone.deployed("sagas")
    await until("the policy of before", lambda: _timeout_in(clone) == "3s", timedelta(minutes=3))


def _timeout_in(clone: Clone) -> str:
    """The default policy's timeout, as a running pod of orders has it in its file."""
    inside = ("exec", "-n", "shop", "deployment/orders", "-c", "orders", "--")
    compiled = json.loads(clone.kubectl(*inside, "cat", "/etc/amends/policies/policies.json"))
    return str({one["name"]: one for one in compiled["policies"]}["shop/default"]["timeout"])


async def test_a_broken_saga_is_degraded_with_the_finding_and_what_ran_before_goes_on(clone: Clone, shop: Shop) -> None:
    file = "charts/sagas/sagas/saga.yaml"
    clone.edit(file, "ChargeRequest{order_id: input.order_id, amount:", "ChargeRequest{order: input.order_id, amount:")
    clone.commit("sagas: misspell a field")
    async with Trickle(shop, "a broken saga is pushed") as trickle:
        clone.push()
        await until("Degraded", lambda: clone.application("sagas").health == "Degraded", timedelta(minutes=2))
        conditions = clone.get("saga", "place-order", "-n", "shop")["status"]["conditions"]
        ready = next(one for one in conditions if one["type"] == "Ready")
        assert ready["status"] == "False"
        assert re.search(r"AM\d{3}", ready["message"]), ready
        assert "order" in ready["message"]
        say(f"Ready is False: {ready['message'][:120]}")
    assert trickle.failed == trickle.rejected == []
    assert trickle.placed
    clone.git("revert", "--no-edit", "HEAD")
    clone.push()
    clone.deployed("sagas")


# ---------------------------------------------------------------- guarded


async def test_what_somebody_changes_by_hand_is_put_back(clone: Clone) -> None:
    image = clone.image("shipping")
    clone.kubectl("set", "image", "-n", "shop", "deployment/shipping", "shipping=amends/shipping:by-hand")
    began = time.monotonic()
    await until("the image of git", lambda: clone.image("shipping") == image, timedelta(seconds=60))
    say(f"a change by hand was put back after {time.monotonic() - began:.0f} s")
    clone.kubectl("delete", "service", "-n", "shop", "shipping")
    await until("the service again", lambda: clone.get("service", "shipping", "-n", "shop"), timedelta(seconds=60))
    await until("healthy", lambda: clone.application("shipping").well, timedelta(seconds=90))


@pytest.mark.parametrize(
    ("project", "namespace", "repository"),
    [
        ("amends", "kube-system", secrets.REPOSITORY),
        ("amends", "shop", "https://git.example.com/somebody/else.git"),
        ("default", "shop", secrets.REPOSITORY),
    ],
)
async def test_an_application_outside_of_the_rules_is_refused(
    clone: Clone, project: str, namespace: str, repository: str
) -> None:
    spec = {
        "project": project,
        "destination": {"server": "https://kubernetes.default.svc", "namespace": namespace},
        "source": {"repoURL": repository, "targetRevision": "main", "path": "charts/sagas"},
        "syncPolicy": {"automated": {}},
    }
    metadata = {"name": "foreign", "namespace": "argocd"}
    manifest = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Application", "metadata": metadata, "spec": spec}
    clone.kubectl("create", "-f", "-", stdin=yaml.safe_dump(manifest))
    try:

        def refused() -> str:
            status = clone.get("application", "foreign", "-n", "argocd").get("status", {})
            found = [one["message"] for one in status.get("conditions", ()) if one["type"] == "InvalidSpecError"]
            return found[0] if found else ""

        say(await until("a refusal", refused, timedelta(seconds=60)))
        assert clone.application("foreign").sync != "Synced"
    finally:
        clone.kubectl("delete", "application", "foreign", "-n", "argocd", "--wait=false")


def test_a_webhook_that_is_not_signed_is_not_believed(clone: Clone) -> None:
    for event in ("X-GitHub-Event", "X-Gogs-Event", "X-Gitlab-Event"):
        headers = {"Content-Type": "application/json", event: "push"}
        request = urllib.request.Request("http://127.0.0.1:7420/api/webhook", b"{}", headers)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=20)
        with refused.value as answer:
            assert answer.code in (400, 401, 403), event


def test_main_is_not_rewritten(clone: Clone) -> None:
    said = clone.git("push", "--force", "kind", "HEAD~1:main", check=False)
    assert "main is not rewritten" in said


async def test_a_definition_of_a_kind_survives_its_deletion_in_git(clone: Clone) -> None:
    clone.git("rm", "--quiet", f"{argocd.ENVIRONMENT}/amends-crds.yaml")
    clone.commit("kind: deploy no definitions")
    clone.push()
    await until(
        "the Application to go", lambda: clone.application("amends-crds").health == "Missing", timedelta(minutes=2)
    )
    assert clone.get("crd", "sagas.amends.dev")
    assert clone.get("saga", "place-order", "-n", "shop")
    clone.git("revert", "--no-edit", "HEAD")
    clone.push()
    await until("the Application again", lambda: clone.application("amends-crds").well, timedelta(minutes=2))
    clone.deployed("amends-crds")


async def test_a_fix_that_is_pushed_while_a_sync_is_stuck_is_taken_up(clone: Clone) -> None:
    """A kind that the project does not permit: the sync fails, and is tried again and again."""
    path = clone.root / "charts" / "sagas" / "sagas" / "stuck.yaml"
    path.write_text("apiVersion: batch/v1\nkind: Job\nmetadata: {name: stuck, namespace: shop}\nspec: {}\n")
    clone.commit("sagas: deploy what is not permitted")
    clone.push()

    def stuck() -> bool:
        state = clone.get("application", "sagas", "-n", "argocd")["status"].get("operationState", {})
        return state.get("phase") in ("Running", "Failed") and "Job" in json.dumps(state)

    await until("a sync that is stuck", stuck, timedelta(minutes=2))
    clone.git("revert", "--no-edit", "HEAD")
    clone.push()
    took = await until("the fix", lambda: clone.deployed("sagas"), timedelta(minutes=3))

    def over() -> bool:
        state = clone.get("application", "sagas", "-n", "argocd")["status"]["operationState"]
        return bool(state["phase"] != "Running")

    await until("the stuck sync to end", over, timedelta(minutes=3))
    say(f"the fix was taken up after {took:.0f} s")


def test_the_books_balance_after_all_of_this(clone: Clone) -> None:
    say(clone.audit().strip().splitlines()[-1])
    done = subprocess.run(["git", "status", "--porcelain"], cwd=clone.root, capture_output=True, text=True, check=True)
    assert done.stdout == ""
