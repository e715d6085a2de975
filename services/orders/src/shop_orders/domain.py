"""The rules of orders, free of SQL and gRPC.

`api.py` parses requests into these values, `order_process.py` works with them, `store.py` loads and saves them. An
order is PENDING until its saga or its events have ended it: CONFIRMED when every step took effect, REJECTED when none
has one that lasts, REFUNDED when a person gave the money back behind the point of no return.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from enum import StrEnum

from amends_chassis.domain import RefusedError, identifier

MAX_LINES = 100
MAX_QUANTITY = 1_000_000
MAX_MINOR = 1_000_000_000_000  # ten billion of a currency with cents

_CURRENCY = re.compile(r"[A-Z]{3}")


class LinesInvalid(RefusedError):
    """No lines, too many, or a quantity that is none."""

    reason = "LINES_INVALID"


class CardInvalid(RefusedError):
    """Something that cannot be a provider's token."""

    reason = "CARD_INVALID"


class AddressInvalid(RefusedError):
    """An address that cannot be written on a parcel. Shipping says whether it is served."""

    reason = "ADDRESS_INVALID"


class PriceInvalid(RefusedError):
    """The price has no currency, is nothing, or is more than an order may cost."""

    reason = "PRICE_INVALID"


class PriceMoved(RefusedError):
    """Prices are not set here any more."""

    reason = "PRICE_MOVED"


class PriceUnknown(RefusedError):
    """The article is not for sale."""

    reason = "PRICE_UNKNOWN"


class CurrenciesMixed(RefusedError):
    """One order has one total, in one currency."""

    reason = "CURRENCIES_MIXED"


class TotalTooLarge(RefusedError):
    """The total is more than an order may cost."""

    reason = "TOTAL_TOO_LARGE"


class OrderReused(RefusedError):
    """The order was placed before, with other content."""

    reason = "ORDER_REUSED"


class OrderUnknown(RefusedError):
    """There is no order with this id."""

    reason = "ORDER_UNKNOWN"


class CustomerUnknown(RefusedError):
    """There is no such customer, for whoever asks."""

    reason = "CUSTOMER_UNKNOWN"


class OrderClosed(RefusedError):
    """The order was rejected, or confirmed with other papers."""

    reason = "ORDER_CLOSED"


class FulfilmentUnavailable(RefusedError):
    """Orders cannot be fulfilled in that way here."""

    reason = "FULFILMENT_UNAVAILABLE"


class NeighbourAway(RefusedError):
    """Payments or shipping does not answer, and the order needs both before it is placed."""

    reason = "NEIGHBOUR_AWAY"


def unknown(order_id: str) -> OrderUnknown:
    """Return what is said of an order that is not there, and of one that is not the caller's."""
    return OrderUnknown(f"there is no order {order_id}")


class OrderState(StrEnum):
    """The states in the life of an order."""

    PENDING = "pending"
    CONFIRMED = "confirmed"
    REJECTED = "rejected"
    REFUNDED = "refunded"


class Fulfilment(StrEnum):
    """The ways in which an order is brought to its end."""

    ORCHESTRATED = "orchestrated"
    """Its saga calls each service."""
    CHOREOGRAPHED = "choreographed"
    """Each service answers the events of the others."""


@dataclass(frozen=True, slots=True)
class Money:
    """An amount in the currency's minor unit (cents)."""

    currency: str
    minor: int


@dataclass(frozen=True, slots=True)
class Line:
    """A quantity of one article, from 1."""

    sku: str
    quantity: int


@dataclass(frozen=True, slots=True)
class Address:
    """The address to which a parcel goes."""

    recipient: str
    street: str
    city: str
    postal_code: str
    country: str


