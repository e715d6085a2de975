"""An orchestrator in a process of its own, honest sagas that run all the time, and somebody who watches it.

What is measured is what a cluster would see: the answer of grpc.health, the lease in the database, the memory of the
process and of those that it has started.
"""

import asyncio
import itertools
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import asyncpg
import grpc.aio
from amends_contracts import descriptor_set
from amends_embedded import Child
from amends_testkit.participant import FakeParticipant
from amends_testkit.waiting import eventually
from google.protobuf.struct_pb2 import Struct
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from amends.saga.v1 import definition_service_pb2 as dpb
from amends.saga.v1 import run_pb2
from amends.saga.v1 import run_service_pb2 as pb
from amends.saga.v1.definition_service_pb2_grpc import DefinitionServiceStub
from amends.saga.v1.run_service_pb2_grpc import RunServiceStub

MEMORY = 256
"""MiB: the limit in the orchestrator's chart."""
ANSWERS_WITHIN = timedelta(seconds=2)
UNLIMITED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
PAYMENTS = "shop.payments.v1.PaymentService"
PARTICIPANT = """
apiVersion: amends.dev/v1alpha1
kind: Participant
metadata: {name: NAME, namespace: NAMESPACE}
spec: {service: SERVICE, target: "TARGET", methods: ["*"], callers: [shop, web, strange]}
"""
SAGA = """
apiVersion: amends.dev/v1alpha1
kind: Saga
metadata: {name: NAME, namespace: NAMESPACE}
spec:
  input: {order: string}
  deadline: 60s
  steps:
    - name: pay
      pivot: true
      call: SERVICE/Charge
      request: "ChargeRequest{order_id: input.order, card_token: 'tok'}"
"""


@dataclass
class Watch:
    """What was seen of the orchestrator since it was last asked."""

    slowest: float = 0.0
    """Seconds of the slowest answer of grpc.health."""
    memory: int = 0
    """MiB at most, with the worker process."""
    leased: bool = True
    failed: list[str] = field(default_factory=list)
    """What went wrong with an honest saga, or with a probe."""
    completed: int = 0


@dataclass
class Scene:
    """The orchestrator and what runs on it. `watch` is replaced for each attack."""

    address: str
    health: str
    """Where it is asked whether it lives."""
    pid: int
    url: str
    channel: grpc.aio.Channel
    honest: FakeParticipant
    hanging: FakeParticipant
    watch: Watch = field(default_factory=Watch)
    started: int = 0

    @property
    def runs(self) -> Any:
        """Its RunService."""
        return RunServiceStub(self.channel)

    @property
    def definitions(self) -> Any:
        """Its DefinitionService."""
        return DefinitionServiceStub(self.channel)

    async def apply_participant(
        self, name: str, target: str, *, service: str = PAYMENTS, namespace: str = "strange", descriptors: bytes = b""
    ) -> dpb.ApplyParticipantResponse:
        """Applies a Participant that every namespace here may call."""
        text = PARTICIPANT.replace("NAMESPACE", namespace).replace("NAME", name)
        text = text.replace("SERVICE", service).replace("TARGET", target)
        request = dpb.ApplyParticipantRequest(manifest=dpb.Manifest(text=text), descriptors=descriptors)
        answer: dpb.ApplyParticipantResponse = await self.definitions.ApplyParticipant(request, timeout=60)
        return answer

    async def apply_saga(self, name: str, namespace: str, *, behind_the_pivot: str = "") -> None:
        """Applies a saga of one step, or with a second one: a method of the same service that takes an order's id."""
        text = SAGA.replace("NAMESPACE", namespace).replace("NAME", name).replace("SERVICE", PAYMENTS)
        if behind_the_pivot:
            expression = f"{behind_the_pivot}Request{{order_id: input.order}}"
            text += f'    - {{name: behind, call: {PAYMENTS}/{behind_the_pivot}, request: "{expression}"}}\n'
        request = dpb.ApplySagaRequest(manifest=dpb.Manifest(text=text))
        answer = await self.definitions.ApplySaga(request, timeout=60)
        assert answer.accepted, answer.findings

    async def honest_orders(self, count: int) -> None:
        """Wait until this many more honest sagas have been completed: what an attack holds open, it holds meanwhile."""
        watch, seen = self.watch, self.watch.completed
        await eventually(lambda: watch.completed >= seen + count, timeout=timedelta(seconds=60))

    async def order(self) -> None:
        """One honest saga, from start to end."""
        self.started += 1
        data = Struct()
        data.update({"order": f"o-{self.started}"})
        key = f"honest-{self.started}"
        request = pb.StartRunRequest(namespace="shop", saga="pay", idempotency_key=key, json=data, wait=True)
        watch = self.watch
        try:
            answer = await self._ask_again(request)
        except grpc.aio.AioRpcError as error:
            watch.failed.append(f"{key}: {error.code().name} {error.details()}")
            return
        except TimeoutError:
            watch.failed.append(f"{key}: no answer within a minute")
            return
        if answer.run.state == run_pb2.RUN_STATE_COMPLETED:
            watch.completed += 1
        else:
            watch.failed.append(f"{key}: {run_pb2.RunState.Name(answer.run.state)}")

    async def _ask_again(self, request: pb.StartRunRequest) -> pb.StartRunResponse:
        """Ask with the same key until there is an answer, as a caller must: gRPC ends calls in a flood."""
        async with asyncio.timeout(60):
            for tries in itertools.count():
                try:
                    return cast("pb.StartRunResponse", await self.runs.StartRun(request, timeout=30))
                except grpc.aio.AioRpcError as error:
                    if error.code() not in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE):
                        raise
                await asyncio.sleep(min(0.1 * 2**tries, 2.0) * random.uniform(0.5, 1.0))
        raise AssertionError("not reached")


