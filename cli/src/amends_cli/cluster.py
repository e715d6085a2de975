"""The way to a cluster's orchestrator for `kubectl amends`, by kubectl itself: it knows how to log in everywhere.

A port is forwarded for as long as a command runs. Called by `amends_cli.connection` and `amends_cli.main`; nothing of
it is used when the command is called `amends`.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType, TracebackType
from typing import Any, Self

from amends_cli.failure import CliError, usage

FLAGS = ("--context", "--kubeconfig", "--cluster", "--user", "--as", "--as-group")
"""Flags of kubectl that are handed on to it."""
ORCHESTRATOR = "--orchestrator"
VARIABLE = "AMENDS_ORCHESTRATOR"
NAMESPACE_VARIABLE = "AMENDS_NAMESPACE"
SELECTOR = "app.kubernetes.io/part-of=amends"
NAMES = ("orchestrator", "amends-orchestrator")
MONITORS = ("monitor", "amends-monitor")
"""What the Service of each, or its label `app.kubernetes.io/name`, is called."""
GRPC_PORT = 50051
MAY_BE_AN_ID = re.compile(r"[0-9a-f]{4,8}(-[0-9a-f-]*)?")
PATIENCE = timedelta(seconds=30)
LOOK = timedelta(milliseconds=20)
HELP = """Of kubectl: --context, --kubeconfig, --cluster, --user, --as. The orchestrator is found by its labels, or
named with --orchestrator NAMESPACE/SERVICE[:PORT] or AMENDS_ORCHESTRATOR. -n is the context's namespace unless given.
"""


@dataclass(frozen=True, slots=True)
class Service:
    """The Kubernetes Service behind which something listens."""

    namespace: str
    name: str
    port: int

    def __str__(self) -> str:
        return f"service {self.namespace}/{self.name}"


class KubectlCluster:
    """The cluster that kubectl reaches with the flags that were given."""

    def __init__(self, flags: tuple[str, ...] = (), orchestrator: str = "") -> None:
        self._flags = flags
        self._orchestrator = orchestrator or os.environ.get(VARIABLE, "")

    def kubectl(self, *arguments: str) -> str:
        """Run kubectl and return what it prints. Raises CliError in kubectl's own words."""
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode != 0:
            said = done.stderr.strip().removeprefix("error: ").removeprefix("Error from server ") or "it failed"
            raise CliError(f"kubectl {arguments[0]}: {said}", "Look at --context, KUBECONFIG and your permissions.")
        return done.stdout

    def command(self, *arguments: str) -> list[str]:
        """Return the command line of kubectl with these arguments. Raises CliError when kubectl is not installed."""
        program = shutil.which("kubectl")
        if program is None:
            raise CliError("there is no kubectl on PATH", "Install it: https://kubernetes.io/docs/tasks/tools")
        return [program, *self._flags, *arguments]

    def namespace(self) -> str:
        """Return the namespace of the context; in a pod, where there is none, the default. Raises CliError."""
        try:
            shown = self.kubectl("config", "view", "--minify", "--output=jsonpath={..namespace}")
        except CliError as failure:
            if "current-context must exist" not in failure.message:
                raise
            return "default"
        return shown.strip() or "default"

    def run_id(self, namespace: str, name: str) -> str | None:
        """Return the run of a SagaRun; None when there is no SagaRun and the name may be the beginning of an id.

        Raises CliError.
        """
        try:
            shown = self.kubectl("get", "sagaruns.amends.dev", name, f"--namespace={namespace}", "--output=json")
        except CliError as failure:
            if "NotFound" in failure.message and MAY_BE_AN_ID.fullmatch(name):
                return None
            raise
        status: dict[str, Any] = json.loads(shown).get("status") or {}
        if not status.get("runId"):
            why = status.get("message") or status.get("phase", "Pending")
            raise CliError(
                f"the SagaRun {namespace}/{name} has no run yet: {why}",
                f"`kubectl describe sagarun {name} -n {namespace}` tells more.",
            )
        return str(status["runId"])

    def orchestrator(self) -> Service:
        """Find the orchestrator's Service. Raises CliError when there is none, or more than one."""
        namespace, name, port = _named(self._orchestrator) if self._orchestrator else ("", "", 0)
        scope = [f"--namespace={namespace}"] if namespace else ["--all-namespaces"]
        if name:
            found = [json.loads(self.kubectl("get", "service", name, *scope, "--output=json"))]
        else:
            listed = json.loads(self.kubectl("get", "services", *scope, f"--selector={SELECTOR}", "--output=json"))
            found = [item for item in listed["items"] if _is_called(item, NAMES)]
        if len(found) != 1:
            names = ", ".join(sorted(f"{item['metadata']['namespace']}/{item['metadata']['name']}" for item in found))
            raise CliError(
                f"there are several orchestrators: {names}" if found else "there is no orchestrator in this cluster",
                f"Name the one that you mean: {ORCHESTRATOR} NAMESPACE/SERVICE.",
            )
        metadata = found[0]["metadata"]
        return Service(metadata["namespace"], metadata["name"], port or _port(found[0]))

    def monitor(self) -> Service:
        """Find the monitor's Service. Raises CliError when there is none, or more than one."""
        arguments = ("get", "services", "--all-namespaces", f"--selector={SELECTOR}", "--output=json")
        found = [item for item in json.loads(self.kubectl(*arguments))["items"] if _is_called(item, MONITORS)]
        if len(found) != 1:
            raise CliError(
                "there are several monitors" if found else "there is no monitor in this cluster",
                "Forward a port of the one that you mean, and give --address 127.0.0.1:PORT.",
            )
        metadata = found[0]["metadata"]
        return Service(metadata["namespace"], metadata["name"], _port(found[0]))

    def service(self, text: str) -> Service:
        """Find the Service NAMESPACE/NAME, or NAMESPACE/NAME:PORT. Raises CliError."""
        namespace, name, port = _named(text, "--service")
        shown = self.kubectl("get", "service", name, f"--namespace={namespace}", "--output=json")
        return Service(namespace, name, port or _port(json.loads(shown)))


