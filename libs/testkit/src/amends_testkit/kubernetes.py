"""A real Kubernetes API server for tests: etcd and kube-apiserver as child processes, without a cluster.

The programs are found where envtest's convention says, in the folder KUBEBUILDER_ASSETS. Called by the plugin's
fixture `kubernetes`, and by benchmarks that want a server of their own.
"""

import asyncio
import base64
import json
import os
import secrets
import socket
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self

from amends_embedded import Child, Children
from amends_embedded.process import until

HOW_TO_GET = (
    "needs a real API server: set KUBEBUILDER_ASSETS to a folder with kube-apiserver, etcd and kubectl "
    "(go run sigs.k8s.io/controller-runtime/tools/setup-envtest@latest use -p path)"
)
USERS = {"admin": "system:masters", "operator": "amends:operators", "person": "amends:people"}
"""Who can log in, each with a token of its own, and the group they are in."""
READY = timedelta(seconds=60)
_WRITES = ["create", "update", "patch", "delete", "deletecollection"]
_P256 = bytes.fromhex("a00a06082a8648ce3d030107")


def assets() -> Path | None:
    """Return the folder with the programs; None when it is not given or not whole."""
    given = os.environ.get("KUBEBUILDER_ASSETS")
    if not given or not all((Path(given) / name).exists() for name in ("etcd", "kube-apiserver", "kubectl")):
        return None
    return Path(given)


