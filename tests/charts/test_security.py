"""What of docs/reference/security.md a chart can keep, read from everything that the environments deploy."""

import re
import subprocess

import pytest
import yaml

from .conftest import CHARTS, ENVS, ROOT, TAGGED, Helm, containers, pods

SECRETS = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----|\b(?:ghp|gho|glpat|xox[bap])[-_][A-Za-z0-9]{16,}"
    r"|\bAKIA[0-9A-Z]{16}\b|postgres(?:ql)?://[^:/\s{]+:(?!secret@)[^@\s{<.$]{6,}@"
)


@pytest.fixture(scope="module")
def deployed(helm: Helm) -> dict:
    """Everything of every environment, and the git server of kind."""
    found = {name: helm.deployed(name) for name in ENVS}
    return found | {"kind/git-server": helm.render("git-server", _tagged(helm), namespace="gitops")}


def _tagged(helm: Helm):
    path = helm.charts.parent / "tagged.yaml"
    path.write_text(yaml.safe_dump(TAGGED))
    return path


def test_only_the_operator_may_use_the_api_server_and_as_its_chart_says(deployed) -> None:
    """What the rules are is compared in tests/kubernetes/test_rights.py."""
    rules = yaml.safe_load((ROOT / "charts/operator/values.yaml").read_text())["rbac"]["rules"]
    roles = {name: [one["rules"] for one in made if one["kind"] == "Role"] for name, made in deployed.items()}
    operators = {name: [rules] for name in ENVS if name.endswith("/operator")}
    assert {name: granted for name, granted in roles.items() if granted} == operators
    assert operators


def test_nothing_is_cluster_wide_but_the_definitions_of_our_kinds(deployed) -> None:
    wide = {"ClusterRole", "ClusterRoleBinding", "ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"}
    assert [name for name, manifests in deployed.items() if wide & {one["kind"] for one in manifests}] == []


def test_every_deployable_has_an_account_of_its_own_and_only_the_operator_a_token(deployed) -> None:
    for name, manifests in deployed.items():
        for owner, pod in pods(manifests):
            token = pod["spec"]["automountServiceAccountToken"]
            assert token is (owner == "operator"), f"{name}: {owner}"
        for account in (one for one in manifests if one["kind"] == "ServiceAccount"):
            assert account["automountServiceAccountToken"] is False


def test_pods_are_restricted_and_write_to_no_image(deployed) -> None:
    for name, manifests in deployed.items():
        for owner, pod in pods(manifests):
            where = f"{name}: {owner}"
            security = pod["spec"]["securityContext"]
            assert security["runAsNonRoot"] is True, where
            assert security["runAsUser"] > 0, where
            assert security["seccompProfile"] == {"type": "RuntimeDefault"}, where
            assert pod["spec"].get("hostNetwork") is None, where
            assert pod["spec"]["enableServiceLinks"] is False, where
            for container in containers(pod):
                assert container["securityContext"] == {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                }, where
                resources = container["resources"]
                assert resources["limits"]["memory"] == resources["requests"]["memory"], where
                assert "cpu" not in resources["limits"], where
            assert not [volume for volume in pod["spec"].get("volumes", ()) if "hostPath" in volume], where


def test_every_pod_that_stays_has_a_policy_that_denies_the_rest(deployed) -> None:
    for name, manifests in deployed.items():
        policies = [one["spec"] for one in manifests if one["kind"] == "NetworkPolicy"]
        for manifest in (one for one in manifests if one["kind"] in ("Deployment", "StatefulSet")):
            if name == "kind/git-server":  # it is there for kind alone
                continue
            labels = manifest["spec"]["template"]["metadata"]["labels"]
            (policy,) = (one for one in policies if one["podSelector"]["matchLabels"].items() <= labels.items())
            assert sorted(policy["policyTypes"]) == ["Egress", "Ingress"], name
            assert {} not in policy.get("ingress", []) + policy.get("egress", []), f"{name} opens everything"


def test_no_secret_is_rendered(deployed) -> None:
    assert [name for name, manifests in deployed.items() if "Secret" in {one["kind"] for one in manifests}] == []


def test_no_secret_is_in_git() -> None:
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = []
    for name in filter(None, names.split("\0")):
        try:
            text = (ROOT / name).read_text()
        except (UnicodeDecodeError, IsADirectoryError, FileNotFoundError):
            continue
        found += [f"{name}: {match[0][:30]}" for match in SECRETS.finditer(text) if "tests/" not in name]
    assert [one for one in found if "testkit" not in one] == []


@pytest.mark.parametrize(
    "text", ["-----BEGIN EC PRIVATE KEY-----", "postgresql://orders:hunter22@db/orders", "AKIA" + "A" * 16]
)
def test_a_secret_is_recognised(text: str) -> None:
    assert SECRETS.search(text)


def test_definitions_and_databases_survive_a_deletion_in_git(deployed) -> None:
    protected = "argocd.argoproj.io/sync-options"
    for name, manifests in deployed.items():
        for manifest in manifests:
            if manifest["kind"] in ("CustomResourceDefinition", "StatefulSet"):
                assert manifest["metadata"]["annotations"][protected] == "Prune=false,Delete=false", name


def test_no_image_floats(deployed) -> None:
    """A tag that is made of what the image is made of names one image for ever; a version of somebody else's too."""
    fixed = re.compile(r"[0-9a-f]{12}|[0-9]+(\.[0-9]+)*|none")
    for name, manifests in deployed.items():
        for _, pod in pods(manifests):
            for container in containers(pod):
                assert fixed.fullmatch(container["image"].rpartition(":")[2]), f"{name}: {container['image']}"


def test_the_images_are_built_in_stages_without_root_and_from_locks() -> None:
    dockerfiles = [
        *ROOT.glob("services/*/Dockerfile"),
        ROOT / "operator/Dockerfile",
        ROOT / "argocd/git-server/Dockerfile",
    ]
    assert len(dockerfiles) >= 7
    for path in dockerfiles:
        text = path.read_text()
        assert text.count("\nFROM ") == 2, path
        assert "\nUSER 10001:10001\n" in text, path
        assert "image-install locked" in text, path
        assert "ARG BASE_IMAGE=python:3.13-slim\n" in text, path
        for label in ("title", "description", "licenses", "revision", "version"):
            assert f"org.opencontainers.image.{label}=" in text, path
    assert "--require-hashes" in (ROOT / "tools/image-install").read_text()


def test_charts_and_environments_are_complete() -> None:
    for name, path in ENVS.items():
        chart = yaml.safe_load(path.read_text())["deploy"]["chart"]
        assert chart in CHARTS, name
        assert name.rpartition("/")[2] in (chart, f"catalog-{chart}", f"customers-{chart}"), (
            name
        )  # or one that a service has for itself
