"""Puts the orders service together. Called by `__main__`."""

from amends_chassis.service import Runtime

from shop.orders.v1.orders_pb2_grpc import add_OrderServiceServicer_to_server
from shop_orders.api import OrderService
from shop_orders.arrangements import arrangements
from shop_orders.catalogue import HANDLERS, Catalogue
from shop_orders.choreography import OrderReactions
from shop_orders.events import PUBLISHES
from shop_orders.export import EXPORTED
from shop_orders.followup import FollowUp
from shop_orders.order_process import OrderProcess
from shop_orders.saga import PlaceOrderSaga
from shop_orders.settings import Settings
from shop_orders.warehouse import Warehouse


async def assemble(settings: Settings, runtime: Runtime) -> None:
    """Put the service's parts together."""
    saga = PlaceOrderSaga(runtime.channel(settings.orchestrator_target), settings.saga_namespace)
    outbox = runtime.publishes("/shop/orders", *PUBLISHES)
    warehouse = Warehouse(runtime.channel(settings.inventory_target))
    orders = OrderProcess(runtime.database, outbox, saga, warehouse, arrangements(settings, runtime))
    catalog = settings.catalog_target
    catalogue = None if catalog is None else Catalogue(runtime.channel(catalog))
    api = OrderService(settings, runtime.database, outbox, orders, catalogue)
    runtime.add(add_OrderServiceServicer_to_server, api, "shop.orders.v1.OrderService")
    runtime.exports(*EXPORTED)
    runtime.background("follow-up", FollowUp(runtime.database, orders, settings).run)
    runtime.consumes("orders", OrderReactions(outbox).handlers, batch=1)
    runtime.consumes("orders.articles", HANDLERS)
