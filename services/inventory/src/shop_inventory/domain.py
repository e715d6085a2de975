"""The rules of stock, free of SQL and gRPC.

`api.py` parses requests into these values, `store.py` loads, changes and saves them. The one law:
for every article, received = available + reserved + sold.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from amends_chassis.domain import RefusedError, identifier

MAX_LINES = 100
MAX_QUANTITY = 1_000_000


class LinesInvalid(RefusedError):
    """No lines, too many, or a quantity that is none."""

    reason = "LINES_INVALID"


class SkuUnknown(RefusedError):
    """Nothing of this article was ever received."""

    reason = "SKU_UNKNOWN"


class OutOfStock(RefusedError):
    """Less is available than was asked for."""

    reason = "OUT_OF_STOCK"


class AlreadyReserved(RefusedError):
    """The order has a reservation already; an order is reserved once."""

    reason = "ALREADY_RESERVED"


class NotReserved(RefusedError):
    """Nothing is kept for the order (any more)."""

    reason = "NOT_RESERVED"


class DeliveryReused(RefusedError):
    """The delivery was received before, with other lines."""

    reason = "DELIVERY_REUSED"


class Movement(StrEnum):
    """The changes that can happen to stock."""

    RECEIVE = "receive"
    RESERVE = "reserve"
    RELEASE = "release"
    DISPATCH = "dispatch"


class ReservationState(StrEnum):
    """The life of a reservation: held until it is released or dispatched, for good."""

    HELD = "held"
    RELEASED = "released"
    DISPATCHED = "dispatched"


@dataclass(frozen=True, slots=True)
class Line:
    """A quantity of one article, from 1."""

    sku: str
    quantity: int


@dataclass(frozen=True, slots=True)
class Stock:
    """All there is of one article, in pieces."""

    sku: str
    received: int = 0
    available: int = 0
    reserved: int = 0
    sold: int = 0

    def apply(self, movement: Movement, quantity: int) -> "Stock":
        """Return the stock after `quantity` pieces moved. Raises OutOfStock."""
        match movement:
            case Movement.RECEIVE:
                return replace(self, received=self.received + quantity, available=self.available + quantity)
            case Movement.RESERVE if quantity > self.available:
                raise OutOfStock(f"{quantity} of {self.sku} were asked for, {self.available} are available")
            case Movement.RESERVE:
                return replace(self, available=self.available - quantity, reserved=self.reserved + quantity)
            case Movement.RELEASE:
                return replace(self, available=self.available + quantity, reserved=self.reserved - quantity)
            case Movement.DISPATCH:
                return replace(self, reserved=self.reserved - quantity, sold=self.sold + quantity)


def lines(wanted: Iterable[Line]) -> tuple[Line, ...]:
    """Return the lines with those of one article added up, by article. Raises LinesInvalid, IdentifierInvalid.

    The order matters: rows are locked in it, so that two orders for the same articles cannot deadlock.
    """
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
        raise LinesInvalid(f"no more than {MAX_QUANTITY} of one article can move at once")
    return tuple(Line(sku, pieces[sku]) for sku in sorted(pieces))
