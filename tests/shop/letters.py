"""The services of the shop as the handlers of their events, each over its own Postgres, and no broker.

What is published lies in a bag, and the test delivers it in the order it likes, also twice.
"""

import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from amends_chassis.database import Database
from amends_demo import books
from amends_events import CloudEvent, EventHandler, Outbox
from amends_events.envelope import handling
from amends_testkit.service import migrated
from google.protobuf.message import Message
from shop_inventory import store as inventory
from shop_inventory.choreography import StockReactions
from shop_inventory.domain import Line as StockLine
from shop_inventory.events import PUBLISHES as INVENTORY
from shop_orders import domain as orders_domain
from shop_orders import store as orders
from shop_orders.choreography import OrderReactions
from shop_orders.events import PUBLISHES as ORDERS
from shop_payments import store as payments
from shop_payments.cards import fingerprint
from shop_payments.choreography import ChargeReactions, ChargeWorker
from shop_payments.domain import Money as PaidMoney
from shop_payments.events import PUBLISHES as PAYMENTS
from shop_payments.network import DurableMemory, Network
from shop_shipping import store as shipping
from shop_shipping.choreography import ParcelReactions
from shop_shipping.domain import Address as ParcelAddress
from shop_shipping.domain import Line as ParcelLine
from shop_shipping.domain import Slots
from shop_shipping.events import PUBLISHES as SHIPPING

from .market import Effects, broken_laws_of, effects_in

PUBLISHES = {"orders": ORDERS, "inventory": INVENTORY, "payments": PAYMENTS, "shipping": SHIPPING}
SKU, PRICE, STOCK = "mug", 900, 900_000
TIME = timedelta(minutes=10)


@dataclass(frozen=True)
class Letter:
    """An event on its way to a consumer."""

    to: str
    event: CloudEvent
    message: Any

    @property
    def type(self) -> str:
        return str(self.message.DESCRIPTOR.name)