@asynccontextmanager
async def scene(url: str, folder: Path, *, orders_a_second: int) -> AsyncIterator[Scene]:
    """A scene on a database of its own, with honest sagas under way."""
    environment = {
        "AMENDS_DATABASE_URL": url,
        "AMENDS_TARGETS": "loopback",
        "AMENDS_HOT_BYTES": str(MEMORY * 1024 * 1024 // 8),
        "AMENDS_CALL_TIMEOUT": "60s",
        "AMENDS_HEALTH_PORT": "0",  # as in the charts
    }
    command = [sys.executable, "-m", "amends_orchestrator"]
    child = Child.start("o", command, environment=environment, log=folder / "o.log", report=folder / "o.json")
    try:
        report = await child.ready()
        async with (
            await FakeParticipant.start(descriptor_set(), [PAYMENTS]) as honest,
            await FakeParticipant.start(descriptor_set(), [PAYMENTS]) as hanging,
            grpc.aio.insecure_channel(report["grpc"], options=UNLIMITED) as channel,
        ):
            made = Scene(report["grpc"], report["health"], child.pid, url, channel, honest, hanging)
            await eventually(lambda: _serves(channel), timeout=timedelta(seconds=30))
            assert (await made.apply_participant("payments", honest.target, namespace="shop")).accepted
            await made.apply_saga("pay", "shop")
            async with asyncio.TaskGroup() as work:
                tasks = [
                    work.create_task(_orders(made, timedelta(seconds=1) / orders_a_second)),
                    work.create_task(_probe(made)),
                    work.create_task(_weigh(made)),
                    work.create_task(_lease(made)),
                ]
                try:
                    yield made
                finally:
                    for task in tasks:
                        task.cancel()
        assert "lease.ran_out" not in (folder / "o.log").read_text()
    finally:
        await child.terminate()


async def _serves(channel: grpc.aio.Channel) -> bool:
    health: Any = HealthStub(channel)
    answer = await health.Check(HealthCheckRequest(), timeout=10)
    return bool(answer.status == HealthCheckResponse.SERVING)


async def _orders(made: Scene, every: timedelta) -> None:
    async with asyncio.TaskGroup() as orders:
        while True:
            orders.create_task(made.order())
            await asyncio.sleep(every.total_seconds())


async def _probe(made: Scene) -> None:
    """Asks as a kubelet does: with a connection of its own."""
    loop = asyncio.get_running_loop()
    while True:
        began = loop.time()
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(made.health, options=options) as channel:
            try:
                health: Any = HealthStub(channel)
                await health.Check(HealthCheckRequest(), timeout=10)
            except grpc.aio.AioRpcError as error:
                made.watch.failed.append(f"health: {error.code().name}")
        made.watch.slowest = max(made.watch.slowest, loop.time() - began)
        await asyncio.sleep(0.2)


async def _weigh(made: Scene) -> None:
    while True:
        made.watch.memory = max(made.watch.memory, resident(made.pid))
        await asyncio.sleep(0.05)


async def _lease(made: Scene) -> None:
    connection = await asyncpg.connect(made.url)
    try:
        while True:
            if not await connection.fetchval("SELECT expires_at > clock_timestamp() FROM process"):
                made.watch.leased = False
            await asyncio.sleep(0.2)
    finally:
        await connection.close()


def resident(pid: int) -> int:
    """MiB that a process and those that it has started have in memory."""
    family = [pid, *(int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    return sum(_resident(member) for member in family) // 1024


def _resident(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:  # it has ended meanwhile
        return 0
    return next((int(line.split()[1]) for line in status if line.startswith("VmRSS")), 0)
