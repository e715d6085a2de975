"""Slots and parcels in Postgres: every function is one change inside a transaction that its caller owns.

`api.py` calls it with the barrier's connection (Book) or one of its own. What others are to hear of a change is written
into the outbox by the statement that makes it.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

from amends_events import with_event

from shop.shipping.events.v1.shipping_pb2 import ParcelBooked, ParcelCancelled, ParcelHandedOver, ParcelRefused
from shop_shipping import domain
from shop_shipping.domain import (
    Address,
    AlreadyBooked,
    Line,
    ParcelGone,
    ParcelReused,
    Shipment,
    ShipmentState,
    ShipmentUnknown,
    Slots,
)

if TYPE_CHECKING:
    import asyncpg
    from amends_chassis.database import Connection
    from amends_events import Outbox


_SHIP = with_event(
    "INSERT INTO shipment (tracking_id, order_id, carrier, recipient, street, city, postal_code, country)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (order_id) DO NOTHING"
    " RETURNING version, told_at[version] AS occurred_at",
    8,
    timed=True,
)
_REFUSE = with_event(
    "INSERT INTO refusal (order_id, reason, message) VALUES ($1, $2, $3)"
    " ON CONFLICT (order_id) DO NOTHING RETURNING 1::bigint AS version, refused_at AS occurred_at",
    3,
    timed=True,
)

_CANCEL = with_event(
    "UPDATE shipment SET state = 'cancelled', version = version + 1, told_at = told_at || clock_timestamp()"
    " WHERE tracking_id = $1 RETURNING version, told_at[version] AS occurred_at",
    1,
    timed=True,
)
_HAND_OVER = with_event(
    "UPDATE shipment SET state = 'handed_over', version = version + 1, told_at = told_at || clock_timestamp()"
    " WHERE tracking_id = $1 RETURNING version, told_at[version] AS occurred_at",
    1,
    timed=True,
)
_ANNOUNCE = """
INSERT INTO announced_parcel
    (order_id, recipient, street, city, postal_code, country, skus, quantities, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, now() + $9::interval)
ON CONFLICT (order_id) DO UPDATE SET expires_at = greatest(announced_parcel.expires_at, excluded.expires_at)
RETURNING recipient, street, city, postal_code, country, skus, quantities
"""


async def book(
    connection: "Connection", outbox: "Outbox", order_id: str, address: Address, lines: Sequence[Line]
) -> tuple[str, str]:
    """Take a slot for the order's parcel and return its tracking id and carrier.

    Raises AlreadyBooked, NotServed, NoSlot.
    """
    # All carriers of the country, always by name: bookings to one country wait for each other and cannot deadlock,
    # and none says "full" while another carrier still has room.
    rows = await connection.fetch(
        "SELECT carrier, country, available, booked FROM slots WHERE country = $1 ORDER BY carrier FOR NO KEY UPDATE",
        address.country,
    )
    carrier = domain.choose(address.country, [Slots(**row) for row in rows]).carrier
    await connection.execute(
        "UPDATE slots SET available = available - 1, booked = booked + 1 WHERE country = $1 AND carrier = $2",
        address.country,
        carrier,
    )
    tracking_id = await _ship(connection, outbox, order_id, carrier, address)
    await connection.execute(
        "INSERT INTO shipment_line (tracking_id, position, sku, quantity)"
        " SELECT $1, ordinality, sku, quantity"
        " FROM unnest($2::text[], $3::int[]) WITH ORDINALITY AS l (sku, quantity, ordinality)",
        tracking_id,
        [line.sku for line in lines],
        [line.quantity for line in lines],
    )
    return tracking_id, carrier


async def _ship(connection: "Connection", outbox: "Outbox", order_id: str, carrier: str, address: Address) -> str:
    tracking_id = f"trk_{uuid4().hex}"
    booked = outbox.row(
        ParcelBooked(order_id=order_id, tracking_id=tracking_id, carrier=carrier, country=address.country)
    )
    is_new = await connection.fetchval(
        _SHIP,
        tracking_id,
        order_id,
        carrier,
        address.recipient,
        address.street,
        address.city,
        address.postal_code,
        address.country,
        *booked.values,
    )
    if not is_new:
        raise AlreadyBooked(f"order {order_id} was shipped before")
    return tracking_id


async def refuse(connection: "Connection", outbox: "Outbox", order_id: str, reason: str, message: str) -> None:
    """Write down that no parcel can be booked for a choreographed order; again: nothing."""
    refused = outbox.row(ParcelRefused(order_id=order_id, reason=reason, message=message))
    await connection.execute(_REFUSE, order_id, reason, message, *refused.values)


async def announce_parcel(
    connection: "Connection", order_id: str, address: Address, lines: Sequence[Line], keep_for: timedelta
) -> None:
    """Note which parcel the order will need; again: for longer. Raises ParcelReused when it is another one."""
    row = await connection.fetchrow(
        _ANNOUNCE,
        order_id,
        address.recipient,
        address.street,
        address.city,
        address.postal_code,
        address.country,
        [line.sku for line in lines],
        [line.quantity for line in lines],
        keep_for,
    )
    assert row is not None
    if _announced(row) != (address, tuple(lines)):
        raise ParcelReused(f"another parcel is announced for order {order_id}")


async def announced_parcel_of(connection: "Connection", order_id: str) -> tuple[Address, tuple[Line, ...]] | None:
    """Return where the announced parcel of an order goes, and what is in it; None without one, or too late."""
    row = await connection.fetchrow(
        "SELECT * FROM announced_parcel WHERE order_id = $1 AND expires_at > now()", order_id
    )
    return None if row is None else _announced(row)


def _announced(row: "asyncpg.Record") -> tuple[Address, tuple[Line, ...]]:
    address = Address(row["recipient"], row["street"], row["city"], row["postal_code"], row["country"])
    lines = (Line(sku, quantity) for sku, quantity in zip(row["skus"], row["quantities"], strict=True))
    return address, tuple(lines)


async def forget_announced_parcel(connection: "Connection", order_id: str) -> None:
    """Forget the parcel that was announced for an order, which is booked, or never will be."""
    await connection.execute("DELETE FROM announced_parcel WHERE order_id = $1", order_id)


async def forget_expired_parcels(connection: "Connection") -> None:
    """Forget the announced parcels whose time is over."""
    await connection.execute("DELETE FROM announced_parcel WHERE expires_at <= now()")


async def cancel(connection: "Connection", outbox: "Outbox", order_id: str) -> None:
    """Call the order's parcel off and give its slot back; again: nothing. Raises ShipmentUnknown, ParcelGone."""
    parcel = await _lock_shipment(connection, order_id)
    if parcel is None:
        raise ShipmentUnknown(f"order {order_id} has no parcel")
    if parcel["state"] == ShipmentState.HANDED_OVER:
        raise ParcelGone(f"the carrier has the parcel of order {order_id}")
    if parcel["state"] == ShipmentState.BOOKED:
        cancelled = outbox.row(ParcelCancelled(order_id=order_id, tracking_id=parcel["tracking_id"]))
        await connection.execute(_CANCEL, parcel["tracking_id"], *cancelled.values)
        await connection.execute(
            "UPDATE slots SET available = available + 1, booked = booked - 1 WHERE country = $1 AND carrier = $2",
            parcel["country"],
            parcel["carrier"],
        )