@dataclass(slots=True)
class Kubernetes:
    """A running API server that knows no nodes and no controllers."""

    folder: Path
    programs: Path
    children: Children = field(default_factory=Children)
    tokens: dict[str, str] = field(default_factory=lambda: {user: secrets.token_hex(16) for user in USERS})
    port: int = 0
    etcd: str = ""
    _trusts: ssl.SSLContext | None = None
    audited: bool = False
    """True when every write is in `audit_log`."""

    @property
    def audit_log(self) -> Path:
        """One line of JSON for each write, in order, when the server is audited."""
        return self.folder / "audit.log"

    @property
    def url(self) -> str:
        """Return the API server's URL, https://127.0.0.1:port."""
        return f"https://127.0.0.1:{self.port}"

    @property
    def authority(self) -> Path:
        """Return the certificate that clients trust."""
        return self.folder / "certificates" / "apiserver.crt"

    @classmethod
    async def start(cls, folder: Path, programs: Path, *, audited: bool = False) -> Self:
        """Start etcd and kube-apiserver on free ports of 127.0.0.1 and wait until they are ready."""
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        self = cls(folder, programs, audited=audited)
        try:
            await self._start_etcd()
            await self.start_server()
        except BaseException:
            await self.children.stop()
            raise
        return self

    async def _start_etcd(self) -> None:
        client, peer = _free_port(), _free_port()
        self.etcd = f"http://127.0.0.1:{client}"
        peers = f"http://127.0.0.1:{peer}"
        command = [
            str(self.programs / "etcd"),
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={self.etcd}",
            f"--advertise-client-urls={self.etcd}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=default={peers}",
            "--unsafe-no-fsync",
        ]
        child = self.children.add(Child.start("etcd", command, log=self.folder / "etcd.log"))
        await self._ready(child, f"{self.etcd}/health")

    async def start_server(self) -> None:
        """Start kube-apiserver (again, after `stop_server`, on the port it had)."""
        self.port = self.port or _free_port()
        key, tokens = self.folder / "service-accounts.pem", self.folder / "tokens.csv"
        if not key.exists():
            key.write_text(_private_key())
        tokens.write_text("".join(f'{self.tokens[user]},{user},{user},"{group}"\n' for user, group in USERS.items()))
        command = [
            str(self.programs / "kube-apiserver"),
            f"--etcd-servers={self.etcd}",
            f"--cert-dir={self.folder / 'certificates'}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={self.port}",
            f"--token-auth-file={tokens}",
            "--authorization-mode=RBAC",
            "--disable-admission-plugins=ServiceAccount",
            "--service-account-issuer=https://127.0.0.1",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--shutdown-delay-duration=0s",
            *(self._auditing() if self.audited else ()),
        ]
        child = self.children.add(Child.start("kube-apiserver", command, log=self.folder / "kube-apiserver.log"))
        await self._ready(child, f"{self.url}/readyz")

    def _auditing(self) -> Sequence[str]:
        policy = self.folder / "audit-policy.json"
        rules = [{"level": "Metadata", "verbs": _WRITES}, {"level": "None"}]
        policy.write_text(
            json.dumps(
                {
                    "apiVersion": "audit.k8s.io/v1",
                    "kind": "Policy",
                    "omitStages": ["RequestReceived"],
                    "omitManagedFields": True,
                    "rules": rules,
                }
            )
        )
        return f"--audit-policy-file={policy}", f"--audit-log-path={self.audit_log}"

    async def stop_server(self) -> None:
        """Kill kube-apiserver; what it kept stays in etcd."""
        self.children.running["kube-apiserver"].kill()

    async def _ready(self, child: Child, url: str) -> None:
        if not await until(lambda: not child.alive or self._answers(url), READY) or not child.alive:
            raise RuntimeError(f"{child.name} does not become ready\n{child.tail()}")

    def _answers(self, url: str) -> bool:
        try:
            return self._ask(url, timeout=2)[0] == HTTPStatus.OK
        except (OSError, urllib.error.URLError, ssl.SSLError):
            return False

    def _ask(self, url: str, *, timeout: float) -> tuple[int, bytes]:
        """Return status and body of an answer to the administrator."""
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {self.tokens['admin']}"})  # noqa: S310
        if url.startswith("https") and self._trusts is None:
            self._trusts = ssl.create_default_context(cafile=self.authority)
        try:
            with urllib.request.urlopen(request, timeout=timeout, context=self._trusts) as answer:  # noqa: S310
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    async def read(self, path: str) -> dict[str, Any] | None:
        """Return the object at a path of the API, None when there is none: a hundred times cheaper than kubectl.

        Raises KubectlError for any other answer.
        """
        status, body = await asyncio.to_thread(self._ask, f"{self.url}{path}", timeout=30)
        if status == HTTPStatus.NOT_FOUND:
            return None
        if status != HTTPStatus.OK:
            raise KubectlError(("get", "--raw", path), body.decode(errors="replace"))
        found: dict[str, Any] = json.loads(body)
        return found

    def kubeconfig(self, user: str = "admin", *, server: str = "", namespace: str = "default") -> Path:
        """Write a kubeconfig for a user; `server` is a proxy in front of the API server, http:// or https://."""
        url = server or self.url
        cluster: dict[str, Any] = {"server": url}
        if url.startswith("https"):
            cluster["certificate-authority-data"] = base64.b64encode(self.authority.read_bytes()).decode()
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": user, "user": {"token": self.tokens[user]}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user, "namespace": namespace}}],
        }
        path = self.folder / f"{user}-{url.rpartition(':')[2]}-{namespace}.kubeconfig"
        path.write_text(json.dumps(config, indent=1))
        return path

    async def define(self, kinds: Path | str) -> None:
        """Apply CustomResourceDefinitions, from a folder or as text, and wait until all kinds can be used."""
        path, text = (str(kinds), None) if isinstance(kinds, Path) else ("-", kinds)
        await self.kubectl("apply", "--server-side", "-f", path, stdin=text)
        await self.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")

    def kubectl_now(
        self, *arguments: str, stdin: str | None = None, user: str = "admin"
    ) -> "subprocess.CompletedProcess[str]":
        """Run kubectl as a user, and wait for it."""
        command = [str(self.programs / "kubectl"), f"--kubeconfig={self.kubeconfig(user)}", *arguments]
        environment = {"PATH": os.environ.get("PATH", ""), "HOME": str(self.folder)}
        return subprocess.run(  # noqa: S603
            command, input=stdin, capture_output=True, text=True, check=False, timeout=90, env=environment
        )

    async def kubectl(self, *arguments: str, stdin: str | None = None, user: str = "admin") -> str:
        """Run kubectl as a user and return what it says. Raises KubectlError when it fails."""
        done = await asyncio.to_thread(self.kubectl_now, *arguments, stdin=stdin, user=user)
        if done.returncode != 0:
            raise KubectlError(arguments, done.stderr or done.stdout)
        return done.stdout

    async def get(self, *arguments: str) -> dict[str, Any]:
        """`kubectl get ... -o json`. Raises KubectlError."""
        found: dict[str, Any] = json.loads(await self.kubectl("get", *arguments, "-o", "json"))
        return found

    async def stop(self) -> None:
        """Stop the API server and etcd."""
        await self.children.stop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


class KubectlError(RuntimeError):
    """kubectl failed. The text is what it said."""

    def __init__(self, arguments: Sequence[str], said: str) -> None:
        super().__init__(f"kubectl {' '.join(arguments)}: {said.strip()}")
        self.said = said


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _private_key() -> str:
    """Return a fresh key on P-256 in the form of SEC 1; its reader works out the public half."""
    scalar = (1 + secrets.randbelow(2**255)).to_bytes(32, "big")
    body = b"\x02\x01\x01" + b"\x04\x20" + scalar + _P256
    text = base64.b64encode(b"\x30" + bytes([len(body)]) + body).decode()
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return "\n".join(["-----BEGIN EC PRIVATE KEY-----", *lines, "-----END EC PRIVATE KEY-----", ""])
