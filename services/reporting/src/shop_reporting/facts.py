"""What reporting takes from the events: one fact for each, free of SQL and of brokers.

A fact says that something happened to an order, once. Facts of one order may come in any sequence and more than once:
what is known after all of them is the same. Used by the consumer, and by what is exported.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Any, NamedTuple

from amends_events import Topic, event_type
from google.protobuf.message import Message

from shop.inventory.events.v1.inventory_pb2 import StockReleased, StockReserved, StockShort
from shop.orders.events.v1.orders_pb2 import (
    OrderConfirmed,
    OrderDispatched,
    OrderPlaced,
    OrderRefunded,
    OrderRejected,
)
from shop.payments.events.v1.payments_pb2 import PaymentFailed, PaymentRefunded, PaymentTaken
from shop.shipping.events.v1.shipping_pb2 import ParcelBooked, ParcelCancelled, ParcelHandedOver, ParcelRefused
from shop.types.v1.types_pb2 import FULFILMENT_CHOREOGRAPHED

ORCHESTRATED, CHOREOGRAPHED = "orchestrated", "choreographed"
MAX_VERSION = 62
"""The versions of an order's row that were seen are bits of a bigint. An order changes five times at most."""


class Kind(IntEnum):
    """What happened; a number is never used for anything else."""

    PLACED = 0
    CONFIRMED = 1
    REJECTED = 2
    ORDER_REFUNDED = 3
    DISPATCHED = 4
    RESERVED = 5
    SHORT = 6
    RELEASED = 7
    TAKEN = 8
    PAYMENT_FAILED = 9
    PAYMENT_REFUNDED = 10
    BOOKED = 11
    PARCEL_REFUSED = 12
    CANCELLED = 13
    HANDED_OVER = 14

    @property
    def column(self) -> str:
        """Return the column that says when it happened."""
        return f"{self.name.lower()}_at"

    @property
    def bit(self) -> int:
        """Return the bit that says that it happened."""
        return 1 << self


class Fact(NamedTuple):
    """One thing that happened to an order."""

    order_id: str
    kind: Kind
    version: int
    """Of the row of the service that tells it, from 1."""
    at: datetime
    currency: str | None
    minor: int | None
    code: str | None
    """How an order is fulfilled, or why it was rejected, for programs."""
    reason: str | None
    """Why it was rejected, for people."""
    shard: int
    """Which part of the sums it goes into: the partition of the order, so that whoever reads it writes that alone."""


ToldValues = tuple[str | None, int | None, str | None, str | None]
"""Currency, minor units, code and reason, as far as an event tells them."""


@dataclass(frozen=True, slots=True)
class Source:
    """A service that tells facts, with what each of its events means."""

    name: str
    kinds: Mapping[type[Message], tuple[Kind, Callable[[Any], ToldValues]]]

    @property
    def topic(self) -> Topic:
        """Return the topic of its events."""
        return event_type(next(iter(self.kinds))).topic


def _nothing(_: Any) -> ToldValues:
    return None, None, None, None


def _placed(event: OrderPlaced) -> ToldValues:
    fulfilment = CHOREOGRAPHED if event.fulfilment == FULFILMENT_CHOREOGRAPHED else ORCHESTRATED
    return event.total.currency, event.total.minor, fulfilment, None


def _rejected(event: OrderRejected) -> ToldValues:
    return None, None, event.code, event.reason


def _amount(event: PaymentTaken | PaymentRefunded) -> ToldValues:
    return event.amount.currency, event.amount.minor, None, None


SOURCES = (
    Source(
        "orders",
        {
            OrderPlaced: (Kind.PLACED, _placed),
            OrderConfirmed: (Kind.CONFIRMED, _nothing),
            OrderRejected: (Kind.REJECTED, _rejected),
            OrderRefunded: (Kind.ORDER_REFUNDED, _nothing),
            OrderDispatched: (Kind.DISPATCHED, _nothing),
        },
    ),
    Source(
        "inventory",
        {
            StockReserved: (Kind.RESERVED, _nothing),
            StockShort: (Kind.SHORT, _nothing),
            StockReleased: (Kind.RELEASED, _nothing),
        },
    ),
    Source(
        "payments",
        {
            PaymentTaken: (Kind.TAKEN, _amount),
            PaymentFailed: (Kind.PAYMENT_FAILED, _nothing),
            PaymentRefunded: (Kind.PAYMENT_REFUNDED, _amount),
        },
    ),
    Source(
        "shipping",
        {
            ParcelBooked: (Kind.BOOKED, _nothing),
            ParcelRefused: (Kind.PARCEL_REFUSED, _nothing),
            ParcelCancelled: (Kind.CANCELLED, _nothing),
            ParcelHandedOver: (Kind.HANDED_OVER, _nothing),
        },
    ),
)
"""The services that reporting reads. The other events of their topics, about articles, are none of an order's."""

TYPES: Mapping[str, type[Message]] = {
    str(message.DESCRIPTOR.full_name): message for source in SOURCES for message in source.kinds
}
EVENTS: Mapping[Kind, str] = {
    kind: str(message.DESCRIPTOR.full_name) for source in SOURCES for message, (kind, _) in source.kinds.items()
}
_KINDS = {str(message.DESCRIPTOR.full_name): known for source in SOURCES for message, known in source.kinds.items()}
_ORDERS = SOURCES[0].topic


def fact(event: str, key: str, version: int, at: datetime, message: Any) -> Fact:
    """Return what an event says; `event` is the full name of its message. Raises ValueError for a wild version."""
    if not 1 <= version <= MAX_VERSION:
        raise ValueError(f"{event} of {key} has version {version}")
    kind, told = _KINDS[event]
    return Fact(key, kind, version, at, *told(message), _ORDERS.partition_of(key))


def columns(facts: Iterable[Fact]) -> tuple[list[Any], ...]:
    """Return facts by column, as the parameters of a statement."""
    return tuple(map(list, zip(*facts, strict=True)))
