"""The service as its process runs it, over a real Postgres and a real log."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import grpc.aio
import pytest
import pytest_asyncio
from amends_chassis.pages import PageInvalidError
from amends_chassis.service import Runtime, running
from amends_embedded import Nats
from amends_events import open_broker
from amends_testkit.log import RETENTION, PrefixedBroker
from amends_testkit.service import refusal_of, refusals_of
from amends_testkit.waiting import eventually
from pydantic import SecretStr
from shop_reporting import domain
from shop_reporting.api import ERRORS
from shop_reporting.assemble import assemble
from shop_reporting.settings import Settings

from shop.orders.events.v1.orders_pb2 import OrderDispatched
from shop.reporting.v1 import reporting_pb2 as pb
from shop.reporting.v1.reporting_pb2_grpc import ReportingServiceStub
from shop.types.v1.types_pb2 import FULFILMENT_CHOREOGRAPHED, FULFILMENT_ORCHESTRATED

from .world import BEGAN, TOPICS, Told, order, orders

ORDERS = 45
NO_DAY = pb.Period(first_day="30.11.")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def log(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Nats, PrefixedBroker]]:
    """A server whose topics have the names of the contracts."""
    async with await Nats.start(tmp_path_factory.mktemp("reporting")) as server:
        broker = PrefixedBroker(open_broker(server.url), TOPICS)
        await broker.broker.ensure(TOPICS, RETENTION)
        await broker.tell(one for told in orders(ORDERS) for one in told)
        yield server, broker
        await broker.broker.close()


def settings(url: str, nats: Nats, **more: Any) -> Settings:
    nobody = "127.0.0.1:1"
    return Settings(
        database_url=SecretStr(url),
        broker=SecretStr(nats.url),
        orders_target=nobody,
        inventory_target=nobody,
        payments_target=nobody,
        shipping_target=nobody,
        **more,
    )


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service(postgres: Any, log: tuple[Nats, PrefixedBroker]) -> AsyncIterator[tuple[Any, Runtime]]:
    url = await postgres.create("reporting_service", "reporting_service")
    configured = settings(url, log[0])
    async with running(configured, partial(assemble, configured)) as runtime:
        stub: Any = ReportingServiceStub(runtime.channel(runtime.address))

        await eventually(lambda: runtime.health.ready, what="the first projection", timeout=timedelta(seconds=60))
        began = datetime.now(UTC)

        async def fresh() -> bool:
            answer = await stub.ListSales(pb.ListSalesRequest())
            return answer.HasField("as_of") and answer.as_of.ToDatetime(UTC) > began

        await eventually(fresh, what="a fresh projection", timeout=timedelta(seconds=60))
        yield stub, runtime
    await postgres.drop("reporting_service", "reporting_service")


async def pages(call: Any, request: Any, field: str) -> list[Any]:
    found = []
    while True:
        answer = await call(request)
        found += getattr(answer, field)
        assert answer.HasField("as_of")
        request.page_token = answer.next_page_token
        if not answer.next_page_token:
            return found


async def test_a_first_projection_is_built_before_the_service_is_ready(service):
    _, runtime = service
    assert runtime.health.ready
    assert await runtime.database.pool.fetchval("SELECT version FROM projection WHERE state = 'serving'") == 1


async def test_sales_come_by_day_and_currency_in_pages(service):
    stub, _ = service
    whole = await pages(stub.ListSales, pb.ListSalesRequest(), "sales")
    assert await pages(stub.ListSales, pb.ListSalesRequest(page_size=1), "sales") == whole
    assert [(one.day, one.currency) for one in whole] == [("2026-11-28", "CHF"), ("2026-11-28", "EUR")]
    assert sum(one.orders_placed for one in whole) == ORDERS
    [euros] = await pages(stub.ListSales, pb.ListSalesRequest(currency="EUR"), "sales")
    assert euros == whole[1]
    none = pb.ListSalesRequest(period=pb.Period(first_day="2026-11-29"))
    assert await pages(stub.ListSales, none, "sales") == []


async def test_the_funnel_is_by_fulfilment(service):
    stub, _ = service
    answer = await stub.GetFunnel(pb.GetFunnelRequest(period=pb.Period(first_day="2026-11-28", last_day="2026-11-28")))
    found = {one.fulfilment: one for one in answer.funnels}
    assert set(found) == {FULFILMENT_CHOREOGRAPHED, FULFILMENT_ORCHESTRATED}
    assert sum(one.placed for one in answer.funnels) == ORDERS
    assert sum(one.confirmed for one in answer.funnels) == 15
    assert sum(one.rejected for one in answer.funnels) == 20


async def test_what_was_undone_comes_by_reason(service):
    stub, _ = service
    whole = await pages(stub.ListUndone, pb.ListUndoneRequest(), "undone")
    assert await pages(stub.ListUndone, pb.ListUndoneRequest(page_size=1), "undone") == whole
    assert [one.reason for one in whole] == ["", "CARD_DECLINED", "OUT_OF_STOCK", "REFUNDED"]
    assert sum(one.orders for one in whole) == 25
    assert sum(one.payments_taken for one in whole) == sum(one.payments_refunded for one in whole) == 15


async def test_open_orders_come_oldest_first_and_stuck_ones_alone(service):
    stub, _ = service
    whole = await pages(stub.ListOpenOrders, pb.ListOpenOrdersRequest(), "orders")
    assert await pages(stub.ListOpenOrders, pb.ListOpenOrdersRequest(page_size=2), "orders") == whole
    assert [one.order_id for one in whole] == [f"o-{number:06d}" for number in range(ORDERS) if number % 9 in (6, 8)]
    assert all(one.open for one in whole)
    late = datetime.now(UTC) > BEGAN + timedelta(hours=1)
    assert len(await pages(stub.ListOpenOrders, pb.ListOpenOrdersRequest(stuck=True), "orders")) == late * len(whole)


async def test_an_order_shows_everything_that_has_happened_to_it(service):
    stub, _ = service
    answer = await stub.GetOrderProcess(pb.GetOrderProcessRequest(order_id="o-000004"))
    told = order(4)
    assert [one.event for one in answer.order.happenings] == [one.kind for one in told]
    assert [one.at.ToDatetime(UTC) for one in answer.order.happenings] == [one.at for one in told]
    assert (answer.order.code, answer.order.reason) == ("CARD_DECLINED", "it is so")
    assert not answer.order.open
    assert answer.order.total.minor == 1004


async def test_how_old_the_report_is_and_what_was_jumped_over_are_metrics(service, log):
    """The third version of an order is missing, and nobody exports it here: the gap stays."""
    _, runtime = service
    at = order(2)[-1].at + timedelta(hours=1)
    await log[1].tell([Told(OrderDispatched(order_id="o-000002"), 4, at)])
    value = partial(runtime.registry.get_sample_value, "projection_version_gaps_total")
    await eventually(lambda: value() == 1, what="a gap")
    [gap] = await runtime.database.pool.fetch("SELECT order_id, source FROM r1.version_gap")
    assert tuple(gap) == ("o-000002", "orders")
    age = partial(runtime.registry.get_sample_value, "projection_as_of_seconds", {"projection": "1"})
    await eventually(lambda: (age() or 60) < 10, what="a young report", timeout=timedelta(seconds=60))


@pytest.mark.parametrize(
    ("method", "request_", "refusal"),
    [
        ("GetOrderProcess", pb.GetOrderProcessRequest(order_id="nobody"), ("NOT_FOUND", "ORDER_UNKNOWN")),
        ("GetOrderProcess", pb.GetOrderProcessRequest(), ("INVALID_ARGUMENT", "IDENTIFIER_INVALID")),
        ("ListSales", pb.ListSalesRequest(page_size=501), ("INVALID_ARGUMENT", "PAGE_INVALID")),
        ("ListSales", pb.ListSalesRequest(page_token="?"), ("INVALID_ARGUMENT", "PAGE_INVALID")),
        ("ListUndone", pb.ListUndoneRequest(page_token="WzEsMl0="), ("INVALID_ARGUMENT", "PAGE_INVALID")),
        ("ListOpenOrders", pb.ListOpenOrdersRequest(page_token="WyJhIiwiYiJd"), ("INVALID_ARGUMENT", "PAGE_INVALID")),
        ("GetFunnel", pb.GetFunnelRequest(period=NO_DAY), ("INVALID_ARGUMENT", "PERIOD_INVALID")),
    ],
)
async def test_what_makes_no_sense_is_refused(service, method, request_, refusal):
    stub, _ = service
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await getattr(stub, method)(request_)
    assert refusal_of(caught.value) == refusal


def test_every_refusal_has_a_status():
    assert refusals_of(domain) | {PageInvalidError} == set(ERRORS)
