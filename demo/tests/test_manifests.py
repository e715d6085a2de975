"""The example is applied as it is, but for the addresses of this machine."""

import pytest
import yaml
from amends_demo import manifests
from amends_demo.stack import SERVICES

TARGETS = {service: f"127.0.0.1:{port}" for port, service in enumerate(SERVICES.values(), 4000)}


def test_participants_and_policies_come_before_the_saga_that_needs_them() -> None:
    kinds = [kind for kind, _, _ in manifests.rendered(TARGETS)]
    assert kinds == sorted(kinds, key=manifests.ORDER.__getitem__)
    assert kinds[-1] == "Saga"
    assert kinds.count("Participant") == len(SERVICES)


def test_every_participant_has_the_address_of_its_service() -> None:
    specs = [yaml.safe_load(text)["spec"] for kind, _, text in manifests.rendered(TARGETS) if kind == "Participant"]
    assert {spec["service"]: spec["target"] for spec in specs} == TARGETS


def test_a_service_that_does_not_run_here_is_an_error() -> None:
    with pytest.raises(LookupError, match="PaymentService"):
        list(manifests.rendered({name: target for name, target in TARGETS.items() if "Payment" not in name}))
