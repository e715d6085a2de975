"""The four services of the shop as they are, over a real Postgres and a real broker."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

import asyncpg
from amends_chassis.database import Database
from amends_chassis.service import Runtime, running
from amends_demo import books, laws
from amends_events import open_broker
from amends_events.parked import ParkedEvent, ParkedFilter, list_parked
from amends_testkit.service import migrated
from amends_testkit.waiting import eventually
from pydantic import SecretStr
from shop_inventory.__main__ import assemble as assemble_inventory
from shop_inventory.settings import Settings as InventorySettings
from shop_orders.assemble import assemble as assemble_orders
from shop_orders.domain import Fulfilment
from shop_orders.settings import Settings as OrdersSettings
from shop_payments.__main__ import assemble as assemble_payments
from shop_payments.settings import Settings as PaymentsSettings
from shop_shipping.__main__ import assemble as assemble_shipping
from shop_shipping.settings import Settings as ShippingSettings

from shop.inventory.v1.inventory_pb2 import ReceiveRequest
from shop.inventory.v1.inventory_pb2_grpc import InventoryServiceStub
from shop.orders.v1 import orders_pb2
from shop.orders.v1.orders_pb2_grpc import OrderServiceStub
from shop.payments.v1.payments_pb2_grpc import PaymentServiceStub
from shop.shipping.v1.shipping_pb2 import SetSlotsRequest
from shop.shipping.v1.shipping_pb2_grpc import ShippingServiceStub
from shop.types.v1 import types_pb2

CALL = 20
OF_REPORTING = {"the report and the ledger differ", "the report does not add up"}
HASTE = timedelta(milliseconds=50)
STUBS: dict[str, Any] = {
    "orders": OrderServiceStub,
    "inventory": InventoryServiceStub,
    "payments": PaymentServiceStub,
    "shipping": ShippingServiceStub,
}
STOCK = 1000
PRICES = {"mug": 900, "ghost": 100}
"""A ghost has a price and was never received."""
SLOTS = {"DE": 1000, "AT": 0}
"""Austria is full, and nobody goes to Italy."""
POSTAL_CODES = {"DE": "10115", "AT": "1010", "IT": "00100"}


def wish(order_id: str, *, card: str = "tok_visa", sku: str = "mug", quantity: int = 1, country: str = "DE") -> Any:
    """An order as a customer sends it, for orders that say nothing else of one mug to Berlin."""
    return orders_pb2.PlaceOrderRequest(
        order_id=order_id,
        customer_id="ada",
        lines=[types_pb2.Line(sku=sku, quantity=quantity)],
        card_token=card,
        address=types_pb2.Address(
            recipient="Ada",
            street="Rosenweg 3",
            city="Berlin",
            postal_code=POSTAL_CODES.get(country, "?"),
            country=country,
        ),
    )


@dataclass
class Market:
    """A running shop."""

    broker: str
    databases: dict[str, str]
    """URLs by the names of `amends_demo.books`."""
    orchestrator: str
    addresses: dict[str, str] = field(default_factory=dict)
    stubs: dict[str, Any] = field(default_factory=dict)
    default: Fulfilment = Fulfilment.ORCHESTRATED
    _stacks: dict[str, AsyncExitStack] = field(default_factory=dict)

    async def start(self, name: str) -> None:
        """Start a service, or start it again where it was."""
        stack = AsyncExitStack()
        settings, assemble = self._service(name)
        runtime = await stack.enter_async_context(running(settings, assemble))
        self._stacks[name] = stack
        self.addresses[name] = runtime.address
        self.stubs[name] = STUBS[name](runtime.channel(runtime.address))

    def _service(self, name: str) -> tuple[Any, Callable[[Runtime], Awaitable[None]]]:
        common: dict[str, Any] = {
            "database_url": SecretStr(self.databases[name]),
            "broker": SecretStr(self.broker),
            "port": int(self.addresses.get(name, ":0").rpartition(":")[2]),
            "drain": timedelta(seconds=1),
        }
        match name:
            case "inventory":
                return InventorySettings(**common), assemble_inventory
            case "payments":
                settings = PaymentsSettings(**common, slow_answer=timedelta(milliseconds=300), charge_every=HASTE)
                return settings, partial(assemble_payments, settings)
            case "shipping":
                shipping = ShippingSettings(**common)
                return shipping, partial(assemble_shipping, shipping)
        orders = OrdersSettings(
            **common,
            orchestrator_target=self.orchestrator,
            inventory_target=self.addresses["inventory"],
            payments_target=self.addresses["payments"],
            shipping_target=self.addresses["shipping"],
            fulfilment=self.default,
            follow_up_every=HASTE,
            follow_up_at_most=HASTE,
            follow_up_waiting_at_most=HASTE,
        )
        return orders, partial(assemble_orders, orders)

    async def stop(self, name: str) -> None:
        """Stop a service; its database stays."""
        await self._stacks.pop(name).aclose()

    async def stop_all(self) -> None:
        for name in reversed(list(self._stacks)):
            await self.stop(name)

    async def stock_up(self) -> None:
        for sku, minor in PRICES.items():
            price = types_pb2.Money(currency="EUR", minor=minor)
            await self.stubs["orders"].SetPrice(orders_pb2.SetPriceRequest(sku=sku, price=price))
        lines = [types_pb2.Line(sku="mug", quantity=STOCK)]
        await self.stubs["inventory"].Receive(ReceiveRequest(delivery_id="opening-stock", lines=lines))
        for country, available in SLOTS.items():
            slots = SetSlotsRequest(carrier="postal", country=country, available=available)
            await self.stubs["shipping"].SetSlots(slots)

    async def place(self, request: Any, fulfilment: Any, *, wait: bool = True) -> orders_pb2.Order:
        """Place an order; with `wait` it is answered when it has ended."""
        request.wait, request.fulfilment = wait, fulfilment
        placed: orders_pb2.PlaceOrderResponse = await self.stubs["orders"].PlaceOrder(request, timeout=CALL)
        return placed.order

    async def order(self, order_id: str) -> orders_pb2.Order:
        request = orders_pb2.GetOrderRequest(order_id=order_id)
        found: orders_pb2.GetOrderResponse = await self.stubs["orders"].GetOrder(request, timeout=CALL)
        return found.order

    async def ended(self, order_id: str) -> orders_pb2.Order:
        """An order that is not pending any more, as soon as that is so."""

        async def look() -> orders_pb2.Order | None:
            order = await self.order(order_id)
            return None if order.state == orders_pb2.ORDER_STATE_PENDING else order

        found = await eventually(look, what=f"order {order_id} ends")
        assert found is not None
        return found

    async def effects(self, order_id: str) -> "Effects":
        """What the books say was done for an order."""
        return effects_in(await books.read(self.databases), order_id)

    async def come_to(self, order_id: str, *wanted: "Effects") -> None:
        """Return when what was done for an order is one of `wanted`."""

        async def look() -> bool:
            found = await self.effects(order_id)
            assert found in wanted, found
            return True

        await eventually(look, what=f"the effects of order {order_id}")

    async def broken_laws(self) -> list[str]:
        """What is wrong with the books."""
        return broken_laws_of(await books.read(self.databases))

    @asynccontextmanager
    async def without(self, name: str) -> AsyncIterator[None]:
        """Stop a service for a block."""
        await self.stop(name)
        try:
            yield
        finally:
            if name not in self._stacks:
                await self.start(name)

    @asynccontextmanager
    async def looking(self, name: str) -> AsyncIterator[Any]:
        """Connect to a service's database, to look or to change something in it, such as the time."""
        connection = await asyncpg.connect(self.databases[name])
        try:
            yield connection
        finally:
            await connection.close()

    async def parked(self, name: str, order_id: str, events: int) -> list[ParkedEvent]:
        """The events of an order that are parked at a service, as soon as there are so many."""

        async def look() -> bool:
            async with self.looking(name) as connection:
                found[:] = await list_parked(connection, ParkedFilter(consumer=name, key=order_id))
            return len(found) == events

        found: list[ParkedEvent] = []
        await eventually(look, what=f"{events} parked events at {name}")
        return found

    async def heard_everything(self, name: str) -> None:
        """Return when a service has read everything that the broker had when this was called."""
        broker = open_broker(self.broker)
        async with self.looking(name) as connection:
            try:
                query = "SELECT DISTINCT topic FROM inbox_position WHERE consumer = $1"
                ends = {row["topic"]: await broker.ends(row["topic"]) for row in await connection.fetch(query, name)}
            finally:
                await broker.close()
            wanted = {(topic, number): end.last for topic, all_ in ends.items() for number, end in all_.items()}

            async def look() -> bool:
                query = "SELECT topic, partition, position FROM inbox_position WHERE consumer = $1"
                rows = await connection.fetch(query, name)
                return all(row["position"] >= wanted[row["topic"], row["partition"]] for row in rows)

            await eventually(look, what=f"{name} has heard everything")


