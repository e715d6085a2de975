"""A clone of this repository with a kind cluster behind it, as a person has it, and short ways to use both."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
from amends_delivery.kind import argocd, secrets
from amends_delivery.kind.place import KindCluster
from amends_delivery.kind.up import ADDRESSES, ORCHESTRATOR
from amends_demo.laws import LAWS
from amends_demo.shop import Shop, reaching

from shop.orders.v1 import orders_pb2

SERVICES = ("inventory", "orders", "payments", "shipping")
NAMESPACES = {"orchestrator": "amends", "operator": "amends"} | dict.fromkeys(SERVICES, "shop")
PATIENCE = timedelta(seconds=20)
"""For so long a client tries again."""
REPEATED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
"""What a customer's client tries again: PlaceOrder is declared idempotent."""


def say(text: str) -> None:
    """A figure for whoever reads the log; pytest shows it with -s."""
    sys.stdout.write(f"\n      {text}\n")


@dataclass
class Clone:
    """The clone. Commands run in it as the Makefile runs them, with the Python of the tests."""

    root: Path
    cluster: KindCluster
    up_after: float = 0.0
    """Seconds that `kind-up` took."""

    def run(self, *command: str, check: bool = True, more: dict[str, str] | None = None) -> str:
        plugins = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        told = os.environ | plugins | (more or {})
        done = subprocess.run(command, cwd=self.root, env=told, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0 or not check, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def make(self, target: str, *arguments: str, check: bool = True) -> str:
        """A target of the Makefile, without setting up a second virtual environment."""
        return self.run(sys.executable, "-m", "amends_delivery", target, *arguments, check=check)

    def git(self, *arguments: str, check: bool = True) -> str:
        identity = ("-c", "user.name=A", "-c", "user.email=a@example.com")
        return self.run("git", *identity, *arguments, check=check)

    def commit(self, message: str) -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)
        return self.git("rev-parse", "HEAD").strip()

    def push(self) -> str:
        self.git("push", "--quiet", "kind", "HEAD:main")
        return self.git("rev-parse", "HEAD").strip()

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.root / name
        text = path.read_text()
        assert old in text, f"{name} has no {old!r}"
        path.write_text(text.replace(old, new, 1))

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self.cluster.kubectl(*arguments, stdin=stdin)

    def get(self, *what: str) -> Any:
        return self.cluster.get(*what)

    def application(self, name: str) -> argocd.Application:
        """What Argo CD says of an Application; Missing when there is none."""
        missing = argocd.Application(name, "Missing", "Missing", "", "")
        return argocd.applications(self.cluster).get(name, missing)

    def deployed(self, *names: str, within: timedelta = timedelta(minutes=3)) -> float:
        """Waits until Applications are as the clone's commit says, and healthy. Seconds that it took."""
        began = time.monotonic()
        argocd.wait_for(self.cluster, list(names), self.git("rev-parse", "HEAD").strip(), within, lambda done: None)
        return time.monotonic() - began

    def pods(self, *names: str) -> dict[str, str]:
        """The pods of deployables, and how often each was restarted, by name and UID."""
        found = {}
        for name in names:
            selector = f"app.kubernetes.io/name={name}"
            for pod in self.get("pods", "-n", NAMESPACES[name], "-l", selector)["items"]:
                if pod["metadata"].get("deletionTimestamp"):
                    continue
                restarts = sum(one["restartCount"] for one in pod["status"].get("containerStatuses", ()))
                found[f"{name}/{pod['metadata']['uid']}"] = f"{restarts} restarts"
        return found

    def image(self, name: str) -> str:
        deployment = self.get("deployment", name, "-n", NAMESPACES[name])
        return str(deployment["spec"]["template"]["spec"]["containers"][0]["image"])

    def audit(self) -> str:
        """What `amends audit` and the shop's own audit say of the cluster's databases, through a forwarded port.

        Either fails with what is wrong.
        """
        with forwarded(self, "data", "postgres-0", 5432) as port:
            urls = {}
            for name, namespace in secrets.DATABASES.items():
                url = secrets.read(self.cluster, namespace, f"{name}-database")["url"]
                urls[name] = url.replace(secrets.POSTGRES, f"127.0.0.1:{port}")
            services = {name: f"shop.{name}.v1.{kind}" for name, kind in PROTOBUF.items()}
            told = {
                "AMENDS_DATABASE_URL": urls["orchestrator"],
                "AMENDS_PARTICIPANTS": " ".join(f"{service}={urls[name]}" for name, service in services.items()),
                "AMENDS_SHOP_DATABASES": " ".join(f"{name}={url}" for name, url in urls.items()),
            }
            books = self.run(sys.executable, "-m", "amends_demo", "audit", check=False, more=told)
            assert books.rstrip().endswith(("laws of the shop hold.", "The books are wrong.")), books
            assert [line for line in violations(books) if not line.endswith(f" for {WITHOUT_AN_ORDER}")] == []
            return books + self.run(sys.executable, "-m", "amends_cli", "audit", more=told)


