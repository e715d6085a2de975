"""A real orchestrator, the real orders service and scripted neighbours, and a wire that loses answers."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import grpc.aio
import pytest_asyncio
from amends_chassis.database import Database
from amends_chassis.dial import dial
from amends_chassis.service import Runtime, running
from amends_contracts import descriptor_set
from amends_orchestrator.assemble import Orchestrator
from amends_orchestrator.calls.targets import TargetScope
from amends_orchestrator.settings import Settings as OrchestratorSettings
from amends_testkit.answers import ScriptedAnswer
from amends_testkit.participant import FakeParticipant
from amends_testkit.service import migrated
from pydantic import SecretStr
from shop_orders.__main__ import assemble
from shop_orders.settings import Settings

from amends.saga.v1 import definition_service_pb2 as dpb
from amends.saga.v1 import run_pb2, run_service_pb2, run_service_pb2_grpc
from amends.saga.v1.definition_service_pb2_grpc import DefinitionServiceStub
from amends.saga.v1.run_service_pb2_grpc import RunServiceStub
from shop.orders.v1 import orders_pb2
from shop.orders.v1.orders_pb2_grpc import OrderServiceStub
from shop.types.v1 import types_pb2

EXAMPLE = Path(__file__).parents[2] / "examples" / "place-order"
NEIGHBOURS = {
    "inventory": "shop.inventory.v1.InventoryService",
    "payments": "shop.payments.v1.PaymentService",
    "shipping": "shop.shipping.v1.ShippingService",
}
CALL = 20
HASTE = timedelta(milliseconds=50)


@dataclass
class Wire(run_service_pb2_grpc.RunServiceServicer):
    """Stands between orders and the orchestrator."""

    runs: Any
    loses_answers: bool = False
    """StartRun is carried out, and nobody hears of it."""
    looks_at_the_input_first: bool = False
    """StartRun is told INVALID_ARGUMENT, as by an orchestrator that looks the key up last."""
    started: list[str] = field(default_factory=list)

    async def StartRun(self, request: Any, context: Any) -> Any:
        self.started.append(request.idempotency_key)
        if self.looks_at_the_input_first:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the input does not fit")
        answer = await self._pass_on(self.runs.StartRun, request, context)
        if self.loses_answers:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the answer was lost")
        return answer

    async def GetRun(self, request: Any, context: Any) -> Any:
        return await self._pass_on(self.runs.GetRun, request, context)

    async def ListRuns(self, request: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "")

    WatchRun: Any = ListRuns
    ReadPayload: Any = ListRuns
    ResolveRun = CancelRun = ListRuns

    async def _pass_on(self, method: Any, request: Any, context: Any) -> Any:
        try:
            return await method(request, timeout=CALL)
        except grpc.aio.AioRpcError as error:
            await context.abort(error.code(), error.details() or "", tuple(error.trailing_metadata() or ()))


@dataclass
class Shop:
    """What a test plays with."""

    orders: Any
    runs: Any
    definitions: Any
    wire: Wire
    database: Database
    """Of the orders service."""
    address: str
    """Of the orders service."""
    neighbours: dict[str, FakeParticipant]

    async def place(self, order_id: str, *, wait: bool = False) -> orders_pb2.Order:
        """Place an order of one mug; the same again is the same order."""
        request = orders_pb2.PlaceOrderRequest(
            order_id=order_id,
            customer_id="ada",
            lines=[types_pb2.Line(sku="mug", quantity=1)],
            card_token="tok_visa",
            wait=wait,
            address=types_pb2.Address(recipient="A", street="S", city="C", postal_code="10115", country="DE"),
        )
        placed: orders_pb2.PlaceOrderResponse = await self.orders.PlaceOrder(request, timeout=CALL)
        return placed.order

    async def order(self, order_id: str) -> orders_pb2.Order:
        """Read an order."""
        request = orders_pb2.GetOrderRequest(order_id=order_id)
        found: orders_pb2.GetOrderResponse = await self.orders.GetOrder(request, timeout=CALL)
        return found.order

    async def run(self, order_id: str) -> run_pb2.Run:
        """Read the run of an order."""
        request = run_service_pb2.GetRunRequest(namespace="shop", idempotency_key=order_id)
        found: run_service_pb2.GetRunResponse = await self.runs.GetRun(request, timeout=CALL)
        return found.run

    async def make_due(self) -> None:
        """Let the time pass until orders looks at its unfinished orders."""
        await self.database.pool.execute("UPDATE orders SET follow_up_at = now() WHERE follow_up_at IS NOT NULL")

    async def resolve(self, run: run_pb2.Run, resolution: Any, amendment: str = "") -> None:
        """Decide a run that is parked or stalled."""
        await self.runs.ResolveRun(
            run_service_pb2.ResolveRunRequest(
                run_id=run.run_id,
                resolution=resolution,
                expected_seq=run.parked.seq,
                reason="r",
                actor="ada",
                amendment=amendment,
            ),
            timeout=CALL,
        )

    async def apply_participant(self, name: str, target: str) -> None:
        """Say where a participant of the example is."""
        text = (EXAMPLE / "participants.yaml").read_text()
        [manifest] = [one for one in text.split("\n---\n") if f"name: {name}," in one]
        filled = manifest.replace(f"dns:///{name}.shop.svc.cluster.local:50051", target)
        request = dpb.ApplyParticipantRequest(manifest=dpb.Manifest(text=filled, source="participants.yaml"))
        answer = await self.definitions.ApplyParticipant(request, timeout=CALL)
        assert answer.accepted, answer.findings

    async def apply_saga(self, text: str) -> None:
        """Put a saga in force."""
        request = dpb.ApplySagaRequest(manifest=dpb.Manifest(text=text, source="saga.yaml"))
        answer = await self.definitions.ApplySaga(request, timeout=CALL)
        assert answer.accepted, answer.findings


@pytest_asyncio.fixture(loop_scope="session")
async def shop(database_url: str, make_database: Any) -> AsyncIterator[Shop]:
    """The example in force."""
    async with AsyncExitStack() as stack:
        enter: Any = stack.enter_async_context
        neighbours = {}
        for name, service in NEIGHBOURS.items():
            neighbours[name] = await enter(await FakeParticipant.start(descriptor_set(), [service]))
        neighbours["payments"].script("Charge", ScriptedAnswer.ok(payment_id="pay-1"))
        neighbours["shipping"].script("Book", ScriptedAnswer.ok(tracking_id="trk-1"))
        channel = await enter(dial(await enter(orchestrator(await make_database()))))
        wire = Wire(RunServiceStub(channel))
        database = await enter(migrated(database_url, "shop_orders.migrations"))
        settings = Settings(
            database_url=SecretStr(database_url),
            orchestrator_target=await enter(served(wire)),
            inventory_target=neighbours["inventory"].target,
            follow_up_every=HASTE,
            follow_up_at_most=HASTE,
            follow_up_waiting_at_most=HASTE,
        )
        service = await enter(running(settings, partial(assemble, settings)))
        orders: Any = OrderServiceStub(service.channel(service.address))
        price = types_pb2.Money(currency="EUR", minor=900)
        await orders.SetPrice(orders_pb2.SetPriceRequest(sku="mug", price=price))
        definitions = DefinitionServiceStub(channel)
        shop = Shop(orders, RunServiceStub(channel), definitions, wire, database, service.address, neighbours)
        for name, participant in neighbours.items():
            await shop.apply_participant(name, participant.target)
        await shop.apply_participant("orders", service.address)
        await shop.apply_saga((EXAMPLE / "saga.yaml").read_text())
        yield shop


@asynccontextmanager
async def orchestrator(url: str) -> AsyncIterator[str]:
    """Run one replica for a block; its address."""

    async def start(runtime: Runtime) -> None:
        assert isinstance(runtime.settings, OrchestratorSettings)
        await Orchestrator(runtime, runtime.settings).start()

    settings = OrchestratorSettings(
        database_url=SecretStr(url), targets=TargetScope.LOOPBACK, poll=HASTE, drain=timedelta(seconds=2)
    )
    async with running(settings, start) as runtime:
        yield runtime.address


@asynccontextmanager
async def served(wire: Wire) -> AsyncIterator[str]:
    """Serve the wire for a block; its address."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    run_service_pb2_grpc.add_RunServiceServicer_to_server(wire, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)
