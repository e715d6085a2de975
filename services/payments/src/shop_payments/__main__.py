"""Starts the payments service: `python -m shop_payments`."""

from functools import partial

from amends_chassis.service import Runtime, run

from shop.payments.v1.payments_pb2_grpc import add_PaymentServiceServicer_to_server
from shop_payments.api import PaymentService
from shop_payments.choreography import ChargeReactions, ChargeWorker
from shop_payments.events import PUBLISHES
from shop_payments.export import EXPORTED
from shop_payments.network import DurableMemory, Network
from shop_payments.settings import Settings


async def assemble(settings: Settings, runtime: Runtime) -> None:
    """Put the service's parts together."""
    network = Network(DurableMemory(runtime.database), settings.slow_answer)
    outbox = runtime.publishes("/shop/payments", *PUBLISHES)
    servicer = PaymentService(runtime.database, outbox, network)
    runtime.add(add_PaymentServiceServicer_to_server, servicer, "shop.payments.v1.PaymentService")
    runtime.exports(*EXPORTED)
    worker = ChargeWorker(runtime.database, outbox, network, settings.charge_every)
    runtime.background("charges", worker.run)
    runtime.background("charges.forget", worker.forget)
    runtime.consumes("payments", ChargeReactions(outbox, worker).handlers, batch=1)


if __name__ == "__main__":
    run(settings := Settings(), partial(assemble, settings))
