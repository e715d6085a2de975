"""The shop's contracts as fake participants, its place-order saga, and an orchestrator to run it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc.aio
from amends_chassis.certificates import Certificates
from amends_chassis.service import Runtime, running
from amends_contracts import descriptor_set
from amends_orchestrator.assemble import Orchestrator
from amends_orchestrator.calls.targets import TargetScope
from amends_orchestrator.settings import Settings
from amends_testkit.participant import FakeParticipant
from amends_testkit.waiting import eventually
from google.protobuf.struct_pb2 import Struct

from amends.saga.v1 import definition_service_pb2 as dpb
from amends.saga.v1 import run_pb2
from amends.saga.v1 import run_service_pb2 as pb
from amends.saga.v1.definition_service_pb2_grpc import DefinitionServiceStub
from amends.saga.v1.run_service_pb2_grpc import RunServiceStub

EXAMPLE = Path(__file__).parents[3] / "examples" / "place-order"
SERVICES = {
    "orders": "shop.orders.v1.OrderService",
    "inventory": "shop.inventory.v1.InventoryService",
    "payments": "shop.payments.v1.PaymentService",
    "shipping": "shop.shipping.v1.ShippingService",
}
POLICY = """
apiVersion: amends.dev/v1alpha1
kind: RetryPolicy
metadata: {name: quick, namespace: shop}
spec:
  timeout: 500ms
  attempts: 3
  backoff: {initial: 10ms, max: 50ms}
  circuitBreaker: {failureRatio: 1.0, minimumCalls: 1000}
  budget: {ratio: 10, minPerSecond: 1000}
"""
INPUT = {
    "orderId": "o-1",
    "lines": [{"sku": "tea", "quantity": 2}],
    "total": {"currency": "EUR", "minor": "1200"},
    "cardToken": "tok_visa",
    "address": {"recipient": "Ada", "street": "Main 1", "city": "Berlin", "postalCode": "10115", "country": "DE"},
}
DONE = frozenset({run_pb2.RUN_STATE_COMPLETED, run_pb2.RUN_STATE_COMPENSATED, run_pb2.RUN_STATE_PARKED})


@dataclass
class Shop:
    """Four fake participants."""

    parts: dict[str, FakeParticipant] = field(default_factory=dict)

    def __getattr__(self, name: str) -> FakeParticipant:
        try:
            return self.parts[name]
        except KeyError:
            raise AttributeError(name) from None

    def manifests(self) -> list[str]:
        text = (EXAMPLE / "participants.yaml").read_text()
        for name, part in self.parts.items():
            text = text.replace(f"dns:///{name}.shop.svc.cluster.local:50051", part.target)
        return text.split("\n---\n")


@asynccontextmanager
async def open_shop(certificates: Certificates | None = None) -> AsyncIterator[Shop]:
    shop = Shop()
    async with AsyncExitStack() as stack:
        for name, service in SERVICES.items():
            credentials = certificates.server_credentials() if certificates is not None else None
            part = await FakeParticipant.start(descriptor_set(), [service], credentials=credentials)
            shop.parts[name] = await stack.enter_async_context(part)
        yield shop


@dataclass
class Client:
    """A running orchestrator and its API."""

    runtime: Runtime
    parts: Orchestrator
    runs: RunServiceStub
    definitions: DefinitionServiceStub
    channel: grpc.aio.Channel

    async def apply(self, shop: Shop, saga: str | None = None, policy: str = POLICY) -> str:
        for manifest in shop.manifests():
            request = dpb.ApplyParticipantRequest(manifest=dpb.Manifest(text=manifest, source="participants.yaml"))
            answer = await self.definitions.ApplyParticipant(request)
            assert answer.accepted, answer.findings
            assert answer.participant.ready, answer.participant.message
        if policy:
            policed = await self.definitions.ApplyRetryPolicy(
                dpb.ApplyRetryPolicyRequest(manifest=dpb.Manifest(text=policy, source="policy.yaml"))
            )
            assert policed.accepted, policed.findings
        return await self.apply_saga(saga or (EXAMPLE / "saga.yaml").read_text())

    async def apply_saga(self, text: str) -> str:
        request = dpb.ApplySagaRequest(manifest=dpb.Manifest(text=text, source="saga.yaml"))
        applied = await self.definitions.ApplySaga(request)
        assert applied.accepted, applied.findings
        return applied.digest

    async def start(
        self,
        key: str,
        *,
        wait: bool = True,
        namespace: str = "shop",
        saga: str = "place-order",
        json: dict[str, Any] | None = None,
    ) -> pb.StartRunResponse:
        data = Struct()
        data.update(INPUT if json is None else json)
        request = pb.StartRunRequest(namespace=namespace, saga=saga, idempotency_key=key, json=data, wait=wait)
        return await self.runs.StartRun(request, timeout=30)

    async def run(self, run_id: str) -> run_pb2.Run:
        return (await self.runs.GetRun(pb.GetRunRequest(run_id=run_id), timeout=10)).run

    async def ended(self, run_id: str, within: timedelta = timedelta(seconds=20)) -> run_pb2.Run:
        """The run once it has ended or is parked."""

        async def look() -> run_pb2.Run | None:
            run = await self.run(run_id)
            return run if run.state in DONE else None

        run = await eventually(look, timeout=within, what="the run comes to rest")
        assert run is not None
        return run

    async def timeline(self, run_id: str) -> list[run_pb2.RunEvent]:
        watched = self.runs.WatchRun(pb.WatchRunRequest(run_id=run_id))
        return [answer.event async for answer in watched if answer.event.seq]


@asynccontextmanager
async def orchestrator(url: str, **settings: Any) -> AsyncIterator[Client]:
    """One replica in this process."""
    made: list[Orchestrator] = []

    async def assemble(runtime: Runtime) -> None:
        assert isinstance(runtime.settings, Settings)
        made.append(Orchestrator(runtime, runtime.settings))
        await made[0].start()

    wanted = {
        "targets": TargetScope.LOOPBACK,
        "poll": timedelta(milliseconds=50),
        "drain": timedelta(seconds=2),
    } | settings
    async with (
        running(Settings(database_url=url, **wanted), assemble) as runtime,
        grpc.aio.insecure_channel(runtime.address) as channel,
    ):
        yield Client(runtime, made[0], RunServiceStub(channel), DefinitionServiceStub(channel), channel)


def states(run: run_pb2.Run) -> dict[str, str]:
    """Step names to their states, without the prefix."""
    return {step.name: run_pb2.StepState.Name(step.state).removeprefix("STEP_STATE_") for step in run.steps}


def state(run: run_pb2.Run) -> str:
    """The run's state, without the prefix."""
    return run_pb2.RunState.Name(run.state).removeprefix("RUN_STATE_")
