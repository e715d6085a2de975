"""Stock in Postgres: every function is one change inside a transaction that its caller owns.

`api.py` calls it with the barrier's connection (Reserve, Release) or one of its own. What others are to hear of a
change is written into the outbox by the statement that makes it. Locks are always taken in the same order: the
reservation or delivery, then the articles by name.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING
from uuid import uuid4

from amends_events import with_event, with_events

from shop.inventory.events.v1.inventory_pb2 import StockChanged, StockReleased, StockReserved, StockShort
from shop.types.v1 import types_pb2
from shop_inventory.domain import (
    AlreadyReserved,
    DeliveryReused,
    Line,
    Movement,
    NotReserved,
    ReservationState,
    SkuUnknown,
    Stock,
)

if TYPE_CHECKING:
    from amends_chassis.database import Connection
    from amends_events import Outbox


_RESERVE = with_event(
    "INSERT INTO reservation (order_id, reservation_id, state) VALUES ($1, $2, 'held')"
    " ON CONFLICT (order_id) DO NOTHING RETURNING version, told_at[version] AS occurred_at",
    2,
    timed=True,
)
_RELEASE = with_event(
    "UPDATE reservation SET state = 'released', version = version + 1, told_at = told_at || clock_timestamp()"
    " WHERE order_id = $1 RETURNING version, told_at[version] AS occurred_at",
    1,
    timed=True,
)
_REFUSE = with_event(
    "INSERT INTO refusal (order_id, reason, message) VALUES ($1, $2, $3)"
    " ON CONFLICT (order_id) DO NOTHING RETURNING 1::bigint AS version, refused_at AS occurred_at",
    3,
    timed=True,
)
_CHANGE_STOCK = with_events(
    "UPDATE stock SET received = a.received, available = a.available, reserved = a.reserved, sold = a.sold,"
    " version = version + 1, changed_at = clock_timestamp()"
    " FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[])"
    " AS a (sku, received, available, reserved, sold) WHERE stock.sku = a.sku RETURNING stock.sku AS key, version,"
    " changed_at AS occurred_at",
    5,
    timed=True,
)


async def reserve(connection: "Connection", outbox: "Outbox", order_id: str, lines: Sequence[Line]) -> str:
    """Keep all lines for the order and return the reservation's id. Raises AlreadyReserved, SkuUnknown, OutOfStock."""
    reservation_id = f"res_{uuid4().hex}"
    reserved = outbox.row(StockReserved(order_id=order_id, reservation_id=reservation_id, lines=_told(lines)))
    if await connection.fetchval(_RESERVE, order_id, reservation_id, *reserved.values) is None:
        raise AlreadyReserved(f"order {order_id} was reserved before")
    await _move(connection, outbox, Movement.RESERVE, order_id, lines)
    return reservation_id


async def refuse(connection: "Connection", outbox: "Outbox", order_id: str, reason: str, message: str) -> None:
    """Write down that stock cannot be kept for a choreographed order; again: nothing."""
    short = outbox.row(StockShort(order_id=order_id, reason=reason, message=message))
    await connection.execute(_REFUSE, order_id, reason, message, *short.values)


async def release(connection: "Connection", outbox: "Outbox", order_id: str) -> None:
    """Give back what is kept for the order; again: nothing. Raises NotReserved when it is unknown or has left."""
    match await _lock_reservation(connection, order_id):
        case ReservationState.HELD:
            lines = await _moved(connection, Movement.RESERVE, order_id)
            released = outbox.row(StockReleased(order_id=order_id, lines=_told(lines)))
            await connection.execute(_RELEASE, order_id, *released.values)
            await _move(connection, outbox, Movement.RELEASE, order_id, lines)
        case ReservationState.DISPATCHED:
            raise NotReserved(f"what was kept for order {order_id} has left the warehouse")


