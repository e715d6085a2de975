"""What the operator may do: exactly this, in its namespaces and nowhere else; and what is in its environment."""

import json
import subprocess
import sys

import pytest
from amends_testkit.kubernetes import KubectlError, Kubernetes

from .conftest import ROOT, RULES, Namespace

READ = ("get", "list", "watch")
KINDS = ("sagas", "participants", "retrypolicies", "sagaruns", "choreographies")
MAY = {
    *(("amends.dev", kind, verb) for kind in KINDS for verb in READ),
    *(("amends.dev", f"{kind}/status", "patch") for kind in KINDS),
    ("amends.dev", "sagaruns", "patch"),
    ("amends.dev", "sagaruns", "delete"),
    ("", "events", "create"),
    ("", "configmaps", "get"),
    ("", "configmaps", "create"),
    ("", "configmaps/amends-retry-policies", "patch"),
}
EVERYBODY = {"authorization.k8s.io", "authentication.k8s.io"}
"""Groups in which whoever is logged in may ask about himself."""
CLIENTS = ("kubernetes", "kubernetes_asyncio", "pykube", "lightkube", "kr8s")


def granted(rules: list[dict]) -> set[tuple[str, str, str]]:
    """Group, resource and verb of each right; one that is bound to names is told with them."""
    return {
        (group, f"{resource}/{name}" if name else resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames") or [""]
        for verb in rule["verbs"]
    }


def test_the_chart_gives_it_these_rights_and_no_other() -> None:
    assert granted(RULES) == MAY


async def may(cluster: Kubernetes, namespace: str) -> set[tuple[str, str, str]]:
    """What the API server says that the operator may do in a namespace, but for what everybody may."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    flags = ("--validate=false", "-o", "json", "-f", "-")
    said = await cluster.kubectl("create", *flags, stdin=json.dumps(review), user="operator")
    return {right for right in granted(json.loads(said)["status"]["resourceRules"]) if right[0] not in EVERYBODY}


async def test_the_api_server_grants_it_exactly_that_and_nothing_elsewhere(
    cluster: Kubernetes, served: Namespace
) -> None:
    assert await may(cluster, served.name) == MAY
    assert await may(cluster, "default") == set()
    for attempt in (("get", "secrets"), ("get", "pods"), ("get", "sagas", "-A"), ("get", "crds"), ("get", "nodes")):
        with pytest.raises(KubectlError, match="Forbidden"):
            await cluster.kubectl("-n", served.name, *attempt, user="operator")


def test_no_kubernetes_client_is_in_its_environment() -> None:
    """kopf imports any that it finds, which would cost up to 85 MB of memory."""
    locked = (ROOT / "operator/requirements.lock").read_text()
    names = {line.partition("==")[0].replace("-", "_") for line in locked.splitlines() if "==" in line}
    assert names.isdisjoint(CLIENTS)
    code = f"import sys, amends_operator.assemble; print([name for name in {CLIENTS} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
