"""The contracts of events: each is complete, somebody publishes it, and the page of them is current."""

import re
from importlib import import_module
from pathlib import Path

import asyncapi
import event_contracts
import pytest
import yaml
from amends_contracts import descriptor_set
from amends_events import event_type

from amends.options.v1 import events_pb2

SERVICES = ("catalog", "customers", "identity", "inventory", "marketing", "orders", "payments", "shipping")
PRIVATE = {"card_token", "email", "email_address", "password", "address", "recipient", "street"}
MAY_HAVE_IT = {
    ("CustomerChanged", "email_address"): "who writes to customers has to know where, also while nobody can be asked"
}


def topics():
    return [file for file in descriptor_set().file if file.options.Extensions[events_pb2.topic].partitions]


def fields_of(message, files):
    """The names of a message's fields, those of the messages in it too."""
    for field in message.field:
        yield field.name
        for file in files:
            for other in file.message_type:
                if field.type_name == f".{file.package}.{other.name}":
                    yield from fields_of(other, files)


def test_the_page_of_events_is_what_would_be_written_now():
    assert asyncapi.PAGE.read_text() == asyncapi.document(), "run `make asyncapi`"


def test_the_page_says_what_readers_take_an_unknown_value_for(monkeypatch: pytest.MonkeyPatch):
    said = "as ORCHESTRATED: it is what was there first"
    contracts = descriptor_set()
    enum = next(one for file in contracts.file for one in file.enum_type if one.name == "Fulfilment")
    enum.options.Extensions[events_pb2.unknown_value] = said
    monkeypatch.setattr(asyncapi, "descriptor_set", lambda: contracts)
    schemas = yaml.safe_load(asyncapi.document())["components"]["schemas"]
    assert schemas["shop.orders.events.v1.OrderPlaced"]["properties"]["fulfilment"]["x-unknown-value"] == said


def test_every_reference_of_the_page_leads_somewhere_and_everything_is_described():
    document = yaml.safe_load(asyncapi.document())

    def resolve(reference):
        found = document
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]
        return found

    def walk(node):
        if isinstance(node, dict):
            if "$ref" in node:
                assert resolve(node["$ref"])
            assert all(node[key] for key in ("description", "summary") if key in node), node
            node = list(node.values())
        if isinstance(node, list):
            for one in node:
                walk(one)

    walk(document)
    assert document["asyncapi"] == "3.0.0"


def test_every_package_of_events_is_a_topic():
    packages = {file.package for file in descriptor_set().file if ".events." in file.package}
    assert packages == {file.package for file in topics()}
    assert packages


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_publishes_every_event_of_its_topic_and_no_other(service):
    package = f"shop.{service}.events.v1"
    published = import_module(f"shop_{service}.events").PUBLISHES
    assert {event_type(message).topic.name for message in published} == {package}
    declared = {message.name for file in topics() if file.package == package for message in file.message_type}
    assert {message.DESCRIPTOR.name for message in published} == declared


def test_no_event_has_what_is_private_but_for_one_with_a_reason():
    files = list(descriptor_set().file)
    private = {
        (message.name, field)
        for file in topics()
        for message in file.message_type
        for field in fields_of(message, files)
        if field in PRIVATE
    }
    assert private == set(MAY_HAVE_IT)


def test_every_service_with_events_has_the_tables_of_who_is_on_call(root):
    """What `amends events` writes: an outbox that can keep what was published, and the decisions of people."""
    lacking = []
    for folder in sorted(root.glob("services/*/src/*/migrations")):
        tables = set(
            re.findall(r"CREATE TABLE (?:IF NOT EXISTS )?(\w+)", "".join(map(Path.read_text, folder.glob("*.sql"))))
        )
        needed = {"outbox_sent", "event_decision"} if "outbox" in tables else set()
        needed |= {"event_decision", "inbox_parked"} if "inbox" in tables else set()
        lacking += [f"{folder.parent.name}: {name}" for name in needed - tables]
    assert lacking == []


def test_what_the_monitor_knows_of_the_events_is_what_the_contracts_say():
    assert event_contracts.TARGET.read_text() == event_contracts.document(), "run `make asyncapi`"


CHOREOGRAPHY = "examples/place-order/choreography.yaml"


def reactions(service):
    """The class of a service that answers events of choreographed orders, without what it is made of."""
    module = import_module(f"shop_{service}.choreography")
    (found,) = (one for name, one in vars(module).items() if name.endswith("Reactions"))
    return object.__new__(found)


def test_the_choreography_says_of_its_services_what_they_publish_and_consume(root):
    spec = yaml.safe_load((root / CHOREOGRAPHY).read_text())["spec"]
    described = {one["event"] for one in spec["events"]}
    for participant in spec["participants"]:
        name = participant["name"]
        published = {one.DESCRIPTOR.full_name for one in import_module(f"shop_{name}.events").PUBLISHES}
        consumed = {one.DESCRIPTOR.full_name for one in reactions(name).handlers}
        assert set(participant["publishes"]) == published & described, name
        assert set(participant["consumes"]) == consumed & described, name
