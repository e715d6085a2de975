"""Starts the marketing service: `python -m shop_marketing`."""

from functools import partial

from amends_chassis.service import Runtime, run

from shop.marketing.v1.marketing_pb2_grpc import add_MarketingServiceServicer_to_server
from shop_marketing.api import MarketingService
from shop_marketing.campaigns import Campaigns
from shop_marketing.events import CONSUMER, HANDLERS, PUBLISHES
from shop_marketing.settings import Settings


async def assemble(settings: Settings, runtime: Runtime) -> None:
    """Put the service's parts together."""
    outbox = runtime.publishes("/shop/marketing", *PUBLISHES)
    sending = Campaigns(runtime.database, outbox, settings.look_for_campaigns_every)
    servicer = MarketingService(runtime.database, sending)
    runtime.add(add_MarketingServiceServicer_to_server, servicer, "shop.marketing.v1.MarketingService")
    runtime.background("campaigns", sending.run)
    runtime.consumes(CONSUMER, HANDLERS, batch=1)


if __name__ == "__main__":
    run(settings := Settings(), partial(assemble, settings))