def _named(text: str, option: str = ORCHESTRATOR) -> tuple[str, str, int]:
    found = re.fullmatch(r"([a-z0-9-]+)/([a-z0-9-]+)(?::([0-9]+))?", text)
    if found is None:
        raise usage(f"`{text}` names no Service", f"Give {option} NAMESPACE/SERVICE or NAMESPACE/SERVICE:PORT.")
    return found[1], found[2], int(found[3] or 0)


def _is_called(item: dict[str, Any], names: tuple[str, ...]) -> bool:
    metadata = item["metadata"]
    called = {metadata["name"], (metadata.get("labels") or {}).get("app.kubernetes.io/name")}
    # A second, headless Service of the same pods is for their clients in the cluster.
    return bool(called & set(names)) and not metadata["name"].endswith("-headless")


def _port(item: dict[str, Any]) -> int:
    ports = item["spec"].get("ports") or [{"port": GRPC_PORT}]
    named = [port["port"] for port in ports if port.get("name") == "grpc" or port.get("appProtocol") == "grpc"]
    return int((named or [ports[0]["port"]])[0])


class Forward:
    """A forwarded port: `with Forward(cluster, service) as forward: forward.address`."""

    def __init__(self, cluster: KubectlCluster, service: Service) -> None:
        self._cluster = cluster
        self._service = service
        self._port = 0
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Return host:port on this machine."""
        return f"127.0.0.1:{self._port}"

    def ensure(self) -> None:
        """Forward again, from the same port, when the pod behind it is gone. Raises CliError."""
        if self._child is not None and self._child.poll() is None:
            return
        ports = f"{self._port or ''}:{self._service.port}"
        where = (f"--namespace={self._service.namespace}", f"service/{self._service.name}", ports)
        # Into files: nobody reads what kubectl says of each connection, and a full pipe would stop it.
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            command = self._cluster.command("port-forward", "--address=127.0.0.1", *where)
            self._child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err)  # noqa: S603
            end = time.monotonic() + PATIENCE.total_seconds()
            while time.monotonic() < end:
                out.seek(0)
                if found := re.search(rb"Forwarding from 127\.0\.0\.1:(\d+)", out.read()):
                    self._port = int(found[1])
                    return
                if self._child.poll() is not None:
                    break
                time.sleep(LOOK.total_seconds())
            err.seek(0)
            said = err.read().decode(errors="replace").strip().removeprefix("error: ")
        self.stop()
        raise CliError(
            f"{self._service} cannot be reached: {said or 'kubectl port-forward says nothing'}",
            f"`kubectl get pods -n {self._service.namespace}` shows whether it runs.",
        )

    def stop(self) -> None:
        """Stop forwarding the port."""
        if self._child is not None and self._child.poll() is None:
            self._child.terminate()
            self._child.wait()

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, _leave)  # or kubectl would stay behind
        self.ensure()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _leave(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)


_current: KubectlCluster | None = None


def current() -> KubectlCluster | None:
    """Return the cluster that commands speak to; None when they were not called through kubectl."""
    return _current


def use(cluster: KubectlCluster | None) -> None:
    """Make all commands speak to a cluster's orchestrator, or to none again."""
    global _current
    _current = cluster


def take_flags(arguments: list[str]) -> tuple[KubectlCluster, list[str]]:
    """Take kubectl's flags out of a command line; return the cluster that they mean, and the rest. Raises CliError."""
    flags, rest, orchestrator = [], [], ""
    words = iter(arguments)
    for word in words:
        name, equals, value = word.partition("=")
        if word == "--":
            rest += [word, *words]
        elif name in (*FLAGS, ORCHESTRATOR):
            given = value if equals else next(words, None)
            if given is None:
                raise usage(f"{name} needs a value")
            if name == ORCHESTRATOR:
                orchestrator = given
            else:
                flags.append(f"{name}={given}")
        else:
            rest.append(word)
    return KubectlCluster(tuple(flags), orchestrator), rest
