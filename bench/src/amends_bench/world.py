"""The processes of a benchmark: Postgres with fsync on, orchestrators, participants and fronts.

Called by the benchmarks of sagas. Refuses to measure a database that may lose what it has acknowledged.
"""

import asyncio
import base64
import os
import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import asyncpg
import grpc
import grpc.aio
from amends_chassis.dial import dial
from amends_contracts import descriptor_set
from amends_embedded import Child, Children, Postgres
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from amends.saga.v1 import definition_service_pb2 as api
from amends.saga.v1.definition_service_pb2_grpc import DefinitionServiceStub
from amends_bench.participant import SERVICES

READY = timedelta(seconds=60)
MUST_BE_ON = ("fsync", "full_page_writes", "synchronous_commit")
FOLDER = Path(__file__).parent / "resources"
NAMESPACE = "bench"


class NotDurableError(RuntimeError):
    """The database would lose committed data in a crash: whatever is measured on it means nothing."""


@dataclass(slots=True)
class BenchProcesses:
    """All processes of one measurement, with their addresses."""

    postgres: Postgres
    children: Children
    folder: Path
    databases: dict[str, str] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)

    @property
    def orchestrators(self) -> list[str]:
        """Return the addresses of the orchestrators, sorted by name."""
        return [address for name, address in sorted(self.addresses.items()) if name.startswith("orchestrator")]

    @property
    def fronts(self) -> list[str]:
        """Return the addresses of the fronts."""
        return [address for name, address in sorted(self.addresses.items()) if name.startswith("front")]

    def memory(self) -> int:
        """Resident bytes of all orchestrators."""
        pids = [child.pid for name, child in self.children.running.items() if name.startswith("orchestrator")]
        pages = (int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
        return sum(pages) * os.sysconf("SC_PAGE_SIZE")

    def processor_seconds(self, *also: int) -> float:
        """Return the processor time, in seconds, of all processes but the load generator, with the database's.

        `also` are ids of processes that are not children of this world.
        """
        return used([self.postgres.pid, *also, *(child.pid for child in self.children.running.values())])

    async def start_one(self, name: str, module: str, environment: Mapping[str, str]) -> None:
        """Start a process and keep its address."""
        child = Child.start(
            name,
            [sys.executable, "-m", module],
            log=self.folder / f"{name}.log",
            report=self.folder / f"{name}.json",
            environment=environment,
        )
        self.children.add(child)
        said = await child.ready(READY)
        self.addresses[name] = str(said["grpc"])

    async def start_orchestrator(self, name: str, more: Mapping[str, str] | None = None) -> None:
        """Start an orchestrator and wait until it is ready."""
        told = {"AMENDS_TARGETS": "loopback", "AMENDS_DATABASE_URL": self.databases["orchestrator"]}
        await self.start_one(name, "amends_orchestrator", told | {"AMENDS_LEASE": "5s"} | dict(more or {}))
        await _serving(self.addresses[name])

    async def start(self, *, orchestrators: int, barrier: bool) -> None:
        """Start everything and apply the saga."""
        await check_durable(self.postgres.admin_url)
        for name in ("orchestrator", *SERVICES):
            self.databases[name] = await self.postgres.create(name, name)
        for name in SERVICES:
            told = {"AMENDS_BENCH_SERVICE": name}
            if barrier:
                told["AMENDS_DATABASE_URL"] = self.databases[name]
            await self.start_one(name, "amends_bench.participant", told)
        for number in range(1, orchestrators + 1):
            await self.start_orchestrator(f"orchestrator-{number}")
        targets = {f"AMENDS_BENCH_{name.upper()}": self.addresses[name] for name in SERVICES}
        for number in range(1, orchestrators + 1):
            told = targets | {"AMENDS_BENCH_KEYS": "1" if barrier else "0"}
            await self.start_one(f"front-{number}", "amends_bench.front", told)
        await self.apply()

    async def apply(self) -> None:
        """Put the participants, the policy and the saga in force."""
        async with dial(self.orchestrators[0]) as channel:
            stub: Any = DefinitionServiceStub(channel)
            for name, service in SERVICES.items():
                text = (FOLDER / "participant.yaml").read_text()
                text = text.format(name=name, service=service, target=self.addresses[name])
                manifest = api.Manifest(text=text, source=f"{name}.yaml")
                _accepted(
                    await stub.ApplyParticipant(api.ApplyParticipantRequest(manifest=manifest, namespace=NAMESPACE))
                )
            manifest = api.Manifest(text=(FOLDER / "policy.yaml").read_text(), source="policy.yaml")
            _accepted(await stub.ApplyRetryPolicy(api.ApplyRetryPolicyRequest(manifest=manifest, namespace=NAMESPACE)))
        await self.apply_saga((FOLDER / "saga.yaml").read_text())

    async def apply_saga(self, text: str) -> None:
        """Put a saga in force. No participant that is called knows its input: it brings its descriptors."""
        contracts = base64.b64encode(descriptor_set().SerializeToString()).decode()
        manifest = api.Manifest(text=text.replace("DESCRIPTORS", contracts), source="saga.yaml")
        async with dial(self.orchestrators[0]) as channel:
            stub: Any = DefinitionServiceStub(channel)
            _accepted(await stub.ApplySaga(api.ApplySagaRequest(manifest=manifest, namespace=NAMESPACE)))


def _accepted(answer: Any) -> None:
    if not answer.accepted:
        raise RuntimeError("\n".join(f"{found.source}:{found.line}: {found.message}" for found in answer.findings))


def used(processes: Iterable[int]) -> float:
    """Return the processor time that processes and their children have used so far, in seconds."""
    roots = set(processes)
    return sum(seconds for pid, parent, seconds in _processes() if pid in roots or parent in roots)


def _processes() -> Iterator[tuple[int, int, float]]:
    """Id, parent and processor seconds of every process of this machine."""
    for place in Path("/proc").glob("[0-9]*"):
        try:
            fields = (place / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        yield int(place.name), int(fields[1]), (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def check_durable(url: str) -> None:
    """Raise NotDurableError unless the server flushes what it commits."""
    connection = await asyncpg.connect(url)
    try:
        for setting in MUST_BE_ON:
            value = await connection.fetchval(f"SHOW {setting}")
            if value != "on":
                raise NotDurableError(f"{setting} is {value}: refusing to measure")
    finally:
        await connection.close()


async def _serving(address: str) -> None:
    """Wait until a process says that it is ready."""
    async with dial(address) as channel:
        health: Any = HealthStub(channel)
        async with asyncio.timeout(READY.total_seconds()):
            while True:
                try:
                    request = HealthCheckRequest(service="readiness")
                    answer = await health.Check(request, timeout=1, wait_for_ready=True)
                    if answer.status == HealthCheckResponse.SERVING:
                        return
                except grpc.aio.AioRpcError as error:
                    if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                        raise
                await asyncio.sleep(0.05)


@asynccontextmanager
async def running(*, orchestrators: int = 2, barrier: bool = False) -> AsyncIterator[BenchProcesses]:
    """Yield a world of its own, gone afterwards."""
    with TemporaryDirectory(prefix="amends-bench-") as scratch:
        folder = Path(scratch)
        async with (
            await Postgres.start(folder / "postgres") as postgres,
            Children(grace=timedelta(seconds=5)) as children,
        ):
            world = BenchProcesses(postgres, children, folder)
            await world.start(orchestrators=orchestrators, barrier=barrier)
            yield world
