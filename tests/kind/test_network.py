"""Who reaches whom in the cluster: exactly the edges that the network policies open, tried from every pod."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from .cluster import Clone, say

pytestmark = [pytest.mark.kind, pytest.mark.timeout(300)]

PORT = 50051
REACHED = f"""
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor

def reached(host):
    try:
        socket.create_connection((host, {PORT}), timeout=4).close()
    except OSError:
        return False
    return True

hosts = sys.argv[1:]
with ThreadPoolExecutor(len(hosts)) as pool:
    print(json.dumps([host for host, yes in zip(hosts, pool.map(reached, hosts)) if yes]))
"""


def named(peers: list[dict[str, Any]]) -> set[str]:
    """The peers of a rule, as `namespace/name`."""
    found = set()
    for peer in peers:
        name = peer.get("podSelector", {}).get("matchLabels", {}).get("app.kubernetes.io/name")
        namespace = peer.get("namespaceSelector", {}).get("matchLabels", {}).get("kubernetes.io/metadata.name")
        if name and namespace:
            found.add(f"{namespace}/{name}")
    return found


def opened(rules: list[dict[str, Any]], side: str, *ports: int | str) -> set[str]:
    """The peers for which rules open one of the ports."""
    opening = [rule for rule in rules if {port["port"] for port in rule.get("ports", ())} & set(ports)]
    return set().union(*(named(rule.get(side, [])) for rule in opening))


def by_name(clone: Clone, kind: str) -> dict[str, dict[str, Any]]:
    """The specs of what there is of a kind in our two namespaces, by `namespace/name`."""
    found = [(one["metadata"], one["spec"]) for one in clone.get(kind, "-A")["items"]]
    return {f"{it['namespace']}/{it['name']}": spec for it, spec in found if it["namespace"] in ("amends", "shop")}


def test_each_pod_reaches_whom_the_policies_name_and_nobody_else(clone: Clone) -> None:
    policies = by_name(clone, "networkpolicies")
    deployments = by_name(clone, "deployments").keys() & policies.keys()
    found = by_name(clone, "services").items()
    services = policies.keys() & {name for name, spec in found if PORT in {port["port"] for port in spec["ports"]}}
    hosts = {f"{name.partition('/')[2]}.{name.partition('/')[0]}.svc.cluster.local": name for name in services}

    def reaches(me: str) -> set[str]:
        namespace, _, name = me.partition("/")
        asked = [host for host, service in hosts.items() if service != me]
        command = ("exec", "-n", namespace, f"deploy/{name}", "--", "python", "-c", REACHED, *asked)
        return {hosts[host] for host in json.loads(clone.kubectl(*command))}

    def may_reach(me: str) -> set[str]:
        out = opened(policies[me]["egress"], "to", PORT)
        return {other for other in out & services if me in opened(policies[other]["ingress"], "from", "grpc", PORT)} - {
            me
        }

    with ThreadPoolExecutor(4) as pool:
        seen = dict(zip(sorted(deployments), pool.map(reaches, sorted(deployments)), strict=True))
    refused = sum(len(services - {me}) - len(found) for me, found in seen.items())
    say(f"{sum(map(len, seen.values()))} edges are open, {refused} were tried and are not")
    assert seen == {me: may_reach(me) for me in deployments}
    assert "shop/payments" in seen["amends/orchestrator"]
    assert "shop/payments" not in seen["shop/gateway"]