@dataclass(frozen=True)
class Effects:
    """What stands of an order."""

    stock: str = ""
    payment: str = ""
    parcel: bool = False


def broken_laws_of(found: books.Books) -> list[str]:
    """What is wrong with the books of a shop in which nobody reports."""
    return [f"{law.name}: {what}" for law in laws.LAWS if law.name not in OF_REPORTING for what in law.broken(found)]


def effects_in(found: books.Books, order_id: str) -> Effects:
    """What stands of an order by the books."""
    reservation, payment = found.reservations.get(order_id), found.payments.get(order_id)
    return Effects(
        "" if reservation is None else reservation.state,
        "" if payment is None else payment.state,
        order_id in found.shipments,
    )


@asynccontextmanager
async def market(
    broker: str, make: Callable[[], Awaitable[str]], orchestrator: str, journal: str
) -> AsyncIterator[Market]:
    """Run a stocked shop for a block. `journal` is the URL of the orchestrator's database."""
    urls = {name: await make() for name in (*STUBS, "reporting")} | {"orchestrator": journal}
    shop = Market(broker, urls, orchestrator)
    try:
        for name in ("inventory", "payments", "shipping", "orders"):
            await shop.start(name)
        await shop.stock_up()
        yield shop
    finally:
        await shop.stop_all()


@asynccontextmanager
async def an_empty_journal(url: str) -> AsyncIterator[Database]:
    """A database of an orchestrator that does nothing, for the books."""
    async with migrated(url, "amends_orchestrator.migrations") as database:
        yield database
