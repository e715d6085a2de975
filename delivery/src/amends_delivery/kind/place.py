"""The cluster of kind-config.yaml: is it there, can it be made, how is it asked. Called by everything about kind."""

import json
import os
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from amends_delivery.running import DeliveryError, attempt, run

CONFIG = "kind-config.yaml"
LEAST_MEMORY = 5 * 1024**3
"""Bytes that the engine must have in all: the installation takes less than 4.5 GB of them."""
LEAST_FREE = 3 * 1024**3
PROGRAMS = {
    "docker": "https://docs.docker.com/engine/install",
    "kind": "https://kind.sigs.k8s.io/docs/user/quick-start/#installation",
    "kubectl": "https://kubernetes.io/docs/tasks/tools",
    "helm": "https://helm.sh/docs/intro/install",
}


@dataclass(frozen=True, slots=True)
class KindCluster:
    """A kind cluster, by its configuration."""

    root: Path
    name: str
    ports: tuple[int, ...]
    """What it publishes on 127.0.0.1."""

    @classmethod
    def read(cls, root: Path) -> "KindCluster":
        """Read kind-config.yaml. AMENDS_KIND_NAME gives the cluster another name."""
        config = yaml.safe_load((root / CONFIG).read_text())
        mappings = (mapping for node in config["nodes"] for mapping in node.get("extraPortMappings", ()))
        name = os.environ.get("AMENDS_KIND_NAME") or config["name"]
        return cls(root, name, tuple(mapping["hostPort"] for mapping in mappings))

    @classmethod
    def standing(cls, root: Path) -> "KindCluster":
        """Return the cluster. Raises DeliveryError when it is not there, or does not answer."""
        cluster = cls.read(root)
        if not cluster.exists:
            raise DeliveryError(f"there is no cluster {cluster.name}", "make kind-up")
        cluster.check()
        return cluster

    @property
    def exists(self) -> bool:
        """Return whether kind knows the cluster."""
        return self.name in run("kind", "get", "clusters").split()

    def create(self) -> None:
        """Make the cluster. Raises DeliveryError with what is in the way."""
        check_memory()
        for port in self.ports:
            check_port(port)
        image = os.environ.get("KIND_IMAGE")
        chosen = ("--image", image) if image else ()
        run(
            *("kind", "create", "cluster", "--name", self.name, "--config", CONFIG, "--wait", "120s", *chosen),
            cwd=self.root,
            hint="`kind create cluster --retain` and `kind export logs` tell more; `make kind-down` removes it.",
        )

    def check(self) -> None:
        """Raise DeliveryError when the cluster does not answer."""
        answer = attempt(*self.command("get", "--raw", "/readyz", "--request-timeout=10s"))
        if answer.returncode != 0:
            raise DeliveryError(
                f"the cluster {self.name} is there and does not answer: {answer.stderr.strip()}",
                "After a restart of the engine it needs a minute. If it stays so: make kind-down kind-up",
            )

    def delete(self) -> None:
        """Remove the cluster with everything in it."""
        run("kind", "delete", "cluster", "--name", self.name)

    def command(self, *arguments: str) -> tuple[str, ...]:
        """Return the command line of kubectl for this cluster."""
        return ("kubectl", "--context", f"kind-{self.name}", *arguments)

    def kubectl(self, *arguments: str, stdin: str | None = None, hint: str = "") -> str:
        """Run kubectl on this cluster, and return what it prints. Raises DeliveryError."""
        return run(*self.command(*arguments), stdin=stdin, hint=hint)

    def apply(self, *objects: dict[str, Any]) -> None:
        """Apply objects, taking over fields that somebody else has set."""
        self.kubectl(*APPLY, "-f", "-", stdin=yaml.safe_dump_all(objects))

    def get(self, *what: str) -> Any:
        """Return an object, or a list of objects, as kubectl gets it; None when there is none."""
        shown = self.kubectl("get", *what, "--ignore-not-found", "-o", "json")
        return json.loads(shown) if shown.strip() else None

    def images(self) -> set[str]:
        """Return the images that the node has, as the world calls them."""
        node = f"{self.name}-control-plane"
        listed = run("docker", "exec", node, "ctr", "--namespace=k8s.io", "images", "list", "--quiet")
        return {name.removeprefix("docker.io/").removeprefix("library/") for name in listed.split()}

    def load(self, images: list[str]) -> None:
        """Copy images of the engine into the node."""
        run("kind", "load", "docker-image", "--name", self.name, *images)


APPLY = ("apply", "--server-side", "--force-conflicts", "--field-manager=amends-kind")


def check_programs() -> None:
    """Raise DeliveryError for the first program that is missing."""
    for name, page in PROGRAMS.items():
        if shutil.which(name) is None:
            raise DeliveryError(f"there is no program called {name}", f"How to get it: {page}")


def check_port(port: int) -> None:
    """Raise DeliveryError when somebody listens on a port that the cluster wants to publish."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise DeliveryError(
                f"port {port} of 127.0.0.1 is taken",
                f"`ss -ltnp 'sport = :{port}'` shows by whom: stop it, or change hostPort in {CONFIG}.",
            ) from error


def check_memory() -> None:
    """Raise DeliveryError when the engine has too little memory for the installation."""
    total = int(run("docker", "info", "--format", "{{.MemTotal}}"))
    free = _available()
    if total < LEAST_MEMORY:
        raise DeliveryError(
            f"the engine has {total / 1024**3:.1f} GiB of memory, and the shop needs {LEAST_MEMORY / 1024**3:.0f}",
            "Give it more (Docker Desktop: Settings, Resources).",
        )
    if free is not None and free < LEAST_FREE:
        raise DeliveryError(
            f"{free / 1024**3:.1f} GiB of memory are free, and the shop needs {LEAST_FREE / 1024**3:.0f}",
            "Stop something that is large: `ps aux --sort=-rss | head` shows what is.",
        )


def _available() -> int | None:
    path = Path("/proc/meminfo")
    if not path.exists():
        return None
    found = [line.split()[1] for line in path.read_text().splitlines() if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024
