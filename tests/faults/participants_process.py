"""The four services of the shop as small as they can be, in one process over one database, guarded by the real barrier.

Every effect is a row of table `effect`, written in the barrier's transaction: who did what for which run, in order.
Cards and countries say what is refused, as in the shop: `tok_declined`, and no slot to AT.
"""

import asyncio
from typing import Any

from amends_barrier import connection
from amends_barrier.barrier import Barrier
from amends_barrier.transaction import Transaction
from amends_chassis.context import current_call
from amends_chassis.errors import FailedPrecondition, Unavailable
from amends_chassis.service import Runtime, run
from amends_chassis.settings import ServiceSettings

from shop.inventory.v1 import inventory_pb2, inventory_pb2_grpc
from shop.orders.v1 import orders_pb2, orders_pb2_grpc
from shop.payments.v1 import payments_pb2, payments_pb2_grpc
from shop.shipping.v1 import shipping_pb2, shipping_pb2_grpc

from .points import Points

SERVICES = (
    "shop.inventory.v1.InventoryService",
    "shop.payments.v1.PaymentService",
    "shop.shipping.v1.ShippingService",
    "shop.orders.v1.OrderService",
)
EFFECTS = """
CREATE TABLE IF NOT EXISTS effect (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_id text NOT NULL, run_id text NOT NULL, step text NOT NULL, operation text NOT NULL, fence bigint NOT NULL
)
"""
SLOW_SECONDS = 0.15


async def effect(order_id: str) -> str:
    """Has the effect of the call in hand; returns its id."""
    call = current_call()
    assert call is not None
    said = {name: call.value(f"amends-{name}") or "" for name in ("run-id", "step", "operation", "fence")}
    number = await connection().fetchval(
        "INSERT INTO effect (order_id, run_id, step, operation, fence) VALUES ($1, $2, $3, $4, $5) RETURNING id",
        *(order_id, said["run-id"], said["step"], said["operation"], int(said["fence"] or 0)),
    )
    points().reached(f"handler.done:{where()}")
    return f"{said['step']}-{number}"


class Inventory(inventory_pb2_grpc.InventoryServiceServicer):
    async def Reserve(self, request: Any, context: Any) -> Any:
        return inventory_pb2.ReserveResponse(reservation_id=await effect(request.order_id))

    async def Release(self, request: Any, context: Any) -> Any:
        await effect(request.order_id)
        return inventory_pb2.ReleaseResponse()


class Payments(payments_pb2_grpc.PaymentServiceServicer):
    async def Charge(self, request: Any, context: Any) -> Any:
        payment_id = await effect(request.order_id)
        if request.card_token == "tok_slow":
            await asyncio.sleep(SLOW_SECONDS)
        if request.card_token == "tok_broken":
            raise Unavailable("CARD_NETWORK_DOWN", "The card network is down.")
        if request.card_token == "tok_declined":
            raise FailedPrecondition("CARD_DECLINED", "The card was declined.")
        return payments_pb2.ChargeResponse(payment_id=payment_id)

    async def Refund(self, request: Any, context: Any) -> Any:
        return payments_pb2.RefundResponse(refund_id=await effect(request.order_id))


class Shipping(shipping_pb2_grpc.ShippingServiceServicer):
    async def Book(self, request: Any, context: Any) -> Any:
        tracking_id = await effect(request.order_id)
        if request.address.country == "AT":
            raise FailedPrecondition("NO_SLOT", "No carrier has a slot.")
        return shipping_pb2.BookResponse(tracking_id=tracking_id, carrier="postal")


class Orders(orders_pb2_grpc.OrderServiceServicer):
    async def Confirm(self, request: Any, context: Any) -> Any:
        await effect(request.order_id)
        return orders_pb2.ConfirmResponse()


class Settings(ServiceSettings):
    """Nothing of its own."""

    name: str = "participants"


_points: list[Points] = []


def points() -> Points:
    """Return the places at which this process may be stopped."""
    return _points[0]


def where() -> str:
    """Step and operation of the call in hand; empty for other work, such as expiry."""
    call = current_call()
    return f"{call.value('amends-step')}:{call.value('amends-operation')}" if call is not None else ""


def tell_of_the_barrier() -> None:
    """Wrap the barrier's statements, so that they report before they are sent and when they are answered."""
    insert, commit = Transaction.insert, Transaction.commit

    async def inserting(self: Transaction, script: str) -> bool:
        points().reached(f"insert.sent:{where()}")
        inserted = await insert(self, script)
        points().reached(f"insert.answered:{where()}")
        return inserted

    async def committing(self: Transaction, script: str = "COMMIT") -> None:
        points().reached(f"commit.sent:{where()}")
        await commit(self, script)
        points().reached(f"commit.answered:{where()}")

    Transaction.insert = inserting  # type: ignore[method-assign]
    Transaction.commit = committing  # type: ignore[method-assign]


async def assemble(runtime: Runtime) -> None:
    """All four services."""
    await runtime.database.pool.execute(f"{Barrier.schema()}; {EFFECTS}")
    adders: tuple[Any, ...] = (
        inventory_pb2_grpc.add_InventoryServiceServicer_to_server,
        payments_pb2_grpc.add_PaymentServiceServicer_to_server,
        shipping_pb2_grpc.add_ShippingServiceServicer_to_server,
        orders_pb2_grpc.add_OrderServiceServicer_to_server,
    )
    classes: tuple[Any, ...] = (Inventory, Payments, Shipping, Orders)  # what the saga does not call is left out
    for adder, servicer, name in zip(adders, classes, SERVICES, strict=True):
        runtime.add(adder, servicer(), name)


def main() -> None:
    """The whole life of the process."""
    _points.append(Points.of_environment())
    tell_of_the_barrier()
    run(Settings(), assemble)
