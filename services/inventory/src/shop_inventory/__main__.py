"""Starts the inventory service: `python -m shop_inventory`."""

from amends_chassis.service import Runtime, run

from shop.inventory.v1.inventory_pb2_grpc import add_InventoryServiceServicer_to_server
from shop_inventory.api import InventoryService
from shop_inventory.choreography import StockReactions
from shop_inventory.events import PUBLISHES
from shop_inventory.export import EXPORTED
from shop_inventory.settings import Settings


async def assemble(runtime: Runtime) -> None:
    """Put the service's parts together."""
    outbox = runtime.publishes("/shop/inventory", *PUBLISHES)
    servicer = InventoryService(runtime.database, outbox)
    runtime.add(add_InventoryServiceServicer_to_server, servicer, "shop.inventory.v1.InventoryService")
    runtime.exports(*EXPORTED)
    runtime.consumes("inventory", StockReactions(outbox).handlers, batch=1)


if __name__ == "__main__":
    run(Settings(), assemble)
