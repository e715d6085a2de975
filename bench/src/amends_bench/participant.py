"""A participant of the benchmarked saga, as a process: three services whose handlers do nothing.

Without AMENDS_DATABASE_URL it answers with the trailer of the barrier and keeps nothing, so that what is measured is
the orchestrator; with it the real barrier guards the methods. Plain grpc.aio otherwise: nothing that a call made
without Amends would not pay too. Started by `world`.
"""

import asyncio
import os
from typing import Any

import asyncpg
import grpc
import grpc.aio
from amends_barrier import Barrier
from amends_contracts import descriptor_set
from grpc_reflection.v1alpha import reflection

from amends_bench.process import serve_until_told
from shop.inventory.v1 import inventory_pb2
from shop.inventory.v1.inventory_pb2_grpc import InventoryServiceServicer, add_InventoryServiceServicer_to_server
from shop.payments.v1 import payments_pb2
from shop.payments.v1.payments_pb2_grpc import PaymentServiceServicer, add_PaymentServiceServicer_to_server
from shop.shipping.v1 import shipping_pb2
from shop.shipping.v1.shipping_pb2_grpc import ShippingServiceServicer, add_ShippingServiceServicer_to_server

SERVICES = {
    "inventory": "shop.inventory.v1.InventoryService",
    "payments": "shop.payments.v1.PaymentService",
    "shipping": "shop.shipping.v1.ShippingService",
}
TRAILER = (("amends-barrier", "1"),)


class Inventory(InventoryServiceServicer):
    """An inventory that keeps nothing in stock and always agrees."""

    def __init__(self, *, say_guarded: bool) -> None:
        self._say = say_guarded

    async def Reserve(self, request: inventory_pb2.ReserveRequest, context: Any) -> inventory_pb2.ReserveResponse:
        """Answer that the stock is reserved."""
        if self._say:
            context.set_trailing_metadata(TRAILER)
        return inventory_pb2.ReserveResponse(reservation_id=request.order_id)

    async def Release(self, request: inventory_pb2.ReleaseRequest, context: Any) -> inventory_pb2.ReleaseResponse:
        """Answer that the stock is released."""
        if self._say:
            context.set_trailing_metadata(TRAILER)
        return inventory_pb2.ReleaseResponse()


class Payments(PaymentServiceServicer):
    """A payments service that charges nobody and always agrees."""

    def __init__(self, *, say_guarded: bool) -> None:
        self._say = say_guarded

    async def Charge(self, request: payments_pb2.ChargeRequest, context: Any) -> payments_pb2.ChargeResponse:
        """Answer that the card is charged."""
        if self._say:
            context.set_trailing_metadata(TRAILER)
        return payments_pb2.ChargeResponse(payment_id=request.order_id)

    async def Refund(self, request: payments_pb2.RefundRequest, context: Any) -> payments_pb2.RefundResponse:
        """Answer that the money is paid back."""
        if self._say:
            context.set_trailing_metadata(TRAILER)
        return payments_pb2.RefundResponse(refund_id=request.order_id)


class Shipping(ShippingServiceServicer):
    """A shipping service that ships nothing and always agrees."""

    def __init__(self, *, say_guarded: bool) -> None:
        self._say = say_guarded

    async def Book(self, request: shipping_pb2.BookRequest, context: Any) -> shipping_pb2.BookResponse:
        """Answer that the shipment is booked."""
        if self._say:
            context.set_trailing_metadata(TRAILER)
        return shipping_pb2.BookResponse(tracking_id=request.order_id)


async def main() -> None:
    """Serve the service named by AMENDS_BENCH_SERVICE."""
    name = os.environ["AMENDS_BENCH_SERVICE"]
    url = os.environ.get("AMENDS_DATABASE_URL")
    interceptors: list[grpc.aio.ServerInterceptor] = []
    pool = None
    if url is not None:
        pool = await asyncpg.create_pool(url, min_size=4, max_size=4)
        await pool.execute(Barrier.schema())
        barrier = Barrier.from_descriptors(pool, descriptor_set(), [SERVICES[name]])
        interceptors.append(barrier.interceptor())
    server = grpc.aio.server(interceptors=interceptors)
    say = url is None
    if name == "inventory":
        add_InventoryServiceServicer_to_server(Inventory(say_guarded=say), server)  # type: ignore[abstract] # UNIMPLEMENTED
    elif name == "payments":
        add_PaymentServiceServicer_to_server(Payments(say_guarded=say), server)  # type: ignore[abstract] # UNIMPLEMENTED
    else:
        add_ShippingServiceServicer_to_server(Shipping(say_guarded=say), server)  # type: ignore[abstract] # UNIMPLEMENTED
    reflection.enable_server_reflection((SERVICES[name], reflection.SERVICE_NAME), server)
    await serve_until_told(name, server)
    if pool is not None:
        await pool.close()


if __name__ == "__main__":
    asyncio.run(main())
