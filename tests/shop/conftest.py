"""A real orchestrator, the real orders service and scripted neighbours, and a wire that loses answers."""

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
import pytest
import pytest_asyncio
from amends_chassis.database import Database
from amends_chassis.dial import dial
from amends_chassis.service import Runtime, running
from amends_contracts import descriptor_set
from amends_embedded import Nats, Postgres
from amends_orchestrator.assemble import Orchestrator
from amends_orchestrator.calls.targets import TargetScope
from amends_orchestrator.settings import Settings as OrchestratorSettings
from amends_testkit.answers import ScriptedAnswer
from amends_testkit.participant import FakeParticipant
from amends_testkit.service import migrated
from pydantic import SecretStr
from shop_orders.assemble import assemble
from shop_orders.settings import Settings

from amends.saga.v1 import definition_service_pb2 as dpb
from amends.saga.v1 import run_pb2, run_service_pb2, run_service_pb2_grpc
from amends.saga.v1.definition_service_pb2_grpc import DefinitionServiceStub
from amends.saga.v1.run_service_pb2_grpc import RunServiceStub
from shop.orders.v1 import orders_pb2
from shop.orders.v1.orders_pb2_grpc import OrderServiceStub
from shop.types.v1 import types_pb2

from . import front as fronts
from . import letters as post
from . import market as markets
from .front import Front
from .letters import Letters
from .market import Market

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
class Definitions:
    """The example, to be put in force."""

    definitions: Any

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


@dataclass
class Shop(Definitions):
    """What a test plays with."""

    orders: Any
    runs: Any
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
        shop = Shop(definitions, orders, RunServiceStub(channel), wire, database, service.address, neighbours)
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


_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def make_lasting(postgres: Postgres) -> Callable[[], Awaitable[str]]:
    """Makes databases that last as long as the session."""

    async def make() -> str:
        name = f"market_{next(_numbers)}"
        return await postgres.create(name, name)

    return make


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def nats_market(make_lasting: Any, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Market]:
    """A shop over NATS, with an orchestrator."""
    journal = await make_lasting()
    async with (
        await Nats.start(tmp_path_factory.mktemp("market")) as nats,
        orchestrator(journal) as address,
        dial(address) as channel,
        markets.market(nats.url, make_lasting, address, journal) as shop,
    ):
        definitions = Definitions(DefinitionServiceStub(channel))
        for name, target in shop.addresses.items():
            await definitions.apply_participant(name, target)
        await definitions.apply_saga((EXAMPLE / "saga.yaml").read_text())
        yield shop


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def front(
    nats_market: Market, make_lasting: Any, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Front]:
    """Everything behind the gateway."""
    async with fronts.front(nats_market, make_lasting, tmp_path_factory.mktemp("front")) as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def client(front: Front) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the gateway in front of the whole shop."""
    async with fronts.gateway(**front.settings) as client:
        yield client


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def kafka_market(kafka: Any, make_lasting: Any) -> AsyncIterator[Market]:
    """A shop over Kafka, without an orchestrator."""
    journal = await make_lasting()
    async with (
        markets.an_empty_journal(journal),
        markets.market(kafka.url, make_lasting, "127.0.0.1:1", journal) as shop,
    ):
        yield shop


WAYS = {
    "orchestrated": ("nats", types_pb2.FULFILMENT_ORCHESTRATED),
    "choreographed": ("nats", types_pb2.FULFILMENT_CHOREOGRAPHED),
    "choreographed over kafka": ("kafka", types_pb2.FULFILMENT_CHOREOGRAPHED),
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """A way to fulfil orders."""
    return str(request.param)


@pytest.fixture
def market(request: pytest.FixtureRequest, way: str) -> Market:
    """The shop for a way to fulfil orders."""
    shop: Market = request.getfixturevalue(f"{WAYS[way][0]}_market")
    return shop


@pytest.fixture
def fulfilment(way: str) -> Any:
    """What an order says that is fulfilled in that way."""
    return WAYS[way][1]


@pytest.fixture
def order_id() -> str:
    """The id of an order of this test alone."""
    return f"order-{next(_numbers)}"


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def letters(make_lasting: Any) -> AsyncIterator[Letters]:
    """The handlers of all services, over databases of their own."""
    async with post.opened(make_lasting) as opened:
        yield opened