WITHOUT_AN_ORDER = "order-1"
"""What the example of a SagaRun pays for: nobody has ordered it, so that the shop's books name it."""


def violations(books: str) -> list[str]:
    """Return the lines in which the shop's audit names what is wrong."""
    return [line for line in books.splitlines() if line.startswith(tuple(f"{law.name}  " for law in LAWS))]


PROTOBUF = {
    "orders": "OrderService",
    "inventory": "InventoryService",
    "payments": "PaymentService",
    "shipping": "ShippingService",
}


class forwarded:
    """A port of a pod on this machine, for the block."""

    def __init__(self, clone: Clone, namespace: str, pod: str, port: int) -> None:
        command = clone.cluster.command("-n", namespace, "port-forward", f"pod/{pod}", f":{port}")
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> int:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()  # Forwarding from 127.0.0.1:40321 -> 5432
        return int(line.split("127.0.0.1:")[1].split()[0])

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate()


async def until(what: str, look: Callable[[], Any], within: timedelta = timedelta(seconds=60)) -> Any:
    """Waits for something that `look` finds; what it found."""
    end = time.monotonic() + within.total_seconds()
    while True:
        found = await asyncio.to_thread(look)
        if found:
            return found
        assert time.monotonic() < end, f"{what}: not within {within.total_seconds():.0f} s"
        await asyncio.sleep(0.2)


@dataclass
class Trickle:
    """Orders that come all the time, a few each second, while something is done to the shop."""

    shop: Shop
    name: str
    pause: timedelta = timedelta(milliseconds=250)
    placed: list[str] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)
    """Orders that ended compensated: nothing is lost, and the customer has to come again."""
    failed: list[str] = field(default_factory=list)
    """Orders that were answered with an error, or have no end."""
    repeated: int = 0
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _orders: set[asyncio.Task[None]] = field(default_factory=set)
    _task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Trickle":
        self._task = asyncio.create_task(self._run())
        await until("the first orders", lambda: len(self.placed) >= 3)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopping.set()
        assert self._task is not None
        await self._task
        await asyncio.gather(*self._orders)
        said = f"{len(self.placed)} orders while {self.name}, {self.repeated} calls repeated"
        say(f"{said}, {len(self.rejected)} compensated, {len(self.failed)} failed")

    async def _run(self) -> None:
        number = 0
        while not self._stopping.is_set():
            number += 1
            order = asyncio.create_task(self._place(f"{self.name.replace(' ', '-')}-{number}"))
            self._orders.add(order)
            order.add_done_callback(self._orders.discard)
            await asyncio.sleep(self.pause.total_seconds())

    async def _place(self, order_id: str) -> None:
        try:
            order = await self._patiently(lambda: self.shop.place(order_id))
            end = time.monotonic() + 90
            while order.state == orders_pb2.ORDER_STATE_PENDING and time.monotonic() < end:
                await asyncio.sleep(0.5)
                order = await self._patiently(lambda: self.shop.order(order_id))
        except grpc.aio.AioRpcError as error:
            self.failed.append(f"{order_id}: {error.code().name} {error.details()}")
            return
        if order.state == orders_pb2.ORDER_STATE_CONFIRMED:
            self.placed.append(order_id)
        elif order.state == orders_pb2.ORDER_STATE_REJECTED:
            self.rejected.append(f"{order_id}: {order.reason}")
        else:
            self.failed.append(f"{order_id}: {orders_pb2.OrderState.Name(order.state)}")

    async def _patiently(self, call: Callable[[], Awaitable[orders_pb2.Order]]) -> orders_pb2.Order:
        """Call as a client with patience does: a single pod that was deleted is back after some seconds."""
        end = time.monotonic() + PATIENCE.total_seconds()
        pause = 0.2
        while True:
            try:
                return await call()
            except grpc.aio.AioRpcError as error:
                if error.code() not in REPEATED or time.monotonic() > end:
                    raise
            self.repeated += 1
            await asyncio.sleep(pause)
            pause = min(1.0, 1.5 * pause)


def visiting() -> Any:
    """The shop by the ports that kind publishes."""
    return reaching(ADDRESSES, ORCHESTRATOR)


def grpcurl(*arguments: str, data: dict[str, Any] | None = None) -> dict[str, Any]:
    """A call as a person makes it; its answer."""
    given = ("-d", json.dumps(data)) if data is not None else ()
    done = subprocess.run(["grpcurl", "-plaintext", *given, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout) if done.stdout.lstrip().startswith("{") else {"said": done.stdout}
    return answer
