"""Customers in Postgres: every function is one change or read inside a transaction that its caller owns.

`api.py` and `events.py` call it. Every change locks the customer's row first, so a change and the erasure of a customer
come one after the other, and nothing here can deadlock.
"""

from typing import TYPE_CHECKING

from amends_events import with_event
from amends_events.backlog import forget_events

from shop.customers.events.v1.customers_pb2 import CustomerChanged, CustomerErased
from shop_customers.domain import (
    MAX_ADDRESSES,
    MAX_PAYMENT_METHODS,
    Address,
    Customer,
    CustomerUnknown,
    DeliveryAddress,
    Details,
    PaymentMethod,
    PaymentMethodUnknown,
    TooMany,
    VersionStale,
)

if TYPE_CHECKING:
    from amends_chassis.database import Connection, Executes
    from amends_events import Outbox
    from asyncpg import Record

_CUSTOMER = """
SELECT account_id, version, revision, name, email_address, locale, recipient, street, city, postal_code, country
FROM customer LEFT JOIN billing_address USING (account_id) WHERE account_id = $1 AND NOT erased
"""
_CHANGE = with_event(
    "UPDATE customer SET name = $2, email_address = $3, locale = $4, version = version + 1"
    " WHERE account_id = $1 RETURNING version",
    4,
)
_ERASE = with_event(
    "INSERT INTO customer (account_id, erased) VALUES ($1, true) ON CONFLICT (account_id) DO UPDATE"
    " SET erased = true, name = DEFAULT, email_address = DEFAULT, locale = DEFAULT, version = customer.version + 1,"
    " revision = customer.revision + 1 WHERE NOT customer.erased RETURNING version, revision",
    1,
)
_PUT_BILLING_ADDRESS = """
INSERT INTO billing_address (account_id, recipient, street, city, postal_code, country)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (account_id) DO UPDATE SET recipient = excluded.recipient, street = excluded.street,
    city = excluded.city, postal_code = excluded.postal_code, country = excluded.country
"""
_PUT_DELIVERY_ADDRESS = """
INSERT INTO delivery_address
    (account_id, delivery_address_id, label, recipient, street, city, postal_code, country)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (account_id, delivery_address_id) DO UPDATE SET label = excluded.label, recipient = excluded.recipient,
    street = excluded.street, city = excluded.city, postal_code = excluded.postal_code, country = excluded.country
"""


async def open_customer(connection: "Executes", account_id: str) -> None:
    """Write down that there is a customer, of whom nothing is known yet; one that is there, or was erased, stays so."""
    await connection.execute("INSERT INTO customer (account_id) VALUES ($1) ON CONFLICT DO NOTHING", account_id)


async def erase(connection: "Executes", outbox: "Outbox", account_id: str) -> int | None:
    """Delete whatever is known about a customer, and return the revision of that; None when that was done before.

    Changes of the customer that are not published yet never will be: the e-mail address is in them.
    """
    row = outbox.row(CustomerErased(account_id=account_id))
    erased = await connection.fetchrow(_ERASE, account_id, *row.values)
    if erased is None:
        return None
    for table in ("billing_address", "delivery_address", "payment_method"):
        await connection.execute(f"DELETE FROM {table} WHERE account_id = $1", account_id)  # noqa: S608 - our tables
    await forget_events(connection, CustomerChanged, account_id)
    return int(erased["revision"])


async def customer_of(connection: "Connection", account_id: str) -> Customer:
    """Read a customer. Raises CustomerUnknown."""
    row = await connection.fetchrow(_CUSTOMER, account_id)
    if row is None:
        raise CustomerUnknown(f"account {account_id} has no customer")
    addresses = await connection.fetch(
        "SELECT * FROM delivery_address WHERE account_id = $1 ORDER BY delivery_address_id", account_id
    )
    methods = await connection.fetch(
        "SELECT payment_method_id, brand, last_four FROM payment_method WHERE account_id = $1"
        " ORDER BY payment_method_id",
        account_id,
    )
    billing = None if row["recipient"] is None else _address(row)
    return Customer(
        account_id=row["account_id"],
        version=row["version"],
        revision=row["revision"],
        details=Details(row["name"], row["email_address"], row["locale"], billing),
        delivery_addresses=tuple(
            DeliveryAddress(one["delivery_address_id"], one["label"], _address(one)) for one in addresses
        ),
        payment_methods=tuple(PaymentMethod(*one) for one in methods),
    )