@dataclass
class Letters:
    """The four services."""

    databases: dict[str, Database]
    urls: dict[str, str]
    outboxes: dict[str, Outbox]
    handlers: dict[str, dict[type[Message], EventHandler]]
    worker: ChargeWorker
    undelivered: list[Letter] = field(default_factory=list)
    published: Counter[str] = field(default_factory=Counter)
    """How many events of each type were published, since the last order was placed."""

    async def open(self) -> None:
        """Receive stock, set prices, agree on slots."""
        async with self.databases["inventory"].transaction() as transaction:
            await inventory.receive(transaction, self.outboxes["inventory"], "opening", [StockLine(SKU, STOCK)])
        for country, available in (("DE", STOCK), ("AT", 0)):
            async with self.databases["shipping"].transaction() as transaction:
                await shipping.set_slots(transaction, Slots("postal", country, available, 0))
        await self._collect("inventory")

    async def place(self, order_id: str, *, card: str = "tok_visa", quantity: int = 1, country: str = "DE") -> None:
        """Place a choreographed order, after its card and its address were handed over."""
        self.undelivered.clear()
        self.published.clear()
        minor = quantity * PRICE
        async with self.databases["payments"].transaction() as transaction:
            await payments.keep_card(transaction, order_id, PaidMoney("EUR", minor), fingerprint(card), TIME)
        goes_to = ("Ada", "Rosenweg 3", "Berlin", "1010" if country == "AT" else "10115", country)
        async with self.databases["shipping"].transaction() as transaction:
            lines = [ParcelLine(SKU, quantity)]
            await shipping.announce_parcel(transaction, order_id, ParcelAddress(*goes_to), lines, TIME)
        content = orders_domain.content(
            "ada", [orders_domain.Line(SKU, quantity)], card, orders_domain.Address(*goes_to)
        )
        price = orders_domain.Money("EUR", PRICE)
        async with self.databases["orders"].transaction() as transaction:
            total = orders_domain.Money("EUR", minor)
            await orders.add(transaction, self.outboxes["orders"], order_id, content, total, {SKU: price}, TIME)
        await self._collect("orders")

    async def deliver(self, letter: Letter) -> None:
        """Handle an event as its consumer does: once, in one transaction with what it publishes."""
        if letter in self.undelivered:
            self.undelivered.remove(letter)
        async with self.databases[letter.to].transaction() as transaction:
            is_new = await transaction.fetchval(
                "INSERT INTO inbox (consumer, event_id) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING true",
                letter.to,
                letter.event.event_id,
            )
            if is_new:
                with handling(letter.event):
                    await self.handlers[letter.to][type(letter.message)](transaction, letter.event, letter.message)
        await self._collect(letter.to)

    async def deliver_all(self) -> None:
        """Deliver everything, in the order in which it was published, until nothing more comes."""
        while self.undelivered or await self.charge():
            if self.undelivered:
                await self.deliver(self.undelivered[0])

    def waiting(self, to: str, kind: str) -> Letter:
        """The event of a type that waits for a consumer."""
        [letter] = [one for one in self.undelivered if (one.to, one.type) == (to, kind)]
        return letter

    async def charge(self) -> int:
        """Let the worker of payments do what is due; return how many charges that were."""
        async with self.databases["payments"].transaction() as transaction:
            due = await payments.claim_due(transaction, 10)
        for one in due:
            await self.worker.settle(one)
        await self._collect("payments")
        return len(due)

    async def let_the_time_pass(self, order_id: str) -> None:
        """The order's deadline passes, everywhere, and nobody has looked yet."""
        await self.databases["orders"].pool.execute("UPDATE orders SET deadline = now() WHERE order_id = $1", order_id)
        for service, table in (("payments", "kept_card"), ("shipping", "announced_parcel")):
            await self.databases[service].pool.execute(
                f"UPDATE {table} SET expires_at = now() WHERE order_id = $1",
                order_id,
            )

    async def sweep(self, order_id: str) -> None:
        """Orders looks whether the order is late."""
        async with self.databases["orders"].transaction() as transaction:
            await orders.reject_late(transaction, self.outboxes["orders"], order_id)
        await self._collect("orders")

    async def collect(self) -> None:
        """Take what was published by whatever the test did itself."""
        for service in self.databases:
            await self._collect(service)

    async def _collect(self, service: str) -> None:
        rows = await self.databases[service].pool.fetch("DELETE FROM outbox RETURNING *")
        for row in sorted(rows, key=lambda row: row["seq"]):
            known = self.outboxes[service].types[row["type"]]
            event = CloudEvent(
                event_id=row["event_id"],
                source=f"/shop/{service}",
                type=row["type"],
                topic=row["topic"],
                key=row["key"],
                version=row["version"],
                occurred_at=row["occurred_at"],
                headers=json.loads(row["headers"]),
                payload=row["payload"],
            )
            message = known.message.FromString(row["payload"])
            self.published[message.DESCRIPTOR.name] += 1
            self.undelivered += [
                Letter(to, event, message) for to, handlers in self.handlers.items() if known.message in handlers
            ]

    async def state(self, order_id: str) -> str:
        async with self.databases["orders"].transaction() as transaction:
            return str((await orders.order_of(transaction, order_id)).state)

    async def effects(self, order_id: str) -> Effects:
        return effects_in(await books.read(self.urls), order_id)

    async def broken_laws(self) -> list[str]:
        return broken_laws_of(await books.read(self.urls))


@asynccontextmanager
async def opened(make: Callable[[], Awaitable[str]]) -> AsyncIterator[Letters]:
    """The services over fresh databases."""
    async with AsyncExitStack() as stack:
        urls = {name: await make() for name in (*PUBLISHES, "orchestrator", "reporting")}
        await stack.enter_async_context(migrated(urls["orchestrator"], "amends_orchestrator.migrations"))
        databases = {
            name: await stack.enter_async_context(migrated(urls[name], f"shop_{name}.migrations")) for name in PUBLISHES
        }
        boxes = {name: Outbox(f"/shop/{name}", types) for name, types in PUBLISHES.items()}
        network = Network(DurableMemory(databases["payments"]), timedelta())
        worker = ChargeWorker(databases["payments"], boxes["payments"], network, TIME)
        handlers = {
            "orders": dict(OrderReactions(boxes["orders"]).handlers),
            "inventory": dict(StockReactions(boxes["inventory"]).handlers),
            "payments": dict(ChargeReactions(boxes["payments"], worker).handlers),
            "shipping": dict(ParcelReactions(boxes["shipping"]).handlers),
        }
        letters = Letters(databases, urls, boxes, handlers, worker)
        await letters.open()
        yield letters
