"""Each method of the shop is for people or for services that are named, and says so where it is for both."""

from typing import Any

import pytest
import yaml
from amends_contracts import descriptor_set

from amends.options.v1 import options_pb2, people_pb2

from .conftest import ENVS, ROOT, Helm, containers, pods
from .test_edges import peers, policies

FOR_PEOPLE_THEMSELVES = "gateway"
"""Who calls for people, with their tokens."""


def methods() -> dict[str, Any]:
    """The methods of the shop, by "package.Service/Method", with their options."""
    found: dict[str, Any] = {}
    for file in descriptor_set().file:
        for service in file.service if file.package.startswith("shop.") else ():
            name = f"{file.package}.{service.name}"
            found |= {f"{name}/{method.name}": method.options for method in service.method}
    return found


def called_by_services() -> set[str]:
    """The methods that other services than the gateway may call, by the charts."""
    found = set()
    for path in sorted((ROOT / "charts").glob("*/values.yaml")):
        for edge in yaml.safe_load(path.read_text()).get("access") or ():
            if edge["from"]["name"] != FOR_PEOPLE_THEMSELVES:
                found |= set(edge["methods"])
    return found


def rule_of(options):
    return options.Extensions[people_pb2.people] if options.HasExtension(people_pb2.people) else None


def test_a_method_that_no_person_may_call_is_called_by_a_service() -> None:
    alone = {name for name, options in methods().items() if rule_of(options) is None}
    assert alone
    assert alone - called_by_services() == set(), "for nobody: say amends.options.v1.people, or who has access"


def test_a_method_for_people_that_services_call_too_says_so() -> None:
    rules = {name: rule for name, options in methods().items() if (rule := rule_of(options)) is not None}
    both = called_by_services() & set(rules)
    assert both
    assert {name for name in both if not (rules[name].services or rules[name].anybody)} == set()


def test_what_sagas_call_is_for_no_person() -> None:
    guarded = {name for name, options in methods().items() if options.Extensions[options_pb2.method].guarded}
    assert guarded
    assert {name for name in guarded if rule_of(methods()[name]) is not None} == set()


@pytest.mark.parametrize("environment", sorted({name.partition("/")[0] for name in ENVS}))
def test_who_believes_access_tokens_reaches_the_keys_of_their_issuer_and_nobody_else_does(
    helm: Helm, environment: str
) -> None:
    found = policies(helm, environment)
    believers = set()
    for me in found:
        manifests = helm.deployed(f"{environment}/{me.partition('/')[2]}")
        told = (one for _, pod in pods(manifests) for container in containers(pod) for one in container.get("env", ()))
        if any(one["name"] == "AMENDS_TOKEN_ISSUER" for one in told):
            believers.add(me)
    assert {"shop/gateway", "shop/orders", "shop/customers"} <= believers
    assert {me for me, spec in found.items() if "shop/identity" in peers(spec["egress"], "to", 8080)} == believers
    assert peers(found["shop/identity"]["ingress"], "from", "web") == believers
