"""The whole monitor on a migrated database and a real broker, and events of flows as services would publish them."""

import itertools
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from amends_chassis.database import Database
from amends_chassis.service import Runtime, running
from amends_contracts import descriptor_set
from amends_embedded import Nats, Postgres
from amends_events import Broker, CloudEvent, event_type, open_broker
from amends_events.broker import EventRecord
from amends_events.envelope import attributes, new_event_id
from amends_monitor.assemble import assemble
from amends_monitor.settings import Settings
from amends_testkit.waiting import eventually
from pydantic import SecretStr

from amends.monitor.v1 import monitor_service_pb2 as pb
from amends.monitor.v1.monitor_service_pb2_grpc import MonitorServiceStub
from amends.saga.v1.definition_service_pb2 import Manifest
from shop.inventory.events.v1 import inventory_pb2
from shop.orders.events.v1 import orders_pb2
from shop.payments.events.v1 import payments_pb2
from shop.shipping.events.v1 import shipping_pb2
from shop.types.v1.types_pb2 import FULFILMENT_CHOREOGRAPHED

ORDER = (Path(__file__).parents[3] / "examples/place-order/choreography.yaml").read_text()
MODULES = (inventory_pb2, orders_pb2, payments_pb2, shipping_pb2)
EVENTS: dict[str, Any] = {
    name: getattr(module, name) for module in MODULES for name in module.DESCRIPTOR.message_types_by_name
}
RETENTION = timedelta(hours=1)
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def contracts() -> bytes:
    return descriptor_set().SerializeToString()


@dataclass(slots=True)
class Monitor:
    """A monitor, and ways to ask it and to publish for it."""

    stub: Any
    runtime: Runtime
    broker: Broker
    contracts: bytes
    name: str
    """The name of the choreography of one test."""

    async def apply(self, text: str = ORDER, name: str = "") -> pb.ApplyChoreographyResponse:
        """Apply a choreography under a name of this test."""
        named = text.replace("{name: place-order,", f"{{name: {name or self.name},")
        request = pb.ApplyChoreographyRequest(manifest=Manifest(text=named), descriptors=self.contracts)
        answer: pb.ApplyChoreographyResponse = await self.stub.ApplyChoreography(request)
        return answer

    async def publish(
        self, key: str, *names: str, began: datetime | None = None, fulfilment: int = FULFILMENT_CHOREOGRAPHED
    ) -> list[CloudEvent]:
        """Append events of a flow to their topics, a millisecond apart, from now on unless it is said."""
        at = began or datetime.now(UTC)
        made = []
        for number, name in enumerate(names):
            message = EVENTS[name](order_id=key)
            if name == "OrderPlaced":
                message.fulfilment = fulfilment
            made.append(event_of(message, at + timedelta(milliseconds=number)))
            await self.append(made[-1])
        return made

    async def append(self, event: CloudEvent) -> None:
        kind = event_type(EVENTS[event.type.rpartition(".")[2]])
        record = EventRecord(attributes(event, kind.dataschema), event.payload)
        await self.broker.append(event.topic, kind.topic.partition_of(event.key), [record])

    async def flow(self, key: str, name: str = "") -> pb.Flow:
        request = pb.GetFlowRequest(namespace="shop", choreography=name or self.name, key=key)
        answer: pb.GetFlowResponse = await self.stub.GetFlow(request)
        return answer.flow

    async def list(self, *states: Any, **fields: Any) -> pb.ListFlowsResponse:
        answer: pb.ListFlowsResponse = await self.stub.ListFlows(pb.ListFlowsRequest(states=states, **fields))
        return answer

    async def until(self, key: str, state: Any, events: int | None = None) -> pb.Flow:
        """Wait until a flow is in a state, with so many events."""

        async def look() -> Any:
            found = (await self.list(state, namespace="shop", key=key)).flows
            if not found:
                return None
            flow = await self.flow(key, found[0].choreography)
            return flow if events in (None, len(flow.events)) else None

        found: pb.Flow = await eventually(look, what=f"{key} is {pb.FlowState.Name(state)} with {events} events")
        return found


def event_of(message: Any, at: datetime) -> CloudEvent:
    """An event as an outbox publishes it."""
    kind = event_type(type(message))
    service = kind.topic.name.split(".")[1]
    return CloudEvent(
        event_id=new_event_id(),
        source=f"/shop/{service}",
        type=kind.name,
        topic=kind.topic.name,
        key=kind.key_of(message),
        version=1,
        occurred_at=at,
        headers={},
        payload=message.SerializeToString(),
    )


def new_key() -> str:
    """A key of one test alone: the topics are those of the whole session."""
    return f"flow-{next(_numbers)}-{secrets.token_hex(4)}"


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def broker(nats: Nats) -> AsyncIterator[Broker]:
    client = open_broker(nats.url)
    await client.ensure(list({event_type(one).topic for one in EVENTS.values()}), RETENTION)
    yield client
    await client.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def running_monitor(
    postgres: Postgres, nats: Nats, broker: Broker, contracts: bytes
) -> AsyncIterator[tuple[Runtime, Database]]:
    """One monitor for all tests, and its database. Nothing is late before it is due."""
    url = await postgres.create("monitor_suite", "monitor_suite")
    settings = Settings(database_url=SecretStr(url), broker=SecretStr(nats.url), grace=timedelta(0))
    async with running(settings, partial(assemble, settings)) as runtime:
        yield runtime, runtime.database


@pytest.fixture
def database(running_monitor: tuple[Runtime, Database]) -> Database:
    return running_monitor[1]


@pytest_asyncio.fixture(loop_scope="session")
async def monitor(
    running_monitor: tuple[Runtime, Database], broker: Broker, contracts: bytes
) -> AsyncIterator[Monitor]:
    """The monitor, which watches nothing yet and forgets after the test what it was given."""
    runtime, _ = running_monitor
    stub = MonitorServiceStub(runtime.channel(runtime.address))
    yield Monitor(stub, runtime, broker, contracts, f"order-{next(_numbers)}")
    for one in (await stub.ListChoreographies(pb.ListChoreographiesRequest())).choreographies:
        await stub.DeleteChoreography(pb.DeleteChoreographyRequest(namespace=one.namespace, name=one.name))
