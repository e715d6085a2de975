"""shop.inventory.v1.InventoryService: parses requests, opens transactions, answers.

Assembled by `__main__.py`. Reserve and Release are guarded: the barrier has opened their transaction and commits it.
"""

from collections.abc import Iterable, Mapping

from amends_barrier import connection
from amends_chassis.database import Database
from amends_chassis.domain import IdentifierInvalidError, RefusedError, identifier
from amends_chassis.errors import AlreadyExists, DomainError, FailedPrecondition, InvalidArgument, NotFound, answers
from amends_chassis.types import Context
from amends_events import Outbox

from shop.inventory.v1 import inventory_pb2 as pb
from shop.inventory.v1 import inventory_pb2_grpc
from shop.types.v1 import types_pb2
from shop_inventory import domain, store
from shop_inventory.domain import Line

ERRORS: Mapping[type[RefusedError], type[DomainError]] = {
    IdentifierInvalidError: InvalidArgument,
    domain.LinesInvalid: InvalidArgument,
    domain.SkuUnknown: NotFound,
    domain.OutOfStock: FailedPrecondition,
    domain.AlreadyReserved: AlreadyExists,
    domain.NotReserved: FailedPrecondition,
    domain.DeliveryReused: AlreadyExists,
}


class InventoryService(inventory_pb2_grpc.InventoryServiceServicer):
    """The gRPC service that keeps stock."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    async def Reserve(self, request: pb.ReserveRequest, context: Context) -> pb.ReserveResponse:
        """Keep stock for an order, all lines or none."""
        with answers(ERRORS):
            order_id = identifier(request.order_id, "order_id")
            lines = _lines(request.lines)
            reservation_id = await store.reserve(connection(), self._outbox, order_id, lines)
            return pb.ReserveResponse(reservation_id=reservation_id)

    async def Release(self, request: pb.ReleaseRequest, context: Context) -> pb.ReleaseResponse:
        """Give back what was kept for an order."""
        with answers(ERRORS):
            await store.release(connection(), self._outbox, identifier(request.order_id, "order_id"))
            return pb.ReleaseResponse()

    async def Dispatch(self, request: pb.DispatchRequest, context: Context) -> pb.DispatchResponse:
        """Sell what was kept for an order."""
        with answers(ERRORS):
            order_id = identifier(request.order_id, "order_id")
            async with self._database.transaction() as transaction:
                await store.dispatch(transaction, self._outbox, order_id)
            return pb.DispatchResponse()

    async def Receive(self, request: pb.ReceiveRequest, context: Context) -> pb.ReceiveResponse:
        """Add a delivery, once."""
        with answers(ERRORS):
            delivery_id, lines = identifier(request.delivery_id, "delivery_id"), _lines(request.lines)
            async with self._database.transaction() as transaction:
                await store.receive(transaction, self._outbox, delivery_id, lines)
            return pb.ReceiveResponse()

    async def GetStock(self, request: pb.GetStockRequest, context: Context) -> pb.GetStockResponse:
        """Read the stock of one article."""
        with answers(ERRORS):
            sku = identifier(request.sku, "sku")
            async with self._database.transaction() as transaction:
                stock = await store.stock_of(transaction, sku)
            return pb.GetStockResponse(
                sku=stock.sku, available=stock.available, reserved=stock.reserved, sold=stock.sold
            )


def _lines(lines: Iterable[types_pb2.Line]) -> tuple[Line, ...]:
    return domain.lines(Line(line.sku, line.quantity) for line in lines)
