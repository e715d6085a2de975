"""Starts the customers service: `python -m shop_customers`."""

from functools import partial

from amends_cache import Cache
from amends_chassis.service import Runtime, run

from shop.customers.v1.customers_pb2_grpc import add_CustomerServiceServicer_to_server
from shop_customers.api import CUSTOMERS, CustomerService
from shop_customers.events import CONSUMER, PUBLISHES, handlers
from shop_customers.settings import Settings


async def assemble(settings: Settings, runtime: Runtime) -> None:
    """Put the service's parts together."""
    url = settings.cache_url
    customers = Cache(CUSTOMERS, None if url is None else url.get_secret_value, registry=runtime.registry)
    runtime.background("cache", customers.run)
    outbox = runtime.publishes("/shop/customers", *PUBLISHES)
    servicer = CustomerService(runtime.database, outbox, customers)
    runtime.add(add_CustomerServiceServicer_to_server, servicer, "shop.customers.v1.CustomerService")
    runtime.consumes(CONSUMER, handlers(outbox, customers))


if __name__ == "__main__":
    run(settings := Settings(), partial(assemble, settings))
