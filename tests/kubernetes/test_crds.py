"""The schemas on a real API server: what they take, what they refuse, and how they read."""

from pathlib import Path

import pytest
import yaml
from amends_testkit.kubernetes import KubectlError, Kubernetes

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "kubernetes"
VALID = [*sorted((EXAMPLES / "valid").glob("*.yaml")), *sorted((EXAMPLES / "shop").glob("*.yaml"))]
INVALID = sorted((EXAMPLES / "invalid").glob("*.yaml"))
KINDS = ("sagas", "sagaruns", "retrypolicies", "participants")


async def test_every_valid_example_is_taken(cluster: Kubernetes) -> None:
    folders = [argument for name in ("valid", "shop", "runs") for argument in ("-f", str(EXAMPLES / name))]
    said = await cluster.kubectl("create", "--dry-run=server", "--validate=strict", *folders)
    assert said.count("created") == sum(
        len(list(yaml.safe_load_all(path.read_text()))) for path in [*VALID, *(EXAMPLES / "runs").glob("*.yaml")]
    )


async def test_every_invalid_example_is_refused_for_the_reason_that_it_names(cluster: Kubernetes) -> None:
    assert len(INVALID) > 60
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


async def test_immutable_fields_cannot_be_changed(cluster: Kubernetes) -> None:
    path = EXAMPLES / "valid" / "participant-loopback.yaml"
    await cluster.kubectl("apply", "-f", str(path))
    await cluster.kubectl("apply", "-f", str(EXAMPLES / "valid" / "sagarun-minimal.yaml"))
    try:
        with pytest.raises(KubectlError, match="is immutable"):
            await cluster.kubectl(
                "patch", "participant", "loopback", "--type=merge", "-p", '{"spec":{"service":"other.v1.Service"}}'
            )
        with pytest.raises(KubectlError, match="is immutable"):
            await cluster.kubectl("patch", "sagarun", "minimal", "--type=merge", "-p", '{"spec":{"saga":"other"}}')
    finally:
        await cluster.kubectl("delete", "participant/loopback", "sagarun/minimal")


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


async def test_kubectl_explain_reads_like_documentation(cluster: Kubernetes) -> None:
    said = await cluster.kubectl("explain", "saga.spec.steps")
    for part in ("Without `after` each waits for the one above it", "compensate", "point of no return"):
        assert part in said
