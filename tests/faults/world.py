"""What the tests of this suite drive: processes of a nursery, a database for each side, and a customer who insists.

A `World` has one orchestrator database and one database of participants, and as many orchestrators as a test starts.
"""

import asyncio
import json
import os
import random
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import grpc.aio
from amends_cli import audit_databases
from amends_saga.journal import idempotency_key
from amends_testkit.receiver import Receiver, receiving, write_settings
from amends_testkit.waiting import eventually
from google.protobuf.struct_pb2 import Struct

from amends.saga.v1 import definition_service_pb2 as dpb
from amends.saga.v1 import run_pb2
from amends.saga.v1 import run_service_pb2 as pb
from amends.saga.v1.definition_service_pb2_grpc import DefinitionServiceStub
from amends.saga.v1.run_service_pb2_grpc import RunServiceStub

from .participants_process import SERVICES

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "place-order"
# Patient enough for any machine: a process that is restarted is back before anybody gives up.
SAGA = (EXAMPLE / "saga.yaml").read_text().replace("deadline: 60s", "deadline: 10m")
LEASE = timedelta(seconds=2)
PATIENCE = timedelta(seconds=30)
CHANNEL = [("grpc.initial_reconnect_backoff_ms", 20), ("grpc.max_reconnect_backoff_ms", 50)]
AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
POLICY = """
apiVersion: amends.dev/v1alpha1
kind: RetryPolicy
metadata: {name: patient, namespace: shop}
spec:
  timeout: 300ms
  attempts: 100
  backoff: {initial: 10ms, max: 300ms}
  circuitBreaker: {failureRatio: 1.0, minimumCalls: 100000}
  budget: {ratio: 10, minPerSecond: 1000}
"""
DONE = frozenset({run_pb2.RUN_STATE_COMPLETED, run_pb2.RUN_STATE_COMPENSATED, run_pb2.RUN_STATE_PARKED})


def order(order_id: str, *, card: str = "tok_visa", country: str = "DE") -> dict[str, Any]:
    """The input of one order."""
    address = {"recipient": "Ada", "street": "Main 1", "city": "Berlin", "postalCode": "10115", "country": country}
    return {
        "orderId": order_id,
        "lines": [{"sku": "tea", "quantity": 2}],
        "total": {"currency": "EUR", "minor": "1200"},
        "cardToken": card,
        "address": address,
    }


@dataclass
class Process:
    """One process of the nursery. Its places are told in files of its name."""

    name: str
    pid: int
    folder: Path
    ended: asyncio.Future[int]
    offset: int = 0

    def order(self, what: str, label: str) -> None:
        """From now on: `crash` or `stop` at a place. Places before are forgotten."""
        (self.folder / f"{self.name}.control").write_text(f"{what} {label}" if label else "")
        self.offset = self._record().stat().st_size if self._record().exists() else 0

    def _record(self) -> Path:
        return self.folder / f"{self.name}.record"

    def reached(self) -> list[str]:
        """Return the places that it passed since the last order."""
        with self._record().open() as record:
            record.seek(self.offset)
            return record.read().split("\n")[:-1]

    def log(self) -> str:
        """Everything it has logged."""
        return (self.folder / f"{self.name}.log").read_text()

    def report(self) -> dict[str, Any]:
        """Where it listens; empty as long as it does not."""
        path = self.folder / f"{self.name}.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def send(self, number: signal.Signals) -> None:
        """Sends a signal, if it still lives."""
        if not self.ended.done():
            os.kill(self.pid, number)

    @property
    def stopped(self) -> bool:
        """Whether it stands still."""
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    async def kill(self) -> None:
        """kill -9, and waits for its end."""
        self.send(signal.SIGKILL)
        await asyncio.wait_for(self.ended, PATIENCE.total_seconds())