async def hand_over(connection: "Connection", outbox: "Outbox", order_id: str) -> None:
    """Note that the carrier has the order's parcel; again, or without a parcel that is booked: nothing."""
    parcel = await _lock_shipment(connection, order_id)
    if parcel is not None and parcel["state"] == ShipmentState.BOOKED:
        handed_over = outbox.row(
            ParcelHandedOver(
                order_id=order_id,
                tracking_id=parcel["tracking_id"],
                carrier=parcel["carrier"],
                country=parcel["country"],
            )
        )
        await connection.execute(_HAND_OVER, parcel["tracking_id"], *handed_over.values)


async def _lock_shipment(connection: "Connection", order_id: str) -> "asyncpg.Record | None":
    return await connection.fetchrow(
        "SELECT tracking_id, carrier, country, state FROM shipment WHERE order_id = $1 FOR UPDATE", order_id
    )


async def shipment_of(connection: "Connection", order_id: str) -> Shipment:
    """Read the parcel of an order. Raises ShipmentUnknown."""
    row = await connection.fetchrow(
        "SELECT tracking_id, carrier, recipient, street, city, postal_code, country, booked_at FROM shipment"
        " WHERE order_id = $1 AND state <> 'cancelled'",
        order_id,
    )
    if row is None:
        raise ShipmentUnknown(f"order {order_id} has no parcel")
    address = Address(row["recipient"], row["street"], row["city"], row["postal_code"], row["country"])
    return Shipment(row["tracking_id"], order_id, row["carrier"], address, row["booked_at"])


async def set_slots(connection: "Connection", capacity: Slots) -> None:
    """Set how many parcels the carrier can still take to the country; what is booked stays booked."""
    await connection.execute(
        "INSERT INTO slots (country, carrier, available) VALUES ($1, $2, $3)"
        " ON CONFLICT (country, carrier) DO UPDATE SET available = excluded.available",
        capacity.country,
        capacity.carrier,
        capacity.available,
    )


async def all_slots(connection: "Connection") -> list[Slots]:
    """Read the capacity of all carriers, by country and carrier."""
    rows = await connection.fetch("SELECT carrier, country, available, booked FROM slots ORDER BY country, carrier")
    return [Slots(**row) for row in rows]