async def change(
    connection: "Connection", outbox: "Outbox", account_id: str, expected: int, details: Details
) -> Customer:
    """Replace what a customer says about itself, and return it as it is now; the same again changes nothing.

    `expected` is the version that the change was made for, 0 for any. Raises CustomerUnknown, VersionStale.
    """
    await _lock(connection, account_id)
    now = await customer_of(connection, account_id)
    if now.details == details:
        return now
    if expected not in (0, now.version):
        raise VersionStale(f"the customer has version {now.version} by now, not {expected}")
    changed = outbox.row(
        CustomerChanged(account_id=account_id, email_address=details.email_address, locale=details.locale)
    )
    await connection.execute(_CHANGE, account_id, details.name, details.email_address, details.locale, *changed.values)
    await _set_billing_address(connection, account_id, details.billing_address)
    return await customer_of(connection, account_id)


async def put_delivery_address(connection: "Connection", account_id: str, to: DeliveryAddress) -> Customer:
    """Add or replace an address to which parcels can go, and return the customer. Raises CustomerUnknown, TooMany."""
    await _lock(connection, account_id)
    await connection.execute(_PUT_DELIVERY_ADDRESS, account_id, to.delivery_address_id, to.label, *_values(to.address))
    count = await connection.fetchval("SELECT count(*) FROM delivery_address WHERE account_id = $1", account_id)
    if count > MAX_ADDRESSES:
        raise TooMany(f"a customer has at most {MAX_ADDRESSES} delivery addresses")
    return await customer_of(connection, account_id)


async def remove_delivery_address(connection: "Connection", account_id: str, delivery_address_id: str) -> Customer:
    """Remove an address, if it is there, and return the customer. Raises CustomerUnknown."""
    await _lock(connection, account_id)
    await connection.execute(
        "DELETE FROM delivery_address WHERE account_id = $1 AND delivery_address_id = $2",
        account_id,
        delivery_address_id,
    )
    return await customer_of(connection, account_id)


async def put_payment_method(connection: "Connection", account_id: str, method: PaymentMethod, token: str) -> Customer:
    """Add or replace what can be charged, and return the customer. Raises CustomerUnknown, TooMany."""
    await _lock(connection, account_id)
    await connection.execute(
        "INSERT INTO payment_method (account_id, payment_method_id, brand, last_four, card_token)"
        " VALUES ($1, $2, $3, $4, $5) ON CONFLICT (account_id, payment_method_id) DO UPDATE"
        " SET brand = excluded.brand, last_four = excluded.last_four, card_token = excluded.card_token",
        account_id,
        method.payment_method_id,
        method.brand,
        method.last_four,
        token,
    )
    count = await connection.fetchval("SELECT count(*) FROM payment_method WHERE account_id = $1", account_id)
    if count > MAX_PAYMENT_METHODS:
        raise TooMany(f"a customer has at most {MAX_PAYMENT_METHODS} payment methods")
    return await customer_of(connection, account_id)


async def remove_payment_method(connection: "Connection", account_id: str, payment_method_id: str) -> Customer:
    """Remove a payment method, if it is there, and return the customer. Raises CustomerUnknown."""
    await _lock(connection, account_id)
    await connection.execute(
        "DELETE FROM payment_method WHERE account_id = $1 AND payment_method_id = $2", account_id, payment_method_id
    )
    return await customer_of(connection, account_id)


async def card_token_of(connection: "Connection", account_id: str, payment_method_id: str) -> str:
    """Read the token of a payment method. Raises PaymentMethodUnknown, also when there is no such customer."""
    token: str | None = await connection.fetchval(
        "SELECT card_token FROM payment_method WHERE account_id = $1 AND payment_method_id = $2",
        account_id,
        payment_method_id,
    )
    if token is None:
        raise PaymentMethodUnknown(f"account {account_id} has no payment method {payment_method_id}")
    return token


async def _lock(connection: "Connection", account_id: str) -> None:
    """Begin a change: count it, and so lock the customer's row, which is made when there is none.

    Raises CustomerUnknown for one that was erased.
    """
    await open_customer(connection, account_id)
    count = "UPDATE customer SET revision = revision + 1 WHERE account_id = $1 RETURNING erased"
    if await connection.fetchval(count, account_id):
        raise CustomerUnknown(f"account {account_id} is closed")


async def _set_billing_address(connection: "Connection", account_id: str, to: Address | None) -> None:
    if to is None:
        await connection.execute("DELETE FROM billing_address WHERE account_id = $1", account_id)
        return
    await connection.execute(_PUT_BILLING_ADDRESS, account_id, *_values(to))


def _address(row: "Record") -> Address:
    return Address(row["recipient"], row["street"], row["city"], row["postal_code"], row["country"])


def _values(to: Address) -> tuple[str, str, str, str, str]:
    return to.recipient, to.street, to.city, to.postal_code, to.country
