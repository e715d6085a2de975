"""A migrated database, neighbours that answer as their contracts say, and the whole service among them."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

import grpc
import pytest
import pytest_asyncio
from amends_chassis.database import Database
from amends_chassis.service import running
from amends_testkit.service import SentMetadata, migrated, saga_call
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status
from pydantic import SecretStr
from shop_orders.assemble import assemble
from shop_orders.settings import Settings

from amends.saga.v1 import run_pb2, run_service_pb2, run_service_pb2_grpc
from shop.inventory.v1 import inventory_pb2, inventory_pb2_grpc
from shop.orders.v1.orders_pb2 import PlaceOrderInput
from shop.orders.v1.orders_pb2_grpc import OrderServiceStub

HASTE = timedelta(milliseconds=20)


async def refuse(context: Any, code: grpc.StatusCode, reason: str) -> None:
    """End a call as the orchestrator does: with a reason that programs read."""
    status = Status(code=code.value[0], message=reason)
    status.details.add().Pack(ErrorInfo(reason=reason, domain="amends.saga.v1"))
    await context.abort_with_status(rpc_status.to_status(status))


@dataclass
class Orchestrator(run_service_pb2_grpc.RunServiceServicer):
    """Keeps runs in memory; a test says how they end."""

    runs: dict[str, run_pb2.Run] = field(default_factory=dict)
    inputs: dict[str, bytes] = field(default_factory=dict)
    refuses_with: grpc.StatusCode | None = None
    loses_answers: bool = False
    """A run begins, and whoever asked for it does not hear of it."""
    asked: Counter[str] = field(default_factory=Counter)
    looked_up: Counter[str] = field(default_factory=Counter)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def StartRun(self, request: Any, context: Any) -> Any:
        key = request.idempotency_key
        self.asked[key] += 1
        if self.loses_answers:
            self._begin(key)
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the answer is lost")
        if self.refuses_with is not None:
            await refuse(context, self.refuses_with, "REFUSED_BY_THE_TEST")
        if self.inputs.setdefault(key, request.binary) != request.binary:
            await refuse(context, grpc.StatusCode.ALREADY_EXISTS, "KEY_REUSED")
        async with self.changed:
            if self._begin(key):
                self.changed.notify_all()
            if request.wait:
                await self._end(key, request.wait_timeout.ToTimedelta())
        told = run_pb2.Run()
        told.CopyFrom(self.runs[key])
        for step in told.steps:
            step.ClearField("response")
        return run_service_pb2.StartRunResponse(run=told)

    def _begin(self, key: str) -> bool:
        if key in self.runs:
            return False
        self.runs[key] = run_pb2.Run(run_id=f"run-{key}", state=run_pb2.RUN_STATE_RUNNING)
        return True

    async def _end(self, key: str, within: timedelta) -> None:
        try:
            async with asyncio.timeout(within.total_seconds()):
                await self.changed.wait_for(lambda: self.runs[key].state != run_pb2.RUN_STATE_RUNNING)
        except TimeoutError:
            return

    async def GetRun(self, request: Any, context: Any) -> Any:
        self.looked_up[request.idempotency_key] += 1
        if request.idempotency_key not in self.runs:
            await refuse(context, grpc.StatusCode.NOT_FOUND, "RUN_UNKNOWN")
        return run_service_pb2.GetRunResponse(run=self.runs[request.idempotency_key])

    async def ListRuns(self, request: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "")

    WatchRun = ResolveRun = CancelRun = ListRuns

    async def started(self, key: str) -> PlaceOrderInput:
        """The input of a run, as soon as it was started."""
        async with self.changed:
            await self.changed.wait_for(lambda: key in self.runs)
        return PlaceOrderInput.FromString(self.inputs[key])

    async def end(
        self, key: str, state: run_pb2.RunState.ValueType, message: str = "", **steps: dict[str, str]
    ) -> None:
        """A run ends, or is parked, with these responses of its steps."""
        async with self.changed:
            self.runs[key].state = state
            self.runs[key].message = message
            for name, response in steps.items():
                self.runs[key].steps.add(name=name).response.update(response)
            self.changed.notify_all()


@dataclass
class Inventory(inventory_pb2_grpc.InventoryServiceServicer):
    """Dispatches, and remembers what."""

    dispatched: list[str] = field(default_factory=list)
    away: bool = False

    async def Dispatch(self, request: Any, context: Any) -> Any:
        self.dispatched.append(request.order_id)
        if self.away:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        return inventory_pb2.DispatchResponse()

    async def Reserve(self, request: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "")

    Release = Receive = GetStock = Reserve


@pytest_asyncio.fixture(loop_scope="session")
async def database(database_url: str) -> AsyncIterator[Database]:
    async with migrated(database_url, "shop_orders.migrations") as database:
        yield database


@pytest_asyncio.fixture(loop_scope="session")
async def orchestrator() -> Orchestrator:
    return Orchestrator()


@pytest_asyncio.fixture(loop_scope="session")
async def inventory() -> Inventory:
    return Inventory()


@pytest_asyncio.fixture(loop_scope="session")
async def neighbours(orchestrator: Orchestrator, inventory: Inventory) -> AsyncIterator[str]:
    """Where both neighbours listen."""
    server = grpc.aio.server()
    run_service_pb2_grpc.add_RunServiceServicer_to_server(orchestrator, server)
    inventory_pb2_grpc.add_InventoryServiceServicer_to_server(inventory, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


@pytest_asyncio.fixture(loop_scope="session")
async def service(database: Database, database_url: str, neighbours: str) -> AsyncIterator[Any]:
    """The service's stub; `database` looks at the same data."""
    settings = Settings(
        database_url=SecretStr(database_url),
        orchestrator_target=neighbours,
        inventory_target=neighbours,
        follow_up_every=HASTE,
        follow_up_at_most=HASTE,
        follow_up_waiting_at_most=HASTE,
    )
    async with running(settings, partial(assemble, settings)) as runtime:
        yield OrderServiceStub(runtime.channel(runtime.address))


@pytest.fixture
def call() -> Callable[..., SentMetadata]:
    """Makes the metadata of a saga's call."""
    return saga_call
