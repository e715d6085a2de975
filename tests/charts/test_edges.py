"""Who may call whom, by the NetworkPolicies: exactly the edges of the participants' graph and of the code's clients."""

import re
from typing import Any

import pytest
import yaml

from .conftest import ENVS, ROOT, SERVICES, Helm, containers, pods

SAGAS = ROOT / "charts" / "sagas" / "sagas"
TARGET = re.compile(r"dns:///([a-z-]+)\.([a-z-]+)\.svc\.cluster\.local:(\d+)")
GRPC = (*SERVICES, "operator")
CALLERS = (("gateway", "shop"), ("operator", "amends"), ("orders", "shop"), ("reporting", "shop"), ("search", "shop"))
"""Those that are configured with targets."""
STATELESS = ("amends/operator", "shop/gateway")
"""Those without a database, and so without an outbox or an inbox."""


def resources(kind: str) -> list[dict]:
    documents = (one for path in sorted(SAGAS.glob("*.yaml")) for one in yaml.safe_load_all(path.read_text()))
    return [document for document in documents if document and document["kind"] == kind]


def parts(target: str) -> tuple[str, str, str]:
    """Name, namespace and port of a service of the cluster."""
    found = TARGET.fullmatch(target)
    assert found is not None, target
    return found[1], found[2], found[3]


def called_services() -> set[str]:
    """The protobuf services that the sagas call, forward and back."""
    steps = [step for saga in resources("Saga") for step in saga["spec"]["steps"]]
    calls = [step["call"] for step in steps] + [step["compensate"]["call"] for step in steps if "compensate" in step]
    return {call.partition("/")[0] for call in calls}


def graph() -> set[tuple[str, str]]:
    """Edges as `namespace/name` pairs: of sagas, and of the targets that deployables are configured with."""
    edges = set()
    for participant in resources("Participant"):
        if participant["spec"]["service"] in called_services():
            name, namespace, _ = parts(participant["spec"]["target"])
            edges.add(("amends/orchestrator", f"{namespace}/{name}"))
    for chart, namespace in CALLERS:
        values = yaml.safe_load((ROOT / "charts" / chart / "values.yaml").read_text())
        for name, other, _ in TARGET.findall(str(values["env"])):
            edges.add((f"{namespace}/{chart}", f"{other}/{name}"))
    return edges


def peers(rules: list[dict], side: str, port) -> set[str]:
    found = set()
    for rule in rules:
        if port not in [one["port"] for one in rule["ports"]]:
            continue
        for peer in rule.get(side, ()):
            name = peer.get("podSelector", {}).get("matchLabels", {}).get("app.kubernetes.io/name")
            namespace = peer.get("namespaceSelector", {}).get("matchLabels", {}).get("kubernetes.io/metadata.name")
            if name and namespace:
                found.add(f"{namespace}/{name}")
    return found


def policies(helm: Helm, environment: str) -> dict[str, dict]:
    found = {}
    for name in GRPC:
        manifests = helm.deployed(f"{environment}/{name}")
        (policy,) = (one for one in manifests if one["kind"] == "NetworkPolicy")
        found[f"{policy['metadata']['namespace']}/{name}"] = policy["spec"]
    return found


@pytest.mark.parametrize("environment", sorted({name.partition("/")[0] for name in ENVS}))
def test_the_policies_open_exactly_the_edges_of_the_graph(helm: Helm, environment: str) -> None:
    found = policies(helm, environment)
    out = {(me, peer) for me, spec in found.items() for peer in peers(spec["egress"], "to", 50051)}
    into = {(peer, me) for me, spec in found.items() for peer in peers(spec["ingress"], "from", "grpc")}
    assert out == graph()
    assert into == graph()


def test_the_graph_is_not_empty() -> None:
    assert ("amends/orchestrator", "shop/payments") in graph()
    assert ("shop/orders", "amends/orchestrator") in graph()
    assert ("shop/payments", "shop/orders") not in graph()


