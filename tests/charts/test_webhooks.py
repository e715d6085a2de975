"""The orchestrator's webhooks: what the chart makes of them is what the orchestrator reads."""

from typing import Any

from amends_orchestrator.webhooks.destinations import parse

from .conftest import TAGGED, Helm, containers
from .test_tls import environment, one

WEBHOOKS: list[dict[str, Any]] = [
    {
        "name": "on-call",
        "url": "https://hooks.example.com/amends?team=shop",
        "secret": {"name": "webhook-on-call", "key": "secret"},
        "types": ["RunParked", "RunStalled"],
        "namespaces": ["shop"],
    },
    {
        "name": "inside",
        "url": "https://hub.tools.svc.cluster.local:8443/",
        "secret": {"name": "webhook-inside", "key": "key"},
        "ca": {"configMap": "company-ca", "key": "ca.crt"},
        "allowNetworks": ["10.1.0.0/16"],
        "attempts": 5,
    },
]


def test_what_is_rendered_is_read_by_the_orchestrator(helm: Helm, values) -> None:
    made = helm.render("orchestrator", values({**TAGGED, "webhooks": WEBHOOKS}), namespace="amends")
    text = one(made, "ConfigMap", "orchestrator-webhooks")["data"]["webhooks.json"]
    found = parse(text, "webhooks.json").by_name
    assert (found["on-call"].types, found["on-call"].namespaces) == (("RunParked", "RunStalled"), ("shop",))
    assert str(found["inside"].secret_file) == "/etc/amends/webhook-files/inside"
    assert str(found["inside"].ca_file) == "/etc/amends/webhook-files/inside.crt"
    assert (found["inside"].url.port, found["inside"].attempts) == (8443, 5)
    pod = one(made, "Deployment", "orchestrator")["spec"]["template"]
    for container in containers(pod):
        assert environment(container)["AMENDS_WEBHOOKS"] == "/etc/amends/webhooks/webhooks.json"
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    paths = {
        item["path"]
        for source in volumes["webhook-files"]["projected"]["sources"]
        for item in next(iter(source.values()))["items"]
    }
    assert paths == {"on-call", "inside", "inside.crt"}
    mounts = {mount["mountPath"] for mount in pod["spec"]["containers"][0]["volumeMounts"]}
    assert {"/etc/amends/webhooks", "/etc/amends/webhook-files"} <= mounts


def test_the_network_is_opened_to_public_addresses_and_to_what_is_allowed_and_to_nothing_else(
    helm: Helm, values
) -> None:
    made = helm.render("orchestrator", values({**TAGGED, "webhooks": WEBHOOKS}), namespace="amends")
    egress = one(made, "NetworkPolicy", "orchestrator")["spec"]["egress"]
    public, inside = [rule for rule in egress if any("ipBlock" in peer for peer in rule["to"])]
    assert public["ports"] == [{"port": 443, "protocol": "TCP"}]
    assert inside["ports"] == [{"port": 8443, "protocol": "TCP"}]
    assert [peer["ipBlock"]["cidr"] for peer in inside["to"]] == ["0.0.0.0/0", "2000::/3", "10.1.0.0/16"]
    assert "169.254.0.0/16" in public["to"][0]["ipBlock"]["except"]


def test_without_webhooks_nothing_of_them_is_rendered(helm: Helm, values) -> None:
    assert "webhook" not in helm.text("orchestrator", values(TAGGED), namespace="amends")


def test_a_webhook_that_makes_no_sense_is_refused(helm: Helm, values) -> None:
    for wrong in ({"types": ["RunWon"]}, {"url": "ftp://a"}, {"attempts": 0}, {"insecure": True}):
        done = helm.try_text("orchestrator", values({**TAGGED, "webhooks": [{**WEBHOOKS[0], **wrong}]}))
        assert done.returncode != 0