class Nursery:
    """Starts processes that have everything imported already."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._started: dict[int, asyncio.Future[int]] = {}
        self._ended: dict[int, asyncio.Future[int]] = {}
        self._numbers = 0
        self._reader = asyncio.create_task(self._read())

    @classmethod
    @asynccontextmanager
    async def open(cls, log: Path) -> AsyncIterator["Nursery"]:
        """A nursery for a block; all its children end with it."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AMENDS_")}
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.faults.nursery"),
                cwd=ROOT,
                env=environment | {"GRPC_ENABLE_FORK_SUPPORT": "0"},
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=output,
            )
        assert process.stdout is not None
        ready = await asyncio.wait_for(process.stdout.readline(), PATIENCE.total_seconds())
        assert ready, f"the nursery did not start, see {log}"
        nursery = cls(process)
        try:
            yield nursery
        finally:
            process.kill()
            await process.wait()
            nursery._reader.cancel()
            await asyncio.gather(nursery._reader, return_exceptions=True)

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            said = json.loads(line)
            if "started" in said:
                self._ended[said["pid"]] = asyncio.get_running_loop().create_future()
                self._started.pop(said["started"]).set_result(said["pid"])
            else:
                self._ended.pop(said["ended"]).set_result(said["code"])

    async def start(
        self, name: str, role: str, folder: Path, environment: Mapping[str, str], order: str = ""
    ) -> Process:
        """Starts a process of a role, with an order for one of its places; it listens a little later."""
        self._numbers += 1
        number = self._numbers
        files = {"AMENDS_REPORT_FILE": "json", "FAULTS_CONTROL": "control", "FAULTS_RECORD": "record"}
        told = dict(environment) | {key: str(folder / f"{name}.{suffix}") for key, suffix in files.items()}
        (folder / f"{name}.json").unlink(missing_ok=True)
        process = Process(name, 0, folder, asyncio.get_running_loop().create_future())
        process.order(*order.split(" ", 1)) if order else process.order("", "")
        wanted = {"id": number, "role": role, "log": str(folder / f"{name}.log"), "environment": told}
        started = self._started[number] = asyncio.get_running_loop().create_future()
        assert self._process.stdin is not None
        self._process.stdin.write((json.dumps(wanted) + "\n").encode())
        process.pid = await asyncio.wait_for(started, PATIENCE.total_seconds())
        process.ended = self._ended[process.pid]
        return process


