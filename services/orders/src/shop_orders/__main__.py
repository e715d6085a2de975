"""Starts the orders service: `python -m shop_orders`."""

from functools import partial

from amends_chassis.service import Runtime, run

from shop.orders.v1.orders_pb2_grpc import add_OrderServiceServicer_to_server
from shop_orders.api import OrderService
from shop_orders.arrangements import Arrangements
from shop_orders.choreography import Choreography
from shop_orders.events import PUBLISHES
from shop_orders.followup import FollowUp
from shop_orders.order_process import Choreographed, OrderProcess
from shop_orders.saga import PlaceOrderSaga
from shop_orders.settings import Settings
from shop_orders.warehouse import Warehouse


async def assemble(settings: Settings, runtime: Runtime) -> None:
    """Put the service's parts together."""
    saga = PlaceOrderSaga(runtime.channel(settings.orchestrator_target), settings.saga_namespace)
    outbox = runtime.publishes("/shop/orders", *PUBLISHES)
    warehouse = Warehouse(runtime.channel(settings.inventory_target))
    orders = OrderProcess(runtime.database, outbox, saga, warehouse, _choreographed(settings, runtime))
    api = OrderService(runtime.database, outbox, orders, settings.fulfilment)
    runtime.add(add_OrderServiceServicer_to_server, api, "shop.orders.v1.OrderService")
    runtime.background("follow-up", FollowUp(runtime.database, orders, settings).run)
    runtime.consumes("orders", Choreography(outbox).handlers, batch=1)


def _choreographed(settings: Settings, runtime: Runtime) -> Choreographed | None:
    """Return what choreographed orders take; None where there is no broker, or the neighbours are not said."""
    payments, shipping, deadline = settings.payments_target, settings.shipping_target, settings.choreography_deadline
    if settings.broker is None or payments is None or shipping is None:
        return None
    arrangements = Arrangements(runtime.channel(payments), runtime.channel(shipping), deadline)
    return Choreographed(arrangements, deadline)


if __name__ == "__main__":
    run(settings := Settings(), partial(assemble, settings))
