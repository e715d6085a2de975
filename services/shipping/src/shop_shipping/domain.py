"""The rules of shipping, free of SQL and gRPC.

`api.py` parses requests into these values, `store.py` loads, changes and saves them. A carrier has a finite number of
slots to a country; a country to which no carrier has any capacity set is not served.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import islice

from amends_chassis.domain import IdentifierInvalidError, RefusedError, identifier

MAX_LINES = 100
MAX_SLOTS = 1_000_000_000
MAX_KEPT = timedelta(hours=1)
"""How long an announced parcel is remembered at most."""

_CARRIER = re.compile(r"[a-z][a-z0-9-]{0,39}")
_COUNTRY = re.compile(r"[A-Z]{2}")
_ANY_POSTAL_CODE = re.compile(r"[A-Z0-9][A-Z0-9 -]{1,10}")
_POSTAL_CODES = {
    "AT": re.compile(r"\d{4}"),
    "CH": re.compile(r"\d{4}"),
    "DE": re.compile(r"\d{5}"),
    "ES": re.compile(r"\d{5}"),
    "FR": re.compile(r"\d{5}"),
    "GB": re.compile(r"[A-Z]{1,2}\d[A-Z\d]? \d[A-Z]{2}"),
    "IT": re.compile(r"\d{5}"),
    "NL": re.compile(r"\d{4} ?[A-Z]{2}"),
    "PL": re.compile(r"\d{2}-\d{3}"),
    "US": re.compile(r"\d{5}(-\d{4})?"),
}


class LinesInvalid(RefusedError):
    """A parcel with nothing in it, or too much."""

    reason = "LINES_INVALID"


class AddressInvalid(RefusedError):
    """No parcel could arrive there."""

    reason = "ADDRESS_INVALID"


class SlotsInvalid(RefusedError):
    """Capacity that no carrier can have."""

    reason = "SLOTS_INVALID"


class NotServed(RefusedError):
    """No carrier goes to the country."""

    reason = "NOT_SERVED"


class NoSlot(RefusedError):
    """Every carrier to the country is full."""

    reason = "NO_SLOT"


class AlreadyBooked(RefusedError):
    """The order has a parcel already; an order is shipped once."""

    reason = "ALREADY_BOOKED"


class ParcelReused(RefusedError):
    """Another parcel is announced for the order already."""

    reason = "PARCEL_REUSED"


class ParcelGone(RefusedError):
    """The carrier has the parcel; it cannot be called off any more."""

    reason = "PARCEL_GONE"


class ShipmentUnknown(RefusedError):
    """The order has no parcel."""

    reason = "SHIPMENT_UNKNOWN"


class ShipmentState(StrEnum):
    """The states in the life of a parcel."""

    BOOKED = "booked"
    CANCELLED = "cancelled"
    HANDED_OVER = "handed_over"


@dataclass(frozen=True, slots=True)
class Line:
    """A quantity of one article, from 1."""

    sku: str
    quantity: int


@dataclass(frozen=True, slots=True)
class Address:
    """The address to which a parcel goes; the country is ISO 3166-1 alpha-2."""

    recipient: str
    street: str
    city: str
    postal_code: str
    country: str


@dataclass(frozen=True, slots=True)
class Slots:
    """One carrier's capacity to one country, in parcels."""

    carrier: str
    country: str
    available: int
    booked: int


@dataclass(frozen=True, slots=True)
class Shipment:
    """A parcel that is booked for an order."""

    tracking_id: str
    order_id: str
    carrier: str
    address: Address
    booked_at: datetime


def writable(address: Address) -> Address:
    """Return the address if it can be written on a parcel. Raises AddressInvalid, which names the field."""
    for field in fields(Address):
        value = getattr(address, field.name)
        if not value.strip() or len(value) > 200 or not value.isprintable():
            raise AddressInvalid(f"{field.name} must have 1 to 200 printable characters")
    return address


def deliverable(address: Address) -> Address:
    """Return the address if a parcel could arrive there. Raises AddressInvalid, which names the field."""
    writable(address)
    _country(address.country)
    if not _POSTAL_CODES.get(address.country, _ANY_POSTAL_CODE).fullmatch(address.postal_code):
        raise AddressInvalid(f"postal_code is not written as in {address.country}")
    return address


def choose(country: str, capacity: Sequence[Slots]) -> Slots:
    """Return the carrier to book: the one with most slots left, so that carriers fill evenly.

    `capacity` is that of all carriers to the country. Raises NotServed, NoSlot.
    """
    if not capacity:
        raise NotServed(f"no carrier goes to {country}")
    best = max(capacity, key=lambda slots: slots.available)
    if best.available == 0:
        raise NoSlot(f"no carrier has a slot to {country} left")
    return best


def slots(carrier: str, country: str, available: int) -> Slots:
    """Return capacity that can be set. Raises IdentifierInvalidError, AddressInvalid, SlotsInvalid."""
    if not _CARRIER.fullmatch(carrier):
        raise IdentifierInvalidError(
            "carrier must have 1 to 40 lower-case letters, digits or - and begin with a letter"
        )
    if not 0 <= available <= MAX_SLOTS:
        raise SlotsInvalid(f"available must be 0 to {MAX_SLOTS}")
    return Slots(carrier, _country(country), available, booked=0)


def contents(lines: Iterable[Line]) -> tuple[Line, ...]:
    """Return what is in a parcel. Raises LinesInvalid, IdentifierInvalidError."""
    checked = tuple(islice(lines, MAX_LINES + 1))
    if not 1 <= len(checked) <= MAX_LINES:
        raise LinesInvalid(f"a parcel must have 1 to {MAX_LINES} lines")
    for line in checked:
        if line.quantity < 1:
            raise LinesInvalid(f"the quantity of {identifier(line.sku, 'sku')} must be at least 1")
        identifier(line.sku, "sku")
    return checked


def _country(country: str) -> str:
    if not _COUNTRY.fullmatch(country):
        raise AddressInvalid("country must be an ISO 3166-1 alpha-2 code such as DE")
    return country
