"""Installs Argo CD, and waits for what it deploys. Called by `up`, `ship` and `status`."""

import os
import re
import shutil
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from amends_delivery.inputs import LIBRARY_CHART
from amends_delivery.kind import secrets
from amends_delivery.kind.place import APPLY, KindCluster
from amends_delivery.running import DeliveryError, attempt

VERSION = "v3.2.11"
MANIFEST = f"https://raw.githubusercontent.com/argoproj/argo-cd/{VERSION}/manifests/install.yaml"
ENVIRONMENT = "argocd/envs/kind"
LOOK = timedelta(milliseconds=500)
ROLLED_OUT = "--timeout=300s"
SYNCED, HEALTHY = "Synced", "Healthy"


@dataclass(frozen=True, slots=True)
class Application:
    """The state of one deployable, as Argo CD reports it."""

    name: str
    sync: str
    health: str
    revision: str
    message: str

    @property
    def well(self) -> bool:
        """Return whether the deployable runs as git says, and is healthy."""
        return (self.sync, self.health) == (SYNCED, HEALTHY)


def manifest() -> bytes:
    """Return the release's manifest, from ARGOCD_MANIFEST: a file or a URL. Raises DeliveryError."""
    source = os.environ.get("ARGOCD_MANIFEST") or MANIFEST
    if "://" not in source:
        try:
            return Path(source).read_bytes()
        except OSError as error:
            raise DeliveryError(f"ARGOCD_MANIFEST: {error}", f"Unset it, and {MANIFEST} is fetched.") from None
    try:
        with urllib.request.urlopen(source, timeout=60) as answer:  # noqa: S310 - what the user or this file names
            return bytes(answer.read())
    except OSError as error:
        raise DeliveryError(
            f"Argo CD's manifest cannot be fetched from {source}: {error}",
            "Fetch it, and name the file: ARGOCD_MANIFEST",
        ) from None


def images(release: bytes) -> list[str]:
    """Return the images that Argo CD's manifest names and that run here."""
    found = set(re.findall(r"^\s+image: (\S+)$", release.decode(), re.MULTILINE))
    return sorted(image for image in found if "dex" not in image)


def install(cluster: KindCluster, release: bytes) -> None:
    """Apply Argo CD with our settings. `finish` waits for it."""
    with TemporaryDirectory() as folder:
        copy = Path(folder, "argocd")
        shutil.copytree(cluster.root / "argocd" / "bootstrap", copy / "bootstrap")
        shutil.copytree(cluster.root / "argocd" / "health", copy / "health")
        (copy / "bootstrap" / "install.yaml").write_bytes(release)
        cluster.kubectl(*APPLY, "-k", str(copy / "bootstrap"))


def finish(cluster: KindCluster, webhook_secret: str) -> None:
    """Give Argo CD its webhook secrets and the environment's rules, and wait until it works."""
    patch = yaml.safe_dump({"stringData": secrets.webhook_settings(webhook_secret)})
    cluster.kubectl("-n", "argocd", "patch", "secret", "argocd-secret", "--type=merge", "-p", patch)
    for workload in ("deploy/argocd-server", "deploy/argocd-repo-server", "sts/argocd-application-controller"):
        cluster.kubectl("-n", "argocd", "rollout", "status", workload, ROLLED_OUT)
    _let_webhooks_in(cluster)
    cluster.kubectl(*APPLY, "-k", str(cluster.root / ENVIRONMENT / "environment"))


def _let_webhooks_in(cluster: KindCluster) -> None:
    """At the first installation the ApplicationSet controller starts before argocd-server has made the key it needs.

    It then never listens for webhooks, and says so once in its log.
    """
    controller = "deploy/argocd-applicationset-controller"
    cluster.kubectl("-n", "argocd", "rollout", "status", controller, ROLLED_OUT)
    log = cluster.kubectl("-n", "argocd", "logs", controller, "--tail=-1")
    if "failed to create webhook handler" in log:
        cluster.kubectl("-n", "argocd", "rollout", "restart", controller)
        cluster.kubectl("-n", "argocd", "rollout", "status", controller, ROLLED_OUT)


def expected(root: Path) -> list[str]:
    """Return the names of the Applications that the environment asks for."""
    return sorted(path.stem for path in (root / ENVIRONMENT).glob("*.yaml"))


def applications(cluster: KindCluster) -> dict[str, Application]:
    """Return what Argo CD says of each Application."""
    found = cluster.get("applications.argoproj.io", "-n", "argocd") or {"items": []}
    return {item["metadata"]["name"]: _application(item) for item in found["items"]}


def _application(item: dict[str, Any]) -> Application:
    status = item.get("status", {})
    sync = status.get("sync", {})
    return Application(
        item["metadata"]["name"],
        sync.get("status", "Unknown"),
        status.get("health", {}).get("status", "Unknown"),
        sync.get("revision", ""),
        "; ".join(_messages(status)),
    )


def _messages(status: dict[str, Any]) -> Iterator[str]:
    for condition in status.get("conditions", ()):
        yield condition.get("message", "")
    operation = status.get("operationState", {})
    if operation.get("phase") in ("Failed", "Error", "Running"):
        yield operation.get("message", "")


def wait_for(
    cluster: KindCluster,
    names: list[str],
    revision: str,
    within: timedelta,
    told: Callable[[list[str]], None],
) -> None:
    """Wait until Applications are deployed as a revision says, and healthy. Raises DeliveryError.

    `told` hears of each look: which Applications are as they should be.
    """
    end = time.monotonic() + within.total_seconds()
    while True:
        found = applications(cluster)
        done = [name for name in names if name in found and _is_at(cluster.root, found[name], revision)]
        told(done)
        if len(done) == len(names):
            return
        if time.monotonic() > end:
            missing = Application("", "Missing", "Missing", "", _why_missing(cluster))
            late = (name for name in names if name not in done)
            said = "\n".join(f"  {name}: {_say(found.get(name, missing))}" for name in late)
            raise DeliveryError(
                f"after {within.total_seconds():.0f} s these are not deployed and healthy:\n{said}",
                "`make kind-status` shows what they say now.",
            )
        time.sleep(LOOK.total_seconds())


def _is_at(root: Path, state: Application, revision: str) -> bool:
    """Return whether an Application is healthy at a revision: Argo CD renders only those that a commit concerns."""
    if not state.well or not state.revision:
        return False
    file = f"{ENVIRONMENT}/{state.name}.yaml"
    chart = yaml.safe_load((root / file).read_text())["deploy"]["chart"]
    concerns = (f"charts/{chart}", LIBRARY_CHART, file)
    return attempt("git", "diff", "--quiet", state.revision, revision, "--", *concerns, cwd=root).returncode == 0


def _why_missing(cluster: KindCluster) -> str:
    """Return what keeps the ApplicationSet from making Applications."""
    found = cluster.get("applicationset", "deployables", "-n", "argocd") or {}
    conditions = found.get("status", {}).get("conditions", ())
    said = [one["message"] for one in conditions if (one["type"], one["status"]) == ("ErrorOccurred", "True")]
    return said[0] if said else "the ApplicationSet has not made it yet"


def _say(state: Application) -> str:
    return f"{state.sync}, {state.health}" + (f": {state.message}" if state.message else "")
