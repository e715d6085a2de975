"""The shop as its customers and its staff use it: over gRPC, nothing else. Called by the stories and by `up`."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import grpc
import grpc.aio
from amends_chassis.certificates import Certificates
from amends_chassis.dial import dial

from amends.saga.v1 import run_pb2, run_service_pb2
from amends.saga.v1.definition_service_pb2_grpc import DefinitionServiceStub
from amends.saga.v1.run_service_pb2_grpc import RunServiceStub
from amends_demo.stack import SERVICES, Stack
from shop.catalog.v1 import catalog_pb2
from shop.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from shop.inventory.v1 import inventory_pb2
from shop.inventory.v1.inventory_pb2_grpc import InventoryServiceStub
from shop.orders.v1 import orders_pb2
from shop.orders.v1.orders_pb2_grpc import OrderServiceStub
from shop.payments.v1 import payments_pb2
from shop.payments.v1.payments_pb2_grpc import PaymentServiceStub
from shop.shipping.v1 import shipping_pb2
from shop.shipping.v1.shipping_pb2_grpc import ShippingServiceStub
from shop.types.v1 import types_pb2

if TYPE_CHECKING:
    from amends.saga.v1.definition_service_pb2_grpc import DefinitionServiceAsyncStub
    from amends.saga.v1.run_service_pb2_grpc import RunServiceAsyncStub
    from shop.catalog.v1.catalog_pb2_grpc import CatalogServiceAsyncStub
    from shop.inventory.v1.inventory_pb2_grpc import InventoryServiceAsyncStub
    from shop.orders.v1.orders_pb2_grpc import OrderServiceAsyncStub
    from shop.payments.v1.payments_pb2_grpc import PaymentServiceAsyncStub
    from shop.shipping.v1.shipping_pb2_grpc import ShippingServiceAsyncStub

NAMESPACE = "shop"
PRICES = {"tea-assam": 1290, "coffee-yirgacheffe": 1450, "mug-blue": 900}
ARTICLES = {
    "tea-assam": ("tea", "Assam", "Malty and strong. Three minutes, with milk if you like."),
    "coffee-yirgacheffe": ("coffee", "Yirgacheffe", "Bright, with bergamot. Roasted light."),
    "mug-blue": ("mugs", "Blue mug", "Holds a third of a litre."),
}
"""Category, name and description."""
CURRENCY = "EUR"
STOCK = 2_000
SLOTS = {"DE": 2_000, "FR": 2_000, "AT": 0}
"""Parcels that the carrier takes to each country. Austria is full."""
FULL = "AT"
CALL = timedelta(seconds=20).total_seconds()


@dataclass(slots=True)
class Shop:
    """The gRPC stubs of the orchestrator and of all services of the shop."""

    orders: "OrderServiceAsyncStub"
    inventory: "InventoryServiceAsyncStub"
    payments: "PaymentServiceAsyncStub"
    shipping: "ShippingServiceAsyncStub"
    runs: "RunServiceAsyncStub"
    definitions: "DefinitionServiceAsyncStub"

    async def stock_up(self) -> None:
        """Set prices, receive stock and agree on slots. The same again changes nothing."""
        for sku, minor in PRICES.items():
            price = types_pb2.Money(currency=CURRENCY, minor=minor)
            await self.orders.SetPrice(orders_pb2.SetPriceRequest(sku=sku, price=price), timeout=CALL)
        lines = [types_pb2.Line(sku=sku, quantity=STOCK) for sku in PRICES]
        delivery = inventory_pb2.ReceiveRequest(delivery_id="opening-stock", lines=lines)
        await self.inventory.Receive(delivery, timeout=CALL)
        for country, available in SLOTS.items():
            slots = shipping_pb2.SetSlotsRequest(carrier="postal", country=country, available=available)
            await self.shipping.SetSlots(slots, timeout=CALL)

    async def place(
        self,
        order_id: str,
        card: str = "tok_visa",
        *,
        country: str = "DE",
        quantity: int = 1,
        wait: bool = True,
        fulfilment: types_pb2.Fulfilment.ValueType = types_pb2.FULFILMENT_UNSPECIFIED,
    ) -> orders_pb2.Order:
        """Place an order for a tea and a mug; with `wait` it is answered when the order has ended."""
        request = order(order_id, card, country=country, quantity=quantity)
        request.wait, request.fulfilment = wait, fulfilment
        return (await self.orders.PlaceOrder(request, timeout=CALL)).order

    async def order(self, order_id: str) -> orders_pb2.Order:
        """Read an order from the orders service."""
        return (await self.orders.GetOrder(orders_pb2.GetOrderRequest(order_id=order_id), timeout=CALL)).order

    async def run(self, order_id: str) -> run_pb2.Run:
        """Read the run of an order's saga."""
        request = run_service_pb2.GetRunRequest(namespace=NAMESPACE, idempotency_key=order_id)
        return (await self.runs.GetRun(request, timeout=CALL)).run

    async def payment(self, order_id: str) -> payments_pb2.GetPaymentResponse | None:
        """Read the payment of an order; None when there is none."""
        try:
            return await self.payments.GetPayment(payments_pb2.GetPaymentRequest(order_id=order_id), timeout=CALL)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return None
            raise

    async def available(self, sku: str) -> int:
        """Return how much of an article can be sold."""
        request = inventory_pb2.GetStockRequest(sku=sku)
        return int((await self.inventory.GetStock(request, timeout=CALL)).available)