def test_only_who_has_a_database_reaches_one(helm: Helm) -> None:
    for me, spec in policies(helm, "kind").items():
        reaches = peers(spec["egress"], "to", 5432)
        assert reaches == (set() if me in STATELESS else {"data/postgres"}), me


def test_only_who_publishes_or_consumes_reaches_the_broker(helm: Helm) -> None:
    for me, spec in policies(helm, "kind").items():
        reaches = peers(spec["egress"], "to", 4222)
        assert reaches == (set() if me in STATELESS else {"data/nats"}), me


def test_in_production_the_database_and_the_broker_are_outside_of_the_cluster(helm: Helm) -> None:
    database, broker, mail = "10.20.0.0/24", "10.20.1.0/24", "10.20.2.0/24"
    cache = "10.20.3.0/24"
    for me, spec in policies(helm, "production").items():
        blocks = [rule["to"][0]["ipBlock"]["cidr"] for rule in spec["egress"] if "ipBlock" in str(rule.get("to"))]
        differ = {
            **{name: [] for name in STATELESS},
            "shop/catalog": [database, cache, broker],
            "shop/customers": [database, cache, broker],
            "shop/notifications": [mail, database, broker],
        }
        assert blocks == differ.get(me, [database, broker]), me


def test_the_participants_are_reached_by_the_names_of_their_services(helm: Helm) -> None:
    services = {
        f"{one['metadata']['name']}.{one['metadata']['namespace']}"
        for name in GRPC
        for one in helm.deployed(f"kind/{name}")
        if one["kind"] == "Service"
    }
    for participant in resources("Participant"):
        name, namespace, port = parts(participant["spec"]["target"])
        assert f"{name}.{namespace}" in services
        assert port == "50051"


SWITCHED = sorted(name for name in ENVS if name.startswith("kind/") and "broker:" in ENVS[name].read_text())


def brokers(manifests: list[dict]) -> set[str]:
    found = (container for _, pod in pods(manifests) for container in containers(pod))
    return {one["value"] for container in found for one in container.get("env", []) if one["name"] == "AMENDS_BROKER"}


@pytest.mark.parametrize("name", SWITCHED)
def test_one_line_of_an_environment_switches_the_broker_of_all(helm: Helm, values: Any, name: str) -> None:
    deploy = yaml.safe_load(ENVS[name].read_text())["deploy"]
    files = [values({"global": {"broker": "kafka"}}), ENVS[name]]
    manifests = helm.render(deploy["chart"], *files, namespace=deploy["namespace"])
    assert brokers(manifests) == {"kafka://kafka.data.svc.cluster.local:9092"}
    (policy,) = (one["spec"] for one in manifests if one["kind"] == "NetworkPolicy")
    assert peers(policy["egress"], "to", 9092) == {"data/kafka"}
    assert peers(policy["egress"], "to", 4222) == set()
    assert brokers(helm.deployed(name)) == {"nats://nats.data.svc.cluster.local:4222"}


def test_the_same_line_brings_kafka_and_without_it_there_is_none(helm: Helm, values: Any) -> None:
    made = helm.render("kafka", values({"global": {"broker": "kafka"}}), namespace="data")
    assert {one["kind"] for one in made} >= {"StatefulSet", "Service", "NetworkPolicy"}
    (settings,) = (one["data"]["server.properties"] for one in made if one["kind"] == "ConfigMap")
    assert "advertised.listeners=PLAINTEXT://kafka.data.svc.cluster.local:9092" in settings
    shared = ENVS["kind/kafka"].parent / "environment" / "values.yaml"
    assert helm.render("kafka", shared, ENVS["kind/kafka"], namespace="data") == []


@pytest.mark.parametrize("environment", ["staging", "production"])
def test_real_environments_name_a_kafka_of_their_own(helm: Helm, environment: str) -> None:
    found = {name: brokers(helm.deployed(name)) for name in ENVS if name.startswith(f"{environment}/")}
    named = set().union(*found.values())
    assert named
    assert all(url.startswith("kafka://") and "svc.cluster.local" not in url for url in named)