@dataclass
class World:
    """Two databases, the participants' process, and orchestrators by name."""

    nursery: Nursery
    folder: Path
    journal_url: str
    participants_url: str
    journal: "asyncpg.Pool[Any]"
    memory: "asyncpg.Pool[Any]"
    receiver: Receiver
    """Who is told of every run."""
    processes: dict[str, Process] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)
    channels: dict[str, grpc.aio.Channel] = field(default_factory=dict)

    @classmethod
    @asynccontextmanager
    async def open(
        cls, nursery: Nursery, folder: Path, make: Callable[[], Awaitable[str]], policy: str = POLICY
    ) -> AsyncIterator["World"]:
        """A world with its participants and definitions in force; an orchestrator called `a` runs."""
        journal_url, participants_url = await make(), await make()
        journal = await asyncpg.create_pool(journal_url, min_size=1, max_size=4)
        memory = await asyncpg.create_pool(participants_url, min_size=1, max_size=4)
        async with receiving(folder, "told", scheme="http") as receiver:
            entry = receiver.entry(types=["RunStarted", "RunTurnedBack", "RunParked", "RunResolved", "RunEnded"])
            write_settings(folder / "webhooks.json", entry)
            world = cls(nursery, folder, journal_url, participants_url, journal, memory, receiver)
            async with world._running():
                await world.apply("a", policy)
                yield world

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        """Run the participants and the orchestrator `a`; kill every process at the end of the block."""
        try:
            await self.start_participants()
            await self.start("a")
            yield
        finally:
            for process in self.processes.values():
                await process.kill()
            for channel in self.channels.values():
                await channel.close()
            self.journal.terminate()
            self.memory.terminate()

    async def start(self, name: str, database: str = "", order: str = "", **told: str) -> Process:
        """Starts an orchestrator, on the port it had if it ran before, with an order for one of its places."""
        environment = {
            "AMENDS_DATABASE_URL": database or self.journal_url,
            "AMENDS_TARGETS": "loopback",
            "AMENDS_LEASE": f"{int(LEASE.total_seconds())}s",
            "AMENDS_POLL": "30ms",
            "AMENDS_DRAIN": "2s",
            "AMENDS_WEBHOOKS": str(self.folder / "webhooks.json"),
        }
        return await self._start(name, "orchestrator", environment | told, order)

    async def start_participants(self, **told: str) -> Process:
        """Starts the participants' process, on the port it had if it ran before."""
        return await self._start("participants", "participants", {"AMENDS_DATABASE_URL": self.participants_url} | told)

    async def _start(self, name: str, role: str, environment: dict[str, str], order: str = "") -> Process:
        address = self.addresses.setdefault(name, f"127.0.0.1:{free_port()}")
        environment["AMENDS_PORT"] = address.rpartition(":")[2]
        process = await self.nursery.start(name, role, self.folder, environment, order)
        self.processes[name] = process
        await eventually(lambda: process.report() or process.ended.done(), what=f"{name} listens")
        if not order:
            assert not process.ended.done(), process.log()[-3000:]
        return process

    def channel(self, name: str) -> grpc.aio.Channel:
        """The channel to an orchestrator, the same for all processes that had its port."""
        if name not in self.channels:
            self.channels[name] = grpc.aio.insecure_channel(self.addresses[name], options=CHANNEL)
        return self.channels[name]

    def runs(self, name: str) -> Any:
        """RunService of an orchestrator."""
        return RunServiceStub(self.channel(name))

    async def apply(self, name: str, policy: str = POLICY, saga: str = SAGA, **targets: str) -> None:
        """Apply the example, with all participants at one place, but those given by name."""
        definitions = DefinitionServiceStub(self.channel(name))
        names = ("orders", "inventory", "payments", "shipping")
        filled = (EXAMPLE / "participants.yaml").read_text()
        for part in names:
            target = targets.get(part, self.addresses["participants"])
            filled = filled.replace(f"dns:///{part}.shop.svc.cluster.local:50051", target)
        for text in filled.split("\n---\n"):
            request = dpb.ApplyParticipantRequest(manifest=dpb.Manifest(text=text, source="participants.yaml"))
            await eventually(partial(self._applied, definitions, request), timeout=PATIENCE, what="it is ready")
        policed = await definitions.ApplyRetryPolicy(
            dpb.ApplyRetryPolicyRequest(manifest=dpb.Manifest(text=policy, source="policy.yaml")), timeout=10
        )
        assert policed.accepted, policed.findings
        manifest = dpb.Manifest(text=saga, source="saga.yaml")
        applied = await definitions.ApplySaga(dpb.ApplySagaRequest(manifest=manifest), timeout=10)
        assert applied.accepted, applied.findings

    async def _applied(self, definitions: Any, request: dpb.ApplyParticipantRequest) -> bool:
        """Whether a participant's contract could be read: not by a channel that has just lost a server and waits."""
        answer = await insist(partial(definitions.ApplyParticipant, request, timeout=10))
        assert answer.accepted, answer.findings
        return bool(answer.participant.ready)

    def request(self, order_id: str, long: str = "", **of: str) -> pb.StartRunRequest:
        """The start of one order's run; `long` makes the order's id longer than the key."""
        data = Struct()
        data.update(order(order_id + long, **of))
        return pb.StartRunRequest(namespace="shop", saga="place-order", idempotency_key=order_id, json=data)

    async def place(self, name: str, order_id: str, **of: str) -> pb.StartRunResponse:
        """Starts a run as a customer who asks again, with the same key, until it is acknowledged."""
        request = self.request(order_id, **of)
        answer: pb.StartRunResponse = await insist(lambda: self.runs(name).StartRun(request, timeout=5))
        return answer

    async def ended(self, order_id: str, within: timedelta = PATIENCE) -> str:
        """Waits until a run has come to rest, as its database says; returns its state."""

        async def look() -> Any:
            row = await self.row(order_id)
            return row["state"] if row is not None and row["state"] in DONE else 0

        state: int = await eventually(look, timeout=within, what=f"{order_id} comes to rest")
        return audit_databases.STATES[state]

    async def expire(self) -> None:
        """End the lease of dead orchestrators in the database, instead of waiting for it."""
        await self.journal.execute("UPDATE process SET expires_at = clock_timestamp() - interval '1 ms'")
        await self.journal.execute("UPDATE webhook_delivery SET leased_until = NULL WHERE leased_until IS NOT NULL")

    async def key(self, run_id: str, step: str) -> str:
        """The idempotency key of a step's calls."""
        return idempotency_key(run_id, step, bytes(await self.journal.fetchval("SELECT secret FROM installation")))

    async def row(self, order_id: str) -> Any:
        """The row of an order's run."""
        found = await patiently(self.journal, "SELECT * FROM run WHERE idempotency_key = $1", order_id)
        return found[0] if found else None

    async def effects(self, order_id: str) -> list[str]:
        """What was done for an order, in order: `reserve:action`, ..."""
        query = "SELECT step, operation FROM effect WHERE order_id = $1 ORDER BY id"
        rows = await patiently(self.memory, query, order_id)
        return [f"{row['step']}:{row['operation']}" for row in rows]

    async def told(self, order_id: str, *kinds: str) -> None:
        """Wait until the receiver was told this of an order's run, in this order; repetitions are left out."""

        def look() -> bool:
            found = {
                request.headers["webhook-id"]: request.kind
                for request in self.receiver.received
                if request.event["data"]["run"]["idempotencyKey"] == order_id
            }
            assert [*found.values()] == [*kinds], found
            return True

        await eventually(look, timeout=PATIENCE, what=f"the receiver is told {kinds} of {order_id}")

    async def report(self) -> audit_databases.AuditReport:
        """What `amends audit` sees."""
        participants = dict.fromkeys(SERVICES, self.participants_url)
        return await audit_databases.audit(audit_databases.AuditRequest(self.journal_url, participants, lease=LEASE))

    async def audit(self) -> audit_databases.AuditReport:
        """Checks everything, and fails with the names of the runs that break an invariant."""
        report = await self.report()
        assert report.found == [], "\n".join(f"{named.key}: {named.finding}" for named in report.found)
        return report


