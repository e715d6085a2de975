"""An API server whose rules do not look: everything that they would refuse is refused in the status and never runs."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml
from amends_testkit.kubernetes import Kubernetes, assets
from amends_testkit.waiting import eventually

from amends.saga.v1 import definition_service_pb2 as definitions

from .conftest import EXAMPLES, ROOT, Namespace, Platform, a_namespace

INVALID = sorted((EXAMPLES / "invalid").glob("*.yaml"))


def lenient(crd: dict) -> dict:
    """The same resource, of which nothing but the status is checked."""
    (version,) = crd["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    del schema["x-kubernetes-validations"]
    schema["properties"]["spec"] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version["selectableFields"] = [
        field for field in version["selectableFields"] if field["jsonPath"].startswith(".status.")
    ]
    return crd


@pytest.fixture(scope="module")
async def unchecked(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Namespace]:
    """A namespace with the example, on an API server of its own that takes everything; an operator is at work."""
    programs = assets()
    assert programs is not None
    folder = tmp_path_factory.mktemp("unchecked")
    crds = [yaml.safe_load(path.read_text()) for path in (ROOT / "charts/amends-crds/templates").glob("*.yaml")]
    async with await Kubernetes.start(folder / "kubernetes", programs) as server:
        await server.define(yaml.safe_dump_all(map(lenient, crds)))
        async with a_namespace(server, platform, folder, "unchecked") as made:
            await made.start()
            await made.install()
            yield made


def parsed(path: Path) -> dict:
    document: dict = yaml.safe_load(path.read_text())
    return document


def worse() -> list[dict]:
    """Return objects whose specs have the wrong shape."""
    shapes = {
        "Saga": [{"steps": "none"}, {"steps": [5]}, {"input": {}, "steps": {}, "descriptors": 5}, {"descriptors": []}],
        "Participant": [
            {"methods": "*"},
            {"descriptors": {"configMapRef": ["x"]}},
            {"target": 5},
            {"callers": {"a": 1}},
        ],
        "RetryPolicy": [{"selector": "all"}, {"backoff": 5}, {"retryOn": "UNAVAILABLE"}, {"attempts": "many"}],
        "Choreography": [{"events": "none"}, {"start": 5, "events": [5]}, {"key": ["a"]}, {"participants": {"a": 1}}],
        "SagaRun": [{}, {"saga": 5}, {"saga": "fulfil-order", "resolution": "skip"}, {"saga": ["fulfil-order"]}],
    }
    return [
        {
            "apiVersion": "amends.dev/v1alpha1",
            "kind": kind,
            "metadata": {"name": f"worse-{kind.lower()}-{number}"},
            "spec": spec,
        }
        for kind, specs in shapes.items()
        for number, spec in enumerate(specs)
    ]


async def test_what_the_schemas_refuse_is_refused_in_the_status_and_nothing_of_it_is_in_force(
    unchecked: Namespace,
) -> None:
    before = len(await unchecked.platform.runs(unchecked.name))
    documents = [*map(parsed, INVALID), *worse()]
    (good,) = unchecked.example("runs/completed.yaml")
    for document in documents:  # what would run if only its one mistake were overlooked
        if document["kind"] == "SagaRun" and document["spec"].get("saga") == "a":
            document["spec"] = good["spec"] | {**document["spec"], "saga": good["spec"]["saga"]}
    # A SagaRun's name goes nowhere: its run is known by the UID.
    named = [one for one in documents if (one["kind"], one["metadata"]["name"]) != ("SagaRun", "a.b")]
    await unchecked.apply(*named)
    for document in named:
        body = await unchecked.until(document["kind"].lower(), document["metadata"]["name"], "Refused")
        ready = next(found for found in body["status"]["conditions"] if found["type"] == "Ready")
        assert ready["status"] == "False", document
        assert ready["message"], document
    stub = unchecked.platform.shop.definitions
    sagas = await stub.ListSagas(definitions.ListSagasRequest(namespace=unchecked.name), timeout=10)
    known = await stub.ListParticipants(definitions.ListParticipantsRequest(namespace=unchecked.name), timeout=10)
    policies = await stub.ListRetryPolicies(definitions.ListRetryPoliciesRequest(namespace=unchecked.name), timeout=10)
    assert [info.name for info in sagas.sagas] == ["fulfil-order"]
    assert sorted(info.name for info in known.participants) == ["inventory", "payments", "shipping"]
    assert sorted(info.name for info in policies.retry_policies) == ["charge", "default"]
    assert len(await unchecked.platform.runs(unchecked.name)) == before
    log = unchecked.operators[0].log.read_text()
    assert "Traceback" not in log


async def test_a_started_run_goes_on_whatever_its_spec_is_made_into(unchecked: Namespace) -> None:
    document = unchecked.run("parked", "defaced")
    await unchecked.apply(document)
    parked = await unchecked.until("sagarun", "defaced", "Parked")
    change = {"ttlAfterEnd": "never", "onDeletion": 5, "resolution": {"action": "Explode"}}
    await unchecked.kubectl("patch", "sagarun", "defaced", "--type=merge", "-p", json.dumps({"spec": change}))

    async def said() -> str:
        conditions = (await unchecked.get("sagarun", "defaced"))["status"]["conditions"]
        return next((found["message"] for found in conditions if found["reason"] == "ChangeIgnored"), "")

    message = await eventually(said)
    assert "spec.ttlAfterEnd must be a duration" in message
    assert "spec.resolution.action must be Retry" in message
    again = await unchecked.get("sagarun", "defaced")
    assert (again["status"]["phase"], again["status"]["runId"]) == ("Parked", parked["status"]["runId"])
