"""shop.reporting.v1.ReportingService: parses requests, reads one moment, answers with as of when that is.

Assembled by `assemble.py`.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from amends_chassis.database import Database
from amends_chassis.domain import IdentifierInvalidError, RefusedError, identifier
from amends_chassis.errors import DomainError, InvalidArgument, NotFound, answers
from amends_chassis.pages import PageInvalidError, page_size
from amends_chassis.projections.freshness import Freshness
from amends_chassis.timestamps import timestamp
from amends_chassis.types import Context
from google.protobuf.timestamp_pb2 import Timestamp

from shop.reporting.v1 import reporting_pb2 as pb
from shop.reporting.v1 import reporting_pb2_grpc
from shop.types.v1 import types_pb2
from shop_reporting import domain, store
from shop_reporting.facts import CHOREOGRAPHED, EVENTS
from shop_reporting.projection import NAME

if TYPE_CHECKING:
    from amends_chassis.database import Connection

ERRORS: Mapping[type[RefusedError], type[DomainError]] = {
    IdentifierInvalidError: InvalidArgument,
    domain.PeriodInvalid: InvalidArgument,
    PageInvalidError: InvalidArgument,
    domain.OrderUnknown: NotFound,
}


class ReportingService(reporting_pb2_grpc.ReportingServiceServicer):
    """Answers questions about many orders."""

    def __init__(self, database: Database, fresh: Freshness, stuck_after: timedelta) -> None:
        self._database = database
        self._fresh = fresh
        self._stuck_after = stuck_after

    async def ListSales(self, request: pb.ListSalesRequest, context: Context) -> pb.ListSalesResponse:
        """Read a page of sales, newest day first."""
        with answers(ERRORS):
            days, size = _period(request.period), _page_size(request.page_size)
            after = domain.day_of(request.page_token)
            async with self._moment() as (transaction, as_of):
                rows = await store.sales(transaction, days, request.currency, after, size + 1)
        return pb.ListSalesResponse(
            sales=[
                pb.Sales(
                    day=row["day"].isoformat(),
                    currency=row["currency"],
                    orders_placed=row["placed"],
                    placed_minor=row["placed_minor"],
                    payments_taken=row["taken"],
                    taken_minor=row["taken_minor"],
                    payments_refunded=row["refunded"],
                    refunded_minor=row["refunded_minor"],
                )
                for row in rows[:size]
            ],
            next_page_token=_day_after(rows, size, "currency"),
            as_of=as_of,
        )

    async def GetFunnel(self, request: pb.GetFunnelRequest, context: Context) -> pb.GetFunnelResponse:
        """Count how far the orders of a period came."""
        with answers(ERRORS):
            days = _period(request.period)
            async with self._moment() as (transaction, as_of):
                rows = await store.funnel(transaction, days)
        funnels = [pb.Funnel(fulfilment=_fulfilment(row["fulfilment"]), **_without(row, "fulfilment")) for row in rows]
        return pb.GetFunnelResponse(funnels=funnels, as_of=as_of)

    async def ListUndone(self, request: pb.ListUndoneRequest, context: Context) -> pb.ListUndoneResponse:
        """Read a page of what was undone and why, newest day first."""
        with answers(ERRORS):
            days, size = _period(request.period), _page_size(request.page_size)
            after = domain.day_of(request.page_token)
            async with self._moment() as (transaction, as_of):
                rows = await store.undone(transaction, days, after, size + 1)
        return pb.ListUndoneResponse(
            undone=[
                pb.Undone(
                    day=row["day"].isoformat(),
                    reason=row["code"],
                    orders=row["orders"],
                    stock_reserved=row["reserved"],
                    stock_released=row["released"],
                    payments_taken=row["taken"],
                    payments_refunded=row["payment_refunded"],
                    parcels_booked=row["booked"],
                    parcels_cancelled=row["cancelled"],
                )
                for row in rows[:size]
            ],
            next_page_token=_day_after(rows, size, "code"),
            as_of=as_of,
        )

    async def ListOpenOrders(self, request: pb.ListOpenOrdersRequest, context: Context) -> pb.ListOpenOrdersResponse:
        """Read a page of the orders in which something is still to come, the oldest first."""
        with answers(ERRORS):
            size, after = (
                _page_size(request.page_size),
                domain.order_of(request.page_token),
            )
            async with self._moment() as (transaction, as_of):
                rows = await store.open_orders(transaction, self._stuck_after, request.stuck, after, size + 1)
        last = rows[size - 1] if len(rows) > size else None
        return pb.ListOpenOrdersResponse(
            orders=[_process(row) for row in rows[:size]],
            next_page_token="" if last is None else domain.token_of_order(last["open_since"], last["order_id"]),
            as_of=as_of,
        )

    async def GetOrderProcess(self, request: pb.GetOrderProcessRequest, context: Context) -> pb.GetOrderProcessResponse:
        """Read where one order stands."""
        with answers(ERRORS):
            order_id = identifier(request.order_id, "order_id")
            async with self._moment() as (transaction, as_of):
                row = await store.order(transaction, order_id, self._stuck_after)
        return pb.GetOrderProcessResponse(order=_process(row), as_of=as_of)

    def _moment(self) -> AbstractAsyncContextManager[tuple["Connection", Timestamp | None]]:
        return self._fresh.moment(self._database, NAME, "projection")


def _page_size(asked: int) -> int:
    return page_size(asked, default=domain.DEFAULT_PAGE, largest=domain.MAX_PAGE)


def _period(asked: pb.Period) -> domain.Period:
    return domain.period(asked.first_day, asked.last_day)


def _day_after(rows: Sequence[Any], size: int, name: str) -> str:
    return domain.token_of_day(rows[size - 1]["day"], rows[size - 1][name]) if len(rows) > size else ""


def _process(row: Any) -> pb.OrderProcess:
    happened = sorted((row[kind.column], kind) for kind in EVENTS if row[kind.column] is not None)
    placed = row["placed_at"] is not None
    return pb.OrderProcess(
        order_id=row["order_id"],
        fulfilment=_fulfilment(row["fulfilment"]) if placed else types_pb2.FULFILMENT_UNSPECIFIED,
        total=types_pb2.Money(currency=row["currency"], minor=row["total_minor"]) if placed else None,
        placed_at=timestamp(row["placed_at"]) if placed else None,
        happenings=[pb.Happening(event=EVENTS[kind], at=timestamp(at)) for at, kind in happened],
        reason=row["reason"] or "",
        code=row["code"] or "",
        open=row["open_since"] is not None,
        stuck=row["stuck"],
    )


def _fulfilment(name: str) -> types_pb2.Fulfilment.ValueType:
    choreographed = name == CHOREOGRAPHED
    return types_pb2.FULFILMENT_CHOREOGRAPHED if choreographed else types_pb2.FULFILMENT_ORCHESTRATED


def _without(row: Any, name: str) -> dict[str, Any]:
    return {column: value for column, value in row.items() if column != name}
