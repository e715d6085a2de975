"""The inventory service, seen from the orders service: stock of a confirmed order leaves."""

import grpc

from shop.inventory.v1.inventory_pb2 import DispatchRequest
from shop.inventory.v1.inventory_pb2_grpc import InventoryServiceStub


class WarehouseAway(Exception):
    """The stock was not dispatched, or the answer was lost. Dispatching is idempotent: ask again later."""


class Warehouse:
    """The warehouse, which dispatches reserved stock."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._inventory = InventoryServiceStub(channel)

    async def dispatch(self, order_id: str) -> None:
        """Return when what was kept for the order has left. Raises WarehouseAway."""
        try:
            await self._inventory.Dispatch(DispatchRequest(order_id=order_id))
        except grpc.aio.AioRpcError as error:
            raise WarehouseAway(error.code().name) from error