async def patiently(database: "asyncpg.Pool[Any]", query: str, *arguments: Any) -> list[Any]:
    """Rows, though a test may have taken the database away for a while."""
    end = asyncio.get_running_loop().time() + PATIENCE.total_seconds()
    while True:
        try:
            return list(await database.fetch(query, *arguments))
        except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError):
            if asyncio.get_running_loop().time() > end:
                raise
            await asyncio.sleep(0.02)


def free_port() -> int:
    """A port that a process can have again when it is restarted: outside the range of outgoing connections."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


async def insist(call: Callable[[], Awaitable[Any]], within: timedelta = PATIENCE) -> Any:
    """Calls until there is an answer: as long as nobody is there, or the call is cut off."""
    end = asyncio.get_running_loop().time() + within.total_seconds()
    while True:
        try:
            return await call()
        except grpc.aio.AioRpcError as error:
            if error.code() not in AWAY or asyncio.get_running_loop().time() > end:
                raise
            await asyncio.sleep(0.01)


@asynccontextmanager
async def worlds(
    count: int, folder: Path, make: Callable[[], Awaitable[str]], policy: str = POLICY
) -> AsyncIterator[list[World]]:
    """Several worlds over one nursery."""
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(Nursery.open(folder / "nursery.log"))
        opened: list[World] = []
        for number in range(count):
            place = folder / f"world-{number}"
            place.mkdir()
            opened.append(await stack.enter_async_context(World.open(nursery, place, make, policy)))
        yield opened
