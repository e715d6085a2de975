"""An installation whose payments publish and whose shipping consumes, for the audit of events."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
from amends_cli.audit_events import EventReport, audit_events
from amends_embedded import Nats
from amends_events import Broker, CloudEvent, Consumer, Outbox, Relay, event_type, with_event
from amends_events.parked import list_parked
from amends_testkit.waiting import eventually

from shop.payments.events.v1.payments_pb2 import PaymentRefunded, PaymentTaken

PAY = with_event(
    "INSERT INTO payment VALUES ($1, 1) ON CONFLICT (order_id) DO UPDATE SET version = payment.version + 1"
    " RETURNING version",
    1,
)
TOPIC = event_type(PaymentTaken).topic
OF_ONE = TOPIC.partition_of("o-1")
LAST = "(SELECT event_id FROM inbox_position WHERE partition = $1)"
"""The last event of a partition that shipping has read."""
BOX = Outbox("/shop/payments", [PaymentTaken, PaymentRefunded])


@dataclass
class Installation:
    """Payments that publish, shipping that consumes, and the broker between them."""

    payments: asyncpg.Pool
    shipping: asyncpg.Pool
    urls: dict[str, str]
    server: Nats
    broker: Broker

    async def audited(self, **also: Any) -> EventReport:
        return await audit_events(self.urls, self.server.url, **also)

    async def broken(self) -> set[tuple[str, str, str]]:
        """Law, consumer and key of each finding."""
        return {(one.law.value, one.consumer, one.key) for one in (await self.audited()).found}

    async def pay(self, *orders: str) -> None:
        for order in orders:
            await self.payments.execute(PAY, order, *BOX.row(PaymentTaken(order_id=order)).values)

    async def published(self) -> None:
        async def emptied() -> bool:
            return not await self.payments.fetchval("SELECT count(*) FROM outbox")

        relay = Relay(lambda: asyncpg.connect(self.urls["payments"]), BOX, self.broker, keeps=True)
        async with running(relay.run()):
            await eventually(emptied)

    async def consumed(self, handled: int, parked: int = 0) -> None:
        async def done() -> bool:
            known = await self.shipping.fetchval("SELECT count(*) FROM inbox")
            return known == handled and len(await list_parked(self.shipping)) == parked

        async def ship(connection: Any, event: CloudEvent, message: PaymentTaken) -> None:
            if message.order_id.startswith("poison"):
                raise ValueError("no")

        async with running(Consumer("shipping", self.shipping, self.broker, {PaymentTaken: ship}).run()):
            await eventually(done)


@asynccontextmanager
async def running(work: Any) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
