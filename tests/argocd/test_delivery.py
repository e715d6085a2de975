"""What Argo CD is told to deploy, and by which rules: bootstrap, projects, the ApplicationSet, the environments."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ARGOCD = ROOT / "argocd"
ENVIRONMENTS = sorted(path.name for path in (ARGOCD / "envs").iterdir())
OF_KIND = {"catalog-cache", "customers-cache", "kafka", "mail-catcher", "nats", "postgres"}
"""What other environments have of their own."""
NO_KUBECTL = "needs kubectl on PATH: https://kubernetes.io/docs/tasks/tools"
SNAPSHOTS = ROOT / "tests" / "charts" / "snapshots"

Manifest = dict[str, Any]


def kustomize(folder: Path) -> dict[tuple[str, str], Manifest]:
    """The objects that `kubectl kustomize` makes of a folder, by kind and name."""
    if shutil.which("kubectl") is None:
        pytest.skip(NO_KUBECTL)
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    made = [one for one in yaml.safe_load_all(done.stdout) if one]
    return {(one["kind"], one["metadata"]["name"]): one for one in made}


def files(environment: str) -> dict[str, Manifest]:
    """The files of an environment, which are values, by deployable."""
    return {path.stem: yaml.safe_load(path.read_text()) for path in (ARGOCD / "envs" / environment).glob("*.yaml")}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_an_environment_is_made_of_two_projects_and_one_applicationset(environment: str) -> None:
    made = kustomize(ARGOCD / "envs" / environment / "environment")
    assert set(made) == {("AppProject", "amends"), ("AppProject", "default"), ("ApplicationSet", "deployables")}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_everything_comes_from_one_repository_and_the_files_of_the_environment(environment: str) -> None:
    made = kustomize(ARGOCD / "envs" / environment / "environment")
    spec = made["ApplicationSet", "deployables"]["spec"]
    (generator,) = spec["generators"]
    repository = generator["git"]["repoURL"]
    assert repository == spec["template"]["spec"]["source"]["repoURL"]
    assert made["AppProject", "amends"]["spec"]["sourceRepos"] == [repository]
    assert generator["git"]["files"] == [
        {"path": f"argocd/envs/{environment}/*.yaml"},
        {"path": f"argocd/envs/{environment}/environment/*", "exclude": True},
    ]
    assert "REPOSITORY" not in str(made)
    assert "ENVIRONMENT" not in str(made)


def test_environments_differ_in_their_files_alone() -> None:
    def common(environment: str) -> str:
        made = kustomize(ARGOCD / "envs" / environment / "environment")
        repository = made["AppProject", "amends"]["spec"]["sourceRepos"][0]
        return yaml.safe_dump(list(made.values())).replace(repository, "R").replace(f"envs/{environment}/", "envs/E/")

    assert len({common(environment) for environment in ENVIRONMENTS}) == 1


def test_a_commit_to_one_file_concerns_one_application() -> None:
    spec = kustomize(ARGOCD / "envs/kind/environment")["ApplicationSet", "deployables"]["spec"]["template"]
    paths = spec["metadata"]["annotations"]["argocd.argoproj.io/manifest-generate-paths"].split(";")
    values = ["/{{ .path.path }}/environment/values.yaml", "/{{ .path.path }}/{{ .path.filename }}"]
    assert sorted(paths) == sorted(["/charts/{{ .deploy.chart }}", "/charts/microservice", *values])
    assert spec["spec"]["source"]["helm"]["valueFiles"] == values


def test_a_sync_heals_prunes_and_takes_up_a_fix_while_it_is_stuck() -> None:
    template = kustomize(ARGOCD / "envs/kind/environment")["ApplicationSet", "deployables"]["spec"]["template"]
    policy = template["spec"]["syncPolicy"]
    assert policy["automated"] == {"prune": True, "selfHeal": True}
    assert policy["retry"]["refresh"] is True
    assert {"CreateNamespace=true", "ServerSideApply=true", "SkipDryRunOnMissingResource=true"} <= set(
        policy["syncOptions"]
    )
    labels = policy["managedNamespaceMetadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_nothing_waits_for_another_application() -> None:
    made = kustomize(ARGOCD / "envs/kind/environment")["ApplicationSet", "deployables"]
    assert "strategy" not in made["spec"]
    assert "sync-wave" not in str(made)
    for path in (ROOT / "charts").glob("*/templates/*"):
        assert "argocd.argoproj.io/hook" not in path.read_text(), path


def test_the_project_permits_exactly_what_is_deployed() -> None:
    project = kustomize(ARGOCD / "envs/kind/environment")["AppProject", "amends"]["spec"]
    permitted = {(one["group"], one["kind"]) for one in project["namespaceResourceWhitelist"]}
    wide = {(one["group"], one["kind"]) for one in project["clusterResourceWhitelist"]}
    namespaces = {one["namespace"] for one in project["destinations"]}
    assert not {"*"} & (namespaces | {part for one in permitted | wide for part in one})
    assert wide == {("", "Namespace"), ("apiextensions.k8s.io", "CustomResourceDefinition")}
    deployed = {values["deploy"]["namespace"] for name in ENVIRONMENTS for values in files(name).values()}
    assert namespaces == deployed
    rendered = set()
    for path in SNAPSHOTS.glob("*.yaml"):
        if path.stem != "git-server":
            rendered |= {_group_kind(one) for one in yaml.safe_load_all(path.read_text()) if one}
    optional = {
        ("autoscaling", "HorizontalPodAutoscaler"),
        ("monitoring.coreos.com", "PrometheusRule"),
        ("monitoring.coreos.com", "ServiceMonitor"),
        ("policy", "PodDisruptionBudget"),
    }
    assert rendered <= permitted | wide
    assert permitted <= rendered | optional | {("", "PersistentVolumeClaim")}


def _group_kind(manifest: Manifest) -> tuple[str, str]:
    group, slash, _ = manifest["apiVersion"].partition("/")
    return (group if slash else "", manifest["kind"])


def test_argo_cds_own_project_deploys_nothing() -> None:
    spec = kustomize(ARGOCD / "envs/kind/environment")["AppProject", "default"]["spec"]
    assert spec["sourceRepos"] == spec["destinations"] == spec["namespaceResourceWhitelist"] == []


@pytest.mark.parametrize("environment", [name for name in ENVIRONMENTS if name != "kind"])
def test_no_image_of_a_real_environment_floats(environment: str) -> None:
    for name, values in files(environment).items():
        if "image" in values:
            image = values["image"]
            assert image["registry"], name
            assert re.fullmatch(r"[0-9a-f]{12}", image.get("tag", "")) or image.get("digest"), name


def test_production_is_highly_available_and_has_its_data_outside() -> None:
    deployed = files("production")
    assert not OF_KIND & set(deployed)
    for name, values in deployed.items():
        if name in ("amends-crds", "sagas", "operator"):
            continue
        pods = values.get("autoscaling", {}).get("minReplicas") or values["replicas"]
        assert pods >= 3, name
        assert name == "gateway" or values["database"]["at"]["cidr"], name


def test_every_environment_deploys_the_same_services() -> None:
    services = {name: set(files(name)) - OF_KIND for name in ENVIRONMENTS}
    assert len({frozenset(names) for names in services.values()}) == 1


@pytest.fixture(scope="module")
def bootstrap(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Manifest]:
    """The installation, over a release manifest cut down to what is patched."""
    folder = tmp_path_factory.mktemp("argocd")
    for name in ("bootstrap", "health"):
        shutil.copytree(ARGOCD / name, folder / name)
    (folder / "bootstrap" / "install.yaml").write_text(yaml.safe_dump_all(_release()))
    return kustomize(folder / "bootstrap")


def _release() -> list[Manifest]:
    label = {"app.kubernetes.io/part-of": "argocd"}
    pod = {"template": {"spec": {"containers": [{"name": "a", "image": "i", "imagePullPolicy": "Always"}]}}}
    names = ("server", "repo-server", "dex-server", "notifications-controller", "applicationset-controller", "redis")
    workloads = [("Deployment", f"argocd-{name}") for name in names] + [
        ("StatefulSet", "argocd-application-controller")
    ]
    made: list[Manifest] = [
        {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": pod} for kind, name in workloads
    ]
    for name in ("argocd-cm", "argocd-cmd-params-cm"):
        made.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": label}})
    ports = [{"name": name, "port": port, "protocol": "TCP"} for name, port in (("http", 80), ("https", 443))]
    spec = {"ports": ports, "selector": {"app.kubernetes.io/name": "argocd-server"}}
    made.append({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "argocd-server"}, "spec": spec})
    return made


def test_argo_cd_pulls_no_image_that_is_there_and_runs_neither_dex_nor_notifications(bootstrap) -> None:
    for (kind, name), manifest in bootstrap.items():
        if kind in ("Deployment", "StatefulSet"):
            (container,) = manifest["spec"]["template"]["spec"]["containers"]
            assert container["imagePullPolicy"] == "IfNotPresent", name
            assert container["resources"]["requests"], name
            off = name in ("argocd-dex-server", "argocd-notifications-controller")
            assert (manifest["spec"].get("replicas") == 0) is off, name


def test_argo_cd_knows_our_kinds_leaves_runs_alone_and_takes_no_large_webhooks(bootstrap) -> None:
    settings = bootstrap["ConfigMap", "argocd-cm"]
    assert settings["metadata"]["labels"]["app.kubernetes.io/part-of"] == "argocd"
    assert "resource.customizations.health.amends.dev_Saga" in settings["data"]
    assert "resource.customizations.actions.amends.dev_SagaRun" in settings["data"]
    excluded = yaml.safe_load(settings["data"]["resource.exclusions"])
    assert {"apiGroups": ["amends.dev"], "kinds": ["SagaRun"]} in excluded
    assert int(settings["data"]["webhook.maxPayloadSizeMB"]) <= 10


def test_no_secret_is_in_the_bootstrap(bootstrap) -> None:
    assert "Secret" not in {kind for kind, _ in bootstrap}


def test_the_ports_of_kind_lead_to_what_is_deployed(bootstrap) -> None:
    config = yaml.safe_load((ROOT / "kind-config.yaml").read_text())
    mappings = [mapping for node in config["nodes"] for mapping in node["extraPortMappings"]]
    assert {mapping["listenAddress"] for mapping in mappings} == {"127.0.0.1"}
    published = {
        values[port]["nodePort"] for values in files("kind").values() for port in ("grpc", "web") if port in values
    }
    for chart in ("git-server", "mail-catcher"):
        published.add(yaml.safe_load((ROOT / "charts" / chart / "values.yaml").read_text())["nodePort"])
    published |= {
        one["nodePort"] for one in bootstrap["Service", "argocd-server"]["spec"]["ports"] if "nodePort" in one
    }
    assert {mapping["containerPort"] for mapping in mappings} == published
