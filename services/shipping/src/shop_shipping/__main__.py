"""Starts the shipping service: `python -m shop_shipping`."""

from functools import partial

from amends_chassis.service import Runtime, run

from shop.shipping.v1.shipping_pb2_grpc import add_ShippingServiceServicer_to_server
from shop_shipping.api import ShippingService
from shop_shipping.choreography import ParcelReactions, forget_announced_parcels
from shop_shipping.events import PUBLISHES
from shop_shipping.export import EXPORTED
from shop_shipping.settings import Settings


async def assemble(settings: Settings, runtime: Runtime) -> None:
    """Put the service's parts together."""
    outbox = runtime.publishes("/shop/shipping", *PUBLISHES)
    servicer = ShippingService(runtime.database, outbox, settings.handling_time)
    runtime.add(add_ShippingServiceServicer_to_server, servicer, "shop.shipping.v1.ShippingService")
    runtime.exports(*EXPORTED)
    runtime.background("parcels.forget", partial(forget_announced_parcels, runtime.database))
    runtime.consumes("shipping", ParcelReactions(outbox).handlers, batch=1)


if __name__ == "__main__":
    run(settings := Settings(), partial(assemble, settings))
