"""Starts the customers service: `python -m shop_customers`."""

from amends_chassis.service import Runtime, run

from shop.customers.v1.customers_pb2_grpc import add_CustomerServiceServicer_to_server
from shop_customers.api import CustomerService
from shop_customers.events import CONSUMER, PUBLISHES, handlers
from shop_customers.settings import Settings


async def assemble(runtime: Runtime) -> None:
    """Put the service's parts together."""
    outbox = runtime.publishes("/shop/customers", *PUBLISHES)
    servicer = CustomerService(runtime.database, outbox)
    runtime.add(add_CustomerServiceServicer_to_server, servicer, "shop.customers.v1.CustomerService")
    runtime.consumes(CONSUMER, handlers(outbox))


if __name__ == "__main__":
    run(Settings(), assemble)
