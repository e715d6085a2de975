"""Charts as helm renders them. Helm's dependencies are built in a copy, so that the tree stays as it is."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
KUBERNETES = "1.34.4"
NO_HELM = "needs helm on PATH: https://helm.sh/docs/intro/install"
ENVS = {f"{path.parent.name}/{path.stem}": path for path in sorted((ROOT / "argocd" / "envs").glob("*/*.yaml"))}
"""The values of each deployable in each environment, by `environment/deployable`."""
CHARTS = sorted(
    path.parent.name for path in (ROOT / "charts").glob("*/Chart.yaml") if path.parent.name != "microservice"
)
SERVICES = sorted(path.name for path in (ROOT / "services").iterdir() if (path / "pyproject.toml").exists())
"""What has a folder in services/, which is called as its chart."""
TAGGED = {"image": {"tag": "0123456789ab"}}
"""What a chart cannot render without."""

Manifest = dict[str, Any]


def value_files(name: str) -> list[Path]:
    """The files of a deployable's values in an environment, as the ApplicationSet gives them: the last one wins.

    Of a broker that the environment could have instead there is nothing; it is looked at as if it had it.
    """
    own = ENVS[name]
    shared = own.parent / "environment" / "values.yaml"
    return [shared, own] if shared.exists() and own.stem != "kafka" else [own]


@dataclass
class Helm:
    """Renders charts."""

    charts: Path
    cache: dict[tuple, list[Manifest]] = field(default_factory=dict)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["helm", *arguments], capture_output=True, text=True, timeout=60)

    def text(self, chart: str, *values: Path, namespace: str = "shop") -> str:
        """What `helm template` prints. Fails the test when it fails."""
        done = self.try_text(chart, *values, namespace=namespace)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def try_text(self, chart: str, *values: Path, namespace: str = "shop") -> subprocess.CompletedProcess[str]:
        files = [part for path in values for part in ("-f", str(path))]
        where = ["--kube-version", KUBERNETES, "--namespace", namespace]
        return self.run("template", chart, str(self.charts / chart), *where, *files)

    def render(self, chart: str, *values: Path, namespace: str = "shop") -> list[Manifest]:
        """All objects of a chart."""
        key = (chart, *values, namespace)
        if key not in self.cache:
            documents = yaml.safe_load_all(self.text(chart, *values, namespace=namespace))
            self.cache[key] = [document for document in documents if document]
        return self.cache[key]

    def deployed(self, name: str) -> list[Manifest]:
        """All objects of a deployable of an environment, e.g. `kind/orders`, as Argo CD would apply them."""
        deploy = yaml.safe_load(ENVS[name].read_text())["deploy"]
        return self.render(deploy["chart"], *value_files(name), namespace=deploy["namespace"])


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    if shutil.which("helm") is None:
        pytest.skip(NO_HELM)
    folder = tmp_path_factory.mktemp("charts")
    charts = folder / "charts"
    shutil.copytree(ROOT / "charts", charts, ignore=shutil.ignore_patterns("*.tgz", "Chart.lock"))
    made = Helm(charts)
    for name in CHARTS:
        if yaml.safe_load((charts / name / "Chart.yaml").read_text()).get("dependencies"):
            done = made.run("dependency", "build", str(charts / name), "--skip-refresh")
            assert done.returncode == 0, done.stderr
    return made


@pytest.fixture
def values(tmp_path: Path) -> Any:
    """Writes values into a file: what `-f` takes."""

    def write(given: dict[str, Any], name: str = "values") -> Path:
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(given))
        return path

    return write


def pods(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Every pod that the manifests make, with the name of what makes it."""
    for manifest in manifests:
        if manifest["kind"] in ("Deployment", "StatefulSet"):
            yield manifest["metadata"]["name"], manifest["spec"]["template"]
        elif manifest["kind"] == "Pod":
            yield manifest["metadata"]["name"], manifest


def containers(pod: Manifest) -> list[Manifest]:
    return [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]


def updating() -> bool:
    """Whether snapshots are written instead of compared: UPDATE_SNAPSHOTS=1."""
    return os.environ.get("UPDATE_SNAPSHOTS") == "1"
