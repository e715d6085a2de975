"""The books of the shop: what its databases and the orchestrator's say, and not what a service says of them.

`laws.py` judges them. Orders and runs are read first, because what is said about an ended order stays true: an order
that is rejected was paid back before, and nobody charges it later. A choreographed order is undone upon the event that
says so, hence moments later. So a shop may be checked while it works.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeAlias

import asyncpg

DatabaseConnection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Lines: TypeAlias = Mapping[str, int]
"""Pieces by article."""

DATABASES = ("orders", "orchestrator", "reporting", "payments", "inventory", "shipping")
PUBLISHERS = ("orders", "payments", "inventory", "shipping")
LATE = timedelta(seconds=5)
"""An event is published within milliseconds while its broker is there."""
COMPENSATING, PARKED, COMPLETED, COMPENSATED = 2, 3, 4, 5
"""amends.saga.v1.RunState as the orchestrator stores it."""
CONNECT = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class OrderRow:
    """An order as the orders service keeps it."""

    state: str
    total: tuple[str, int]
    """Currency and minor units."""
    tracking_id: str
    payment_id: str
    attention: str
    has_token: bool
    is_finished: bool
    """Nothing is left to do: a confirmed order's stock has left."""
    fulfilment: str
    is_new: bool
    """Choreographed, and ended so lately that perhaps not everybody has heard of it."""
    lines: Lines


@dataclass(frozen=True, slots=True)
class PaymentRow:
    """A payment with its entries in the ledger, in their order."""

    payment_id: str
    state: str
    amount: tuple[str, int]
    entries: Sequence[str]
    is_new: bool
    """Perhaps charged after the orders were read, or charged or refunded too lately to be in the report."""


@dataclass(frozen=True, slots=True)
class Reported:
    """The payments that the report has."""

    taken: Mapping[str, tuple[str, int]]
    """By the order's id."""
    refunded: Mapping[str, tuple[str, int]]
    sums: Mapping[str, int]
    """Currency to what was taken less what was refunded, as the sums of its days say."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """A reservation in the inventory, kept or sold for an order."""

    state: str
    lines: Lines


@dataclass(frozen=True, slots=True)
class ShipmentRow:
    """A parcel that shipping has booked for an order."""

    tracking_id: str
    carrier: tuple[str, str]
    """Country and carrier."""
    lines: Lines


@dataclass(frozen=True, slots=True)
class StockRow:
    """All there is of one article, and what its movements sum to."""

    received: int
    available: int
    reserved: int
    sold: int
    delivered: int
    """The sum of its deliveries."""


@dataclass(frozen=True, slots=True)
class Books:
    """Everything. Orders, payments, reservations, shipments and runs are by the order's id."""

    orders: Mapping[str, OrderRow]
    runs: Mapping[str, int]
    """The state of the run."""
    gaps: Sequence[str]
    """Orders whose run's journal has a gap."""
    payments: Mapping[str, PaymentRow]
    unbalanced: Sequence[str]
    """Ledger entries whose postings do not sum to zero."""
    balances: Mapping[tuple[str, str], int]
    """Account and currency to minor units."""
    stock: Mapping[str, StockRow]
    reservations: Mapping[str, Reservation]
    shipments: Mapping[str, ShipmentRow]
    slots: Mapping[tuple[str, str], int]
    """Country and carrier to parcels booked."""
    reported: Reported
    """Read before the payments, so that it has none that they do not have."""
    late_events: Mapping[str, int]
    """The services whose events wait, with how many of them have waited for longer than LATE."""

    @property
    def is_empty(self) -> bool:
        """Return whether nothing was ever ordered, paid or run."""
        return not (self.orders or self.runs or self.payments)

    @property
    def is_settled(self) -> bool:
        """Return whether nothing is on its way: no order is pending, and what was sold has left the shelf."""
        pending = any(order.state == "pending" for order in self.orders.values())
        return not pending and not any(one.reserved for one in self.stock.values())


