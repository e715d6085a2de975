"""The schemas on a real API server: what they take, what they refuse, and how they read."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from amends_testkit.kubernetes import KubectlError, Kubernetes

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "kubernetes"
VALID = [*sorted((EXAMPLES / "valid").glob("*.yaml")), *sorted((EXAMPLES / "shop").glob("*.yaml"))]
INVALID = sorted((EXAMPLES / "invalid").glob("*.yaml"))
KINDS = ("sagas", "sagaruns", "retrypolicies", "participants", "choreographies")


async def test_every_valid_example_is_taken(cluster: Kubernetes) -> None:
    folders = [argument for name in ("valid", "shop", "runs") for argument in ("-f", str(EXAMPLES / name))]
    said = await cluster.kubectl("create", "--dry-run=server", "--validate=strict", *folders)
    assert said.count("created") == sum(
        len(list(yaml.safe_load_all(path.read_text()))) for path in [*VALID, *(EXAMPLES / "runs").glob("*.yaml")]
    )


async def test_every_invalid_example_is_refused_for_the_reason_that_it_names(cluster: Kubernetes) -> None:
    assert len(INVALID) > 80
    with pytest.raises(KubectlError) as refusals:
        await cluster.kubectl(
            "create", "--dry-run=server", "--validate=strict", "-f", str(EXAMPLES / "invalid"), "--v=0"
        )
    said = refusals.value.said.split("Error from server")
    wrong = []
    for path in INVALID:
        why = path.read_text().splitlines()[0].removeprefix("# ")
        answers = [answer for answer in said if f'{path.name}"' in answer]
        if not any(why in answer for answer in answers):
            wrong.append(f"{path.name}: {answers or 'was taken'}")
    assert wrong == []


async def test_every_rule_of_the_schemas_is_tried_by_an_example_or_a_change(cluster: Kubernetes) -> None:
    """A rule that compares with the object before is tried below: no example can break it."""
    reasons = [path.read_text().splitlines()[0].removeprefix("# ") for path in INVALID]
    untried = []
    for kind in KINDS:
        crd = await cluster.get("crd", f"{kind}.amends.dev")
        for rule in rules_in(crd):
            if "oldSelf" in rule["rule"]:
                assert rule["message"] in IMMUTABLE, rule
            elif not any(reason in rule["message"] for reason in reasons):
                untried.append(f"{kind}: {rule['message']}")
    assert untried == []


def rules_in(node: object) -> Iterator[dict]:
    """All CEL rules below a node of a schema."""
    if isinstance(node, dict):
        yield from node.get("x-kubernetes-validations", ())
        for inner in node.values():
            yield from rules_in(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from rules_in(inner)


SERVICE, SAGA, INPUT, KEY = IMMUTABLE = (
    "is immutable: make another Participant for another service",
    "is immutable: make another SagaRun",
    "input cannot be changed any more, the run has started with it: make another SagaRun",
    "key cannot be added or taken away: make another SagaRun",
)


async def test_immutable_fields_cannot_be_changed(cluster: Kubernetes) -> None:
    await cluster.kubectl("apply", "-f", str(EXAMPLES / "valid" / "participant-loopback.yaml"))
    await cluster.kubectl("apply", "-f", str(EXAMPLES / "valid" / "sagarun-minimal.yaml"))
    try:
        await refused(cluster, "participant/loopback", {"service": "other.v1.Service"}, SERVICE)
        await refused(cluster, "sagarun/minimal", {"saga": "other"}, SAGA)
        await refused(cluster, "sagarun/minimal", {"key": "late"}, KEY)
    finally:
        await cluster.kubectl("delete", "participant/loopback", "sagarun/minimal")


async def test_the_input_can_be_changed_until_the_run_has_started(cluster: Kubernetes) -> None:
    await cluster.kubectl("apply", "-f", str(EXAMPLES / "valid" / "sagarun-minimal.yaml"))
    try:
        await patch(cluster, "sagarun/minimal", {"spec": {"input": {"a": 1, "deep": {"list": [1]}}}})
        await patch(cluster, "sagarun/minimal", {"spec": {"input": {"a": 2}}})
        await patch(cluster, "sagarun/minimal", {"status": {"runId": "r-1"}}, "--subresource=status")
        for change in ({"a": 3}, {"deep": {"list": [2]}}, {"more": 1}, {"a": None}, None):
            await refused(cluster, "sagarun/minimal", {"input": change}, INPUT)
        await patch(cluster, "sagarun/minimal", {"spec": {"ttlAfterEnd": "1h"}})
        await patch(cluster, "sagarun/minimal", {"status": {"phase": "Running"}}, "--subresource=status")
    finally:
        await cluster.kubectl("delete", "sagarun/minimal")


async def refused(cluster: Kubernetes, name: str, spec: dict, why: str) -> None:
    with pytest.raises(KubectlError, match=re.escape(why)):
        await patch(cluster, name, {"spec": spec})


async def patch(cluster: Kubernetes, name: str, change: dict, *flags: str) -> None:
    await cluster.kubectl("patch", name, "--type=merge", *flags, "-p", json.dumps(change))


async def test_a_resource_is_born_not_ready(cluster: Kubernetes) -> None:
    await cluster.kubectl("apply", "-f", str(EXAMPLES / "valid" / "saga-minimal.yaml"))
    try:
        assert (await cluster.get("saga", "minimal"))["status"] == {"observedGeneration": -1}
    finally:
        await cluster.kubectl("delete", "saga/minimal")


@pytest.mark.parametrize("kind", KINDS)
async def test_every_field_is_explained_and_bounded(cluster: Kubernetes, kind: str) -> None:
    crd = await cluster.get("crd", f"{kind}.amends.dev")
    (version,) = crd["spec"]["versions"]
    bare: list[str] = []

    def walk(node: dict, path: str, in_list: bool) -> None:
        if not in_list and path and path != "metadata" and not node.get("description"):
            bare.append(f"{path} is not explained")
        text = node.get("type") == "string" and not {"enum", "format", "maxLength"} & node.keys()
        if text and path not in ("apiVersion", "kind"):
            bare.append(f"{path} has no maxLength")
        if node.get("type") == "array" and ("maxItems" not in node or "x-kubernetes-list-type" not in node):
            bare.append(f"{path} has no maxItems, or no list type")
        for name, inner in node.get("properties", {}).items():
            walk(inner, f"{path}.{name}".lstrip("."), False)
        if "items" in node:
            walk(node["items"], f"{path}[]", True)

    walk(version["schema"]["openAPIV3Schema"], "", False)
    assert bare == []
    assert crd["spec"]["names"]["categories"] == ["amends"]
    assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert version["subresources"] == {"status": {}}
    conditions = version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]["conditions"]
    assert (conditions["x-kubernetes-list-type"], conditions["x-kubernetes-list-map-keys"]) == ("map", ["type"])


async def test_kubectl_explain_reads_like_documentation(cluster: Kubernetes) -> None:
    said = await cluster.kubectl("explain", "saga.spec.steps")
    for part in ("Without `after` each waits for the one above it", "compensate", "point of no return"):
        assert part in said


COLUMNS = {
    "sg": "NAME READY PHASE STEPS RUNNING PARKED AGE REASON DIGEST MESSAGE",
    "sgr": "NAME SAGA PHASE STEPS MESSAGE AGE READY REASON RUN ENDED",
    "ptc": "NAME READY PHASE SERVICE METHODS USED BY AGE TARGET REASON MESSAGE",
    "chg": "NAME READY PHASE RUNNING LATE WELL UNDONE AGE CONTRADICTORY REASON DIGEST MESSAGE",
    "rtp": "NAME READY PHASE ATTEMPTS TIMEOUT BACKOFF USED BY AGE REASON MESSAGE",
}


@pytest.mark.parametrize("short", COLUMNS)
async def test_each_kind_has_a_short_name_and_columns_that_say_what_matters(cluster: Kubernetes, short: str) -> None:
    await cluster.kubectl("apply", *(f"-f={EXAMPLES / 'valid' / name}" for name in ONE_OF_EACH))
    try:
        header = (await cluster.kubectl("get", short, "-o", "wide")).splitlines()[0]
        assert " ".join(header.split()) == COLUMNS[short]
        assert len((await cluster.kubectl("get", "amends", "-o", "name")).split()) >= len(ONE_OF_EACH)
    finally:
        await cluster.kubectl("delete", *(f"-f={EXAMPLES / 'valid' / name}" for name in ONE_OF_EACH))


ONE_OF_EACH = (
    "choreography-minimal.yaml",
    "participant-loopback.yaml",
    "retrypolicy-empty.yaml",
    "saga-minimal.yaml",
    "sagarun-minimal.yaml",
)


async def test_objects_are_selected_by_the_fields_that_people_ask_for(cluster: Kubernetes) -> None:
    await cluster.kubectl("apply", *(f"-f={EXAMPLES / 'valid' / name}" for name in ONE_OF_EACH))
    try:
        for kind, name, selector in (
            ("sagarun", "minimal", "spec.saga=minimal"),
            ("participant", "loopback", "spec.service=trips.v1.HotelService"),
        ):
            found = await cluster.kubectl("get", kind, "--field-selector", selector, "-o", "name")
            assert found.split() == [f"{kind}.amends.dev/{name}"]
        await patch(cluster, "sagarun/minimal", {"status": {"phase": "Parked"}}, "--subresource=status")
        await patch(cluster, "saga/minimal", {"status": {"phase": "Refused"}}, "--subresource=status")
        for kind, phase in (("sagarun", "Parked"), ("saga", "Refused")):
            found = await cluster.kubectl("get", kind, "--field-selector", f"status.phase={phase}", "-o", "name")
            assert found.split() == [f"{kind}.amends.dev/minimal"]
    finally:
        await cluster.kubectl("delete", *(f"-f={EXAMPLES / 'valid' / name}" for name in ONE_OF_EACH))