@dataclass(frozen=True, slots=True)
class Content:
    """The content of an order, as the customer asks for it. Build it with `content`, which checks it."""

    customer_id: str
    lines: tuple[Line, ...]
    card_token: str = field(repr=False)
    address: Address

    def digest(self, order_id: str) -> bytes:
        """Return 32 bytes that differ when anything differs, to tell a repeated request when the token is gone."""
        return hashlib.sha256(json.dumps([order_id, asdict(self)], sort_keys=True).encode()).digest()


@dataclass(frozen=True, slots=True)
class Order:
    """An order. `card_token` is kept only until the saga was started."""

    order_id: str
    customer_id: str
    lines: tuple[Line, ...]
    total: Money
    address: Address
    state: OrderState
    run_id: str | None
    tracking_id: str | None
    payment_id: str | None
    reason: str | None
    attention: str | None
    """What a person has to decide before a PENDING order can go on, or to do for a REFUNDED one."""
    placed_at: datetime
    card_token: str | None = field(repr=False)
    fulfilment: Fulfilment


def content(customer_id: str, wanted: Iterable[Line], card_token: str, address: Address) -> Content:
    """Return what a customer asks for, lines of one article added up, by article.

    Raises IdentifierInvalid, LinesInvalid, CardInvalid, AddressInvalid.
    """
    identifier(customer_id, "customer_id")
    if not (1 <= len(card_token) <= 200 and card_token.isprintable()):
        raise CardInvalid("card_token must be the payment provider's token")
    for each in fields(Address):
        value = getattr(address, each.name)
        if not value.strip() or len(value) > 200 or not value.isprintable():
            raise AddressInvalid(f"address.{each.name} must have 1 to 200 printable characters")
    return Content(customer_id, _lines(wanted), card_token, address)


def _lines(wanted: Iterable[Line]) -> tuple[Line, ...]:
    pieces: Counter[str] = Counter()
    for number, line in enumerate(wanted, 1):
        if number > MAX_LINES:
            raise LinesInvalid(f"there must be at most {MAX_LINES} lines")
        if line.quantity < 1:
            raise LinesInvalid(f"the quantity of {identifier(line.sku, 'sku')} must be at least 1")
        pieces[identifier(line.sku, "sku")] += line.quantity
    if not 1 <= len(pieces) <= MAX_LINES:
        raise LinesInvalid(f"there must be 1 to {MAX_LINES} different articles, not {len(pieces)}")
    if max(pieces.values()) > MAX_QUANTITY:
        raise LinesInvalid(f"no more than {MAX_QUANTITY} of one article can be ordered at once")
    return tuple(Line(sku, pieces[sku]) for sku in sorted(pieces))


@dataclass(frozen=True, slots=True)
class ArticleCopy:
    """What catalog told last of an article; no name while it has not told, no price while there is none."""

    sku: str
    name: str
    price: Money | None
    withdrawn: bool


def price(value: Money) -> Money:
    """Return `value` if an article can cost it. Raises PriceInvalid."""
    if not _CURRENCY.fullmatch(value.currency):
        raise PriceInvalid("the currency must be an ISO 4217 code such as EUR")
    if not 0 < value.minor <= MAX_MINOR:
        raise PriceInvalid(f"the price must be 1 to {MAX_MINOR} minor units")
    return value


def total(lines: Iterable[Line], prices: Mapping[str, Money]) -> Money:
    """Return what the lines cost in all. Raises PriceUnknown, CurrenciesMixed, TotalTooLarge."""
    amounts: Counter[str] = Counter()
    for line in lines:
        if line.sku not in prices:
            raise PriceUnknown(f"article {line.sku} is not for sale")
        amounts[prices[line.sku].currency] += prices[line.sku].minor * line.quantity
    if len(amounts) != 1:
        raise CurrenciesMixed(f"one order has one currency, not {', '.join(sorted(amounts))}")
    [(currency, minor)] = amounts.items()
    if minor > MAX_MINOR:
        raise TotalTooLarge(f"an order can cost at most {MAX_MINOR} minor units")
    return Money(currency, minor)