async def dispatch(connection: "Connection", outbox: "Outbox", order_id: str) -> None:
    """Sell what is kept for the order; again: nothing. Raises NotReserved when it is unknown or was released."""
    match await _lock_reservation(connection, order_id):
        case ReservationState.HELD:
            await connection.execute(
                "UPDATE reservation SET state = 'dispatched', version = version + 1,"
                " told_at = told_at || clock_timestamp() WHERE order_id = $1",
                order_id,
            )
            lines = await _moved(connection, Movement.RESERVE, order_id)
            await _move(connection, outbox, Movement.DISPATCH, order_id, lines)
        case ReservationState.RELEASED:
            raise NotReserved(f"what was kept for order {order_id} was released")


async def receive(connection: "Connection", outbox: "Outbox", delivery_id: str, lines: Sequence[Line]) -> None:
    """Add a delivery; the same one again adds nothing. Raises DeliveryReused when it had other lines before."""
    is_new = await connection.fetchval(
        "INSERT INTO delivery (delivery_id) VALUES ($1) ON CONFLICT DO NOTHING RETURNING true", delivery_id
    )
    if not is_new:
        if await _moved(connection, Movement.RECEIVE, delivery_id) != tuple(lines):
            raise DeliveryReused(f"delivery {delivery_id} was received before, with other lines")
        return
    await connection.execute(
        "INSERT INTO stock (sku) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING", [line.sku for line in lines]
    )
    await _move(connection, outbox, Movement.RECEIVE, delivery_id, lines)


async def stock_of(connection: "Connection", sku: str) -> Stock:
    """Read the stock of one article. Raises SkuUnknown."""
    row = await connection.fetchrow("SELECT sku, received, available, reserved, sold FROM stock WHERE sku = $1", sku)
    if row is None:
        raise SkuUnknown(f"there is no article {sku}")
    return Stock(**row)


async def _lock_reservation(connection: "Connection", order_id: str) -> ReservationState:
    state = await connection.fetchval("SELECT state FROM reservation WHERE order_id = $1 FOR UPDATE", order_id)
    if state is None:
        raise NotReserved(f"nothing is reserved for order {order_id}")
    return ReservationState(state)


async def _moved(connection: "Connection", movement: Movement, reference: str) -> tuple[Line, ...]:
    rows = await connection.fetch(
        "SELECT sku, quantity FROM movement WHERE reference = $1 AND kind = $2 ORDER BY sku", reference, movement
    )
    return tuple(Line(**row) for row in rows)


def _told(lines: Sequence[Line]) -> list[types_pb2.Line]:
    return [types_pb2.Line(sku=line.sku, quantity=line.quantity) for line in lines]


async def _move(
    connection: "Connection", outbox: "Outbox", movement: Movement, reference: str, lines: Sequence[Line]
) -> None:
    """Lock the articles by name, apply the movement to each and log it."""
    skus = [line.sku for line in lines]
    # FOR NO KEY UPDATE: the foreign keys of other orders' movements need not wait for this one.
    rows = await connection.fetch(
        "SELECT sku, received, available, reserved, sold FROM stock WHERE sku = ANY($1::text[])"
        " ORDER BY sku FOR NO KEY UPDATE",
        skus,
    )
    stock = {row["sku"]: Stock(**row) for row in rows}
    if missing := [sku for sku in skus if sku not in stock]:
        raise SkuUnknown(f"there is no article {missing[0]}")
    after = [stock[line.sku].apply(movement, line.quantity) for line in lines]
    await connection.execute(
        _CHANGE_STOCK,
        skus,
        [each.received for each in after],
        [each.available for each in after],
        [each.reserved for each in after],
        [each.sold for each in after],
        *outbox.rows(
            StockChanged(
                sku=each.sku,
                received=each.received,
                available=each.available,
                reserved=each.reserved,
                sold=each.sold,
            )
            for each in after
        ),
    )
    await connection.execute(
        "INSERT INTO movement (reference, kind, sku, quantity)"
        " SELECT $1, $2, line.* FROM unnest($3::text[], $4::bigint[]) AS line",
        reference,
        movement,
        skus,
        [line.quantity for line in lines],
    )