@asynccontextmanager
async def opened(databases: Mapping[str, str]) -> AsyncIterator[dict[str, DatabaseConnection]]:
    """Open the six databases (name to URL) for reading, each as it is at its first statement.

    Raises OSError, asyncpg.PostgresError.
    """
    async with AsyncExitStack() as stack:
        connections: dict[str, DatabaseConnection] = {}
        for name in DATABASES:
            connection = await asyncpg.connect(databases[name], timeout=CONNECT.total_seconds())
            stack.push_async_callback(connection.close)
            await stack.enter_async_context(connection.transaction(isolation="repeatable_read", readonly=True))
            connections[name] = connection
        yield connections


async def read(databases: Mapping[str, str]) -> Books:
    """Read the books from the databases (name to URL). Raises OSError, asyncpg.PostgresError."""
    async with opened(databases) as connections:
        return await read_from(connections)


async def read_from(connections: Mapping[str, DatabaseConnection]) -> Books:
    """Read the books through open connections, by the names of `DATABASES`."""
    orders, inventory = connections["orders"], connections["inventory"]
    payments, shipping = connections["payments"], connections["shipping"]
    began = await orders.fetchval("SELECT clock_timestamp() - interval '5 seconds'")
    found_orders = await _orders(orders)
    runs, gaps = await _runs(connections["orchestrator"])
    reported = await _reported(connections["reporting"])
    return Books(
        orders=found_orders,
        runs=runs,
        gaps=gaps,
        payments=await _payments(payments, began),
        unbalanced=[
            row["entry_id"]
            for row in await payments.fetch(
                "SELECT entry_id FROM entry LEFT JOIN posting USING (entry_id) GROUP BY entry_id"
                " HAVING coalesce(sum(minor), 1) <> 0"
            )
        ],
        balances={
            (row["account"], row["currency"]): int(row["minor"])
            for row in await payments.fetch(
                "SELECT account, currency, sum(minor) AS minor FROM posting JOIN entry USING (entry_id)"
                " GROUP BY account, currency"
            )
        },
        stock=await _stock(inventory),
        reservations=await _reservations(inventory),
        shipments=await _shipments(shipping),
        slots={
            (row["country"], row["carrier"]): row["booked"]
            for row in await shipping.fetch("SELECT country, carrier, booked FROM slots")
        },
        reported=reported,
        late_events=await _late_events(connections),
    )


async def _late_events(connections: Mapping[str, DatabaseConnection]) -> dict[str, int]:
    found = {
        name: await connections[name].fetchval(
            "SELECT count(*) FROM outbox WHERE occurred_at < now() - $1::interval", LATE
        )
        for name in PUBLISHERS
    }
    return {name: waiting for name, waiting in found.items() if waiting}


async def _orders(connection: DatabaseConnection) -> dict[str, OrderRow]:
    lines = await _lines(connection, "SELECT order_id AS owner, sku, quantity FROM order_line")
    rows = await connection.fetch(
        "SELECT order_id, state, currency, total_minor, coalesce(tracking_id, '') AS tracking_id,"
        " coalesce(payment_id, '') AS payment_id, coalesce(attention, '') AS attention,"
        " card_token IS NOT NULL AS has_token, follow_up_at IS NULL AS is_finished, fulfilment,"
        " fulfilment = 'choreographed' AND coalesce(ended_at > now() - $1::interval, false) AS is_new FROM orders",
        LATE,
    )
    return {
        row["order_id"]: OrderRow(
            row["state"],
            (row["currency"], row["total_minor"]),
            row["tracking_id"],
            row["payment_id"],
            row["attention"],
            row["has_token"],
            row["is_finished"],
            row["fulfilment"],
            row["is_new"],
            lines.get(row["order_id"], {}),
        )
        for row in rows
    }


