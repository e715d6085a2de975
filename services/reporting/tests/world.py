"""What the suite works on: orders that end in every way, as facts, as events of a log, and as what services export."""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from amends_events import event_type
from amends_testkit.log import ToldEvent
from google.protobuf.message import Message
from shop_reporting import facts
from shop_reporting.facts import SOURCES, Fact

from shop.inventory.events.v1.inventory_pb2 import StockReleased, StockReserved, StockShort
from shop.orders.events.v1.orders_pb2 import (
    OrderConfirmed,
    OrderDispatched,
    OrderPlaced,
    OrderRefunded,
    OrderRejected,
)
from shop.payments.events.v1.payments_pb2 import PaymentFailed, PaymentRefunded, PaymentTaken
from shop.shipping.events.v1.shipping_pb2 import ParcelBooked, ParcelCancelled, ParcelHandedOver
from shop.types.v1.types_pb2 import FULFILMENT_CHOREOGRAPHED, FULFILMENT_ORCHESTRATED, Money

TOPICS = [source.topic for source in SOURCES]
BEGAN = datetime(2026, 11, 28, 22, tzinfo=UTC)


@dataclass(frozen=True)
class Told(ToldEvent):
    """An event of an order."""

    @property
    def fact(self) -> Fact:
        return facts.fact(self.kind, self.key, self.version, self.at, self.message)


def order(number: int) -> list[Told]:
    """The events of one order, in the order of time: each of nine ways in turn."""
    order_id, money = f"o-{number:06d}", Money(currency="EUR" if number % 3 else "CHF", minor=1_000 + number)
    at = BEGAN + timedelta(minutes=number % 3000, seconds=number % 60)
    ways = (
        (OrderPlaced, StockReserved, PaymentTaken, ParcelBooked, OrderConfirmed, OrderDispatched, ParcelHandedOver),
        (OrderPlaced, StockReserved, PaymentTaken, ParcelBooked, OrderConfirmed, OrderDispatched),
        (OrderPlaced, StockReserved, PaymentTaken, ParcelBooked, OrderConfirmed),
        (OrderPlaced, StockShort, OrderRejected),
        (OrderPlaced, StockReserved, PaymentFailed, OrderRejected, StockReleased),
        (OrderPlaced, StockReserved, PaymentTaken, OrderRejected, PaymentRefunded, StockReleased),
        (OrderPlaced, StockReserved, PaymentTaken, ParcelBooked, OrderRejected, PaymentRefunded, ParcelCancelled),
        (OrderPlaced, StockReserved, PaymentTaken, ParcelBooked, OrderRefunded, PaymentRefunded),
        (OrderPlaced, StockReserved),
    )
    fulfilment = FULFILMENT_CHOREOGRAPHED if number % 2 else FULFILMENT_ORCHESTRATED
    more: dict[type[Message], dict[str, Any]] = {
        OrderPlaced: {"total": money, "fulfilment": fulfilment},
        OrderRejected: {"code": ("OUT_OF_STOCK", "CARD_DECLINED", "")[number % 3], "reason": "it is so"},
        PaymentTaken: {"amount": money},
        PaymentRefunded: {"amount": money},
    }
    told: list[Told] = []
    for step, kind in enumerate(ways[number % len(ways)]):
        message = kind(order_id=order_id, **more.get(kind, {}))
        topic = event_type(kind).topic
        version = 1 + sum(one.topic == topic for one in told)
        told.append(Told(message, version, at + timedelta(milliseconds=7 * step)))
    return told


def orders(count: int, first: int = 0) -> list[list[Told]]:
    """The events of so many orders."""
    return [order(number) for number in range(first, first + count)]


def interleaved(of: Iterable[Sequence[Told]], seed: int = 0) -> list[Told]:
    """All events in one sequence, in which those of one order and one service keep theirs."""
    chance = random.Random(seed)
    queues = [[one for one in told if one.topic == source.topic] for told in of for source in SOURCES]
    queues = [queue for queue in queues if queue]
    found: list[Told] = []
    while queues:
        number = chance.randrange(len(queues))
        found.append(queues[number].pop(0))
        if not queues[number]:
            queues[number] = queues[-1]
            queues.pop()
    return found


def split(told: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Cut a sequence into pieces of a size."""
    return (told[first : first + size] for first in range(0, len(told), size))


VIEWS = {
    "order_process": "order_id",
    "sales": "day, currency",
    "funnel": "day, fulfilment",
    "undone": "day, code",
}


async def rows(connection: Any, schema: str = "public") -> dict[str, list[tuple[Any, ...]]]:
    """Everything that a projection shows, row by row."""
    found = {}
    for view, by in VIEWS.items():
        query = f"SELECT * FROM {schema}.{view} ORDER BY {by}"
        found[view] = [tuple(row.values()) for row in await connection.fetch(query)]
    return found


class Kept:
    """What the services export of orders, in pages of a few."""

    def __init__(self, of: Iterable[Sequence[Told]] = (), size: int = 7) -> None:
        self.told = [one for told in of for one in told]
        self._size = size
        self.pages = 0

    def of(self, source: str, key: str | None = None) -> list[Told]:
        [topic] = [one.topic for one in SOURCES if one.name == source]
        found = [one for one in self.told if one.topic == topic and key in (None, one.key)]
        return sorted(found, key=lambda one: (one.key, one.version))

    async def page(self, source: str, token: str) -> tuple[list[Fact], str]:
        self.pages += 1
        first = int(token or 0)
        told = self.of(source)
        after = str(first + self._size) if first + self._size < len(told) else ""
        return [one.fact for one in told[first : first + self._size]], after

    async def one(self, source: str, key: str) -> list[Fact]:
        return [one.fact for one in self.of(source, key)]
