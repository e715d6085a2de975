"""The rules of customers as orders need them, free of SQL and gRPC.

`api.py` parses requests into these values, `store.py` loads and saves them. Marketing has a Customer of its own; the
two share the account's id and nothing else.
"""

import re
from dataclasses import dataclass, field, fields

from amends_chassis.domain import RefusedError, identifier

MAX_ADDRESSES = 20
MAX_PAYMENT_METHODS = 10
DEFAULT_LOCALE = "en"

_EMAIL_ADDRESS = re.compile(r"[^\s@<>()\[\],;:\\\"]{1,64}@[^\s@<>()\[\],;:\\\"]{1,189}")
_LOCALE = re.compile(r"[a-z]{2,3}(-[A-Z][a-z]{3})?(-([A-Z]{2}|[0-9]{3}))?")
_COUNTRY = re.compile(r"[A-Z]{2}")
_LAST_FOUR = re.compile(r"[0-9]{4}")


class NameInvalid(RefusedError):
    """The name cannot be written on a bill."""

    reason = "NAME_INVALID"


class EmailAddressInvalid(RefusedError):
    """The text is no e-mail address to which a message can be sent."""

    reason = "EMAIL_ADDRESS_INVALID"


class LocaleInvalid(RefusedError):
    """The text names no language."""

    reason = "LOCALE_INVALID"


class AddressInvalid(RefusedError):
    """The address cannot be written on a parcel or a bill. Shipping says whether it is served."""

    reason = "ADDRESS_INVALID"


class LabelInvalid(RefusedError):
    """The customer's name for an address is empty or too long."""

    reason = "LABEL_INVALID"


class CardInvalid(RefusedError):
    """The token cannot be a provider's, or what is said of its card cannot be."""

    reason = "CARD_INVALID"


class TooMany(RefusedError):
    """The customer has as many addresses or payment methods as one can have."""

    reason = "TOO_MANY"


class VersionStale(RefusedError):
    """The customer has changed since the caller looked."""

    reason = "VERSION_STALE"


class CustomerUnknown(RefusedError):
    """There is no such customer, or not any more."""

    reason = "CUSTOMER_UNKNOWN"


class PaymentMethodUnknown(RefusedError):
    """The customer has no such payment method."""

    reason = "PAYMENT_METHOD_UNKNOWN"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a parcel or a bill goes. Build it with `address`, which checks it."""

    recipient: str
    street: str
    city: str
    postal_code: str
    country: str


@dataclass(frozen=True, slots=True)
class Details:
    """What one says about oneself. Build it with `details`, which checks it."""

    name: str
    email_address: str
    locale: str
    billing_address: Address | None


@dataclass(frozen=True, slots=True)
class DeliveryAddress:
    """Where parcels can go, and what the customer calls it. Build it with `delivery_address`, which checks it."""

    delivery_address_id: str
    label: str
    address: Address


@dataclass(frozen=True, slots=True)
class PaymentMethod:
    """What can be charged, as the customer recognises it. Build it with `payment_method`, which checks it."""

    payment_method_id: str
    brand: str
    last_four: str


@dataclass(frozen=True, slots=True)
class Customer:
    """A customer as orders need it."""

    account_id: str
    version: int
    """Counts the changes of its details."""
    revision: int
    """Counts all changes."""
    details: Details
    delivery_addresses: tuple[DeliveryAddress, ...] = field(default=())
    payment_methods: tuple[PaymentMethod, ...] = field(default=())


def details(name: str, email_address: str, locale: str, billing_address: Address | None) -> Details:
    """Return what one says about oneself; an empty locale is DEFAULT_LOCALE.

    Raises NameInvalid, EmailAddressInvalid, LocaleInvalid.
    """
    if not _is_line(name):
        raise NameInvalid("name must have 1 to 200 printable characters")
    if email_address and not (_EMAIL_ADDRESS.fullmatch(email_address) and email_address.isprintable()):
        raise EmailAddressInvalid("email_address must look like ada@example.com")
    if locale and not _LOCALE.fullmatch(locale):
        raise LocaleInvalid("locale must be a BCP 47 tag such as de or en-GB")
    return Details(name, email_address, locale or DEFAULT_LOCALE, billing_address)


def address(value: Address) -> Address:
    """Return `value` if it can be written on a parcel. Raises AddressInvalid."""
    for each in fields(Address):
        if not _is_line(getattr(value, each.name)):
            raise AddressInvalid(f"address.{each.name} must have 1 to 200 printable characters")
    if not _COUNTRY.fullmatch(value.country):
        raise AddressInvalid("address.country must be an ISO 3166-1 alpha-2 code such as DE")
    return value


def delivery_address(delivery_address_id: str, label: str, to: Address) -> DeliveryAddress:
    """Return an address with a name. Raises IdentifierInvalidError, LabelInvalid, AddressInvalid."""
    identifier(delivery_address_id, "delivery_address_id")
    if not _is_line(label):
        raise LabelInvalid("label must have 1 to 200 printable characters")
    return DeliveryAddress(delivery_address_id, label, address(to))


def payment_method(payment_method_id: str, brand: str, last_four: str) -> PaymentMethod:
    """Return a payment method. Raises IdentifierInvalidError, CardInvalid."""
    identifier(payment_method_id, "payment_method_id")
    if not _is_line(brand):
        raise CardInvalid("brand must have 1 to 200 printable characters")
    if not _LAST_FOUR.fullmatch(last_four):
        raise CardInvalid("last_four must be the last four digits of the card")
    return PaymentMethod(payment_method_id, brand, last_four)


def card_token(token: str) -> str:
    """Return `token` if it can be a provider's. Raises CardInvalid, without repeating the token."""
    if not _is_line(token):
        raise CardInvalid("card_token must be the payment provider's token")
    return token


def _is_line(text: str) -> bool:
    return bool(text.strip()) and len(text) <= 200 and text.isprintable()