async def _runs(connection: DatabaseConnection) -> tuple[dict[str, int], list[str]]:
    rows = await connection.fetch(
        "SELECT idempotency_key, state FROM run WHERE namespace = 'shop' AND saga = 'place-order'"
    )
    gaps = await connection.fetch(
        "SELECT idempotency_key FROM run JOIN journal ON run_id = id WHERE namespace = 'shop' AND saga = 'place-order'"
        " GROUP BY id, idempotency_key HAVING min(seq) <> 1 OR max(seq) <> count(*)"
    )
    return {row["idempotency_key"]: row["state"] for row in rows}, [row["idempotency_key"] for row in gaps]


async def _payments(connection: DatabaseConnection, began: Any) -> dict[str, PaymentRow]:
    rows = await connection.fetch(
        "SELECT order_id, payment_id, state, currency, minor, told_at[version] >= $1 AS is_new,"
        " ARRAY(SELECT kind FROM entry e WHERE e.payment_id = p.payment_id ORDER BY at, kind) AS entries"
        " FROM payment p",
        began,
    )
    return {
        row["order_id"]: PaymentRow(
            row["payment_id"], row["state"], (row["currency"], row["minor"]), row["entries"], row["is_new"]
        )
        for row in rows
    }


async def _reported(connection: DatabaseConnection) -> Reported:
    """Read what reporting makes of payments; nothing before it has its first projection."""
    if await connection.fetchval("SELECT to_regclass('sales')") is None:
        return Reported({}, {}, {})
    rows = await connection.fetch(
        "SELECT order_id, taken_currency, taken_minor, refunded_currency, refunded_minor FROM order_process"
    )
    sums = await connection.fetch(
        "SELECT currency, sum(taken_minor - refunded_minor)::bigint AS minor FROM sales GROUP BY currency"
    )
    of_days = {row["currency"]: row["minor"] for row in sums}
    return Reported(_amounts(rows, "taken"), _amounts(rows, "refunded"), of_days)


def _amounts(rows: Iterable[Any], what: str) -> dict[str, tuple[str, int]]:
    return {row["order_id"]: (row[f"{what}_currency"], row[f"{what}_minor"]) for row in rows if row[f"{what}_currency"]}


async def _stock(connection: DatabaseConnection) -> dict[str, StockRow]:
    rows = await connection.fetch(
        "SELECT sku, received, available, reserved, sold, (SELECT coalesce(sum(quantity), 0)::bigint FROM movement m"
        " WHERE m.sku = s.sku AND kind = 'receive') AS delivered FROM stock s"
    )
    return {
        row["sku"]: StockRow(row["received"], row["available"], row["reserved"], row["sold"], row["delivered"])
        for row in rows
    }


async def _reservations(connection: DatabaseConnection) -> dict[str, Reservation]:
    lines = await _lines(connection, "SELECT reference AS owner, sku, quantity FROM movement WHERE kind = 'reserve'")
    rows = await connection.fetch("SELECT order_id, state FROM reservation")
    return {row["order_id"]: Reservation(row["state"], lines.get(row["order_id"], {})) for row in rows}


async def _shipments(connection: DatabaseConnection) -> dict[str, ShipmentRow]:
    lines = await _lines(connection, "SELECT tracking_id AS owner, sku, quantity FROM shipment_line")
    rows = await connection.fetch(
        "SELECT order_id, tracking_id, country, carrier FROM shipment WHERE state <> 'cancelled'"
    )
    return {
        row["order_id"]: ShipmentRow(
            row["tracking_id"], (row["country"], row["carrier"]), lines.get(row["tracking_id"], {})
        )
        for row in rows
    }


async def _lines(connection: DatabaseConnection, query: str) -> dict[str, dict[str, int]]:
    """Return pieces by article for each owner; the lines of one article are added up."""
    found: dict[str, dict[str, int]] = {}
    for row in await connection.fetch(query):
        pieces = found.setdefault(row["owner"], {})
        pieces[row["sku"]] = pieces.get(row["sku"], 0) + row["quantity"]
    return found
