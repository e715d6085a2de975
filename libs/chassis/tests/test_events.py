"""A service that publishes and consumes, as its process would, with a real broker."""

import asyncio
import urllib.request

import pytest
from amends_chassis.context import Trace, in_trace
from amends_chassis.service import Runtime, running
from amends_events import INBOX, OUTBOX, ContractError, with_event
from amends_testkit.waiting import eventually
from pydantic import SecretStr

from shop.payments.events.v1.payments_pb2 import PaymentTaken
from shop.payments.v1.payments_pb2 import ChargeRequest

from .echo import settings

TABLES = (
    OUTBOX + INBOX + "CREATE TABLE paid (order_id text PRIMARY KEY, version bigint); CREATE TABLE seen (order_id text)"
)
PAY = with_event("INSERT INTO paid VALUES ($1, 1) RETURNING version", 1)
TRACE = Trace.begin(1.0)


class Shop:
    """Pays, and sees that it was paid."""

    def __init__(self) -> None:
        self.causes: list[str | None] = []

    async def assemble(self, runtime: Runtime) -> None:
        await runtime.database.pool.execute(TABLES)
        self.runtime = runtime
        self.outbox = runtime.publishes("/shop/payments", PaymentTaken)
        runtime.consumes("seeing", {PaymentTaken: self.see})

    async def pay(self, order_id: str) -> None:
        with in_trace(TRACE):
            row = self.outbox.row(PaymentTaken(order_id=order_id))
        await self.runtime.database.pool.execute(PAY, order_id, *row.values)

    async def see(self, connection, event, message: PaymentTaken) -> None:
        self.causes.append(event.headers.get("traceparent"))
        await connection.execute("INSERT INTO seen VALUES ($1)", message.order_id)

    async def seen(self) -> list[str]:
        rows = await self.runtime.database.pool.fetch("SELECT order_id FROM seen ORDER BY order_id")
        return [row["order_id"] for row in rows]


def told(runtime: Runtime) -> str:
    with urllib.request.urlopen(f"http://{runtime.metrics_address}/metrics") as answer:
        return answer.read().decode()


async def test_what_a_service_publishes_is_handled_once_and_counted(database_url, nats):
    shop = Shop()
    configured = settings(database_url=SecretStr(database_url), broker=SecretStr(nats.url))
    async with running(configured, shop.assemble) as runtime:
        for number in range(3):
            await shop.pay(f"o-{number}")
        await eventually(lambda: _equals(shop.seen, ["o-0", "o-1", "o-2"]))
        said = await asyncio.to_thread(told, runtime)
    assert shop.causes == [TRACE.traceparent] * 3
    topic = 'topic="shop.payments.events.v1"'
    assert f"outbox_published_total{{{topic}}} 3.0" in said
    handled = 'consumer="seeing",result="handled",type="shop.payments.events.v1.PaymentTaken"'
    assert f"inbox_handled_total{{{handled}}} 3.0" in said
    assert f'event_end_to_end_seconds_count{{consumer="seeing",{topic}}}' in said


async def test_without_a_broker_events_wait_in_the_database(database_url):
    shop = Shop()
    async with running(settings(database_url=SecretStr(database_url)), shop.assemble) as runtime:
        await shop.pay("o-1")
        assert await runtime.database.pool.fetchval("SELECT count(*) FROM outbox") == 1


async def test_a_service_starts_and_works_while_its_broker_is_away(database_url):
    shop = Shop()
    nowhere = SecretStr("nats://127.0.0.1:9")
    async with running(settings(database_url=SecretStr(database_url), broker=nowhere), shop.assemble) as runtime:
        assert runtime.health.ready
        await shop.pay("o-1")


async def test_a_message_that_is_no_event_stops_the_start(database_url):
    async def assemble(runtime: Runtime) -> None:
        runtime.publishes("/shop/payments", ChargeRequest)

    with pytest.raises(ContractError):
        async with running(settings(database_url=SecretStr(database_url)), assemble):
            pass


async def _equals(look, wanted) -> bool:
    return await look() == wanted