async def describe_articles(address: str, certificates: Certificates | None = None) -> None:
    """Tell the catalog service at an address what the articles are. The same again changes nothing."""
    async with dial(address, certificates=certificates) as channel:
        catalog: CatalogServiceAsyncStub = CatalogServiceStub(channel)
        for sku, (category, name, description) in ARTICLES.items():
            article = catalog_pb2.PutArticleRequest(sku=sku, name=name, description=description, category=category)
            await catalog.PutArticle(article, timeout=CALL)


def order(order_id: str, card: str, *, country: str, quantity: int) -> orders_pb2.PlaceOrderRequest:
    """Return an order as a customer sends it."""
    return orders_pb2.PlaceOrderRequest(
        order_id=order_id,
        customer_id="ada",
        lines=[types_pb2.Line(sku="tea-assam", quantity=quantity), types_pb2.Line(sku="mug-blue", quantity=1)],
        card_token=card,
        address=types_pb2.Address(
            recipient="Ada Lovelace",
            street="Rosenweg 3",
            city="Wien" if country == "AT" else "Berlin",
            postal_code="1010" if country == "AT" else "10115",
            country=country,
        ),
    )


@asynccontextmanager
async def reaching(
    addresses: Mapping[str, str], orchestrator: str, certificates: Certificates | None = None
) -> AsyncIterator[Shop]:
    """Yield channels to the services at these addresses, by name; to the orchestrator at a gRPC target.

    They are mutual TLS with `certificates`, plain text without.
    """
    async with (
        dial(addresses["orders"], certificates=certificates) as orders,
        dial(addresses["inventory"], certificates=certificates) as inventory,
        dial(addresses["payments"], certificates=certificates) as payments,
        dial(addresses["shipping"], certificates=certificates) as shipping,
        dial(orchestrator, certificates=certificates) as runs,
    ):
        yield Shop(
            OrderServiceStub(orders),
            InventoryServiceStub(inventory),
            PaymentServiceStub(payments),
            ShippingServiceStub(shipping),
            RunServiceStub(runs),
            DefinitionServiceStub(runs),
        )


@asynccontextmanager
async def visiting(stack: Stack) -> AsyncIterator[Shop]:
    """Yield channels to a running shop of this machine."""
    names = {name: stack.address(name) for name in SERVICES}
    async with reaching(names, stack.orchestrator, stack.certificates) as shop:
        yield shop
