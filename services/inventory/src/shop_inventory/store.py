"""Stock in Postgres: every function is one change inside a transaction that its caller owns.

`api.py` calls it with the barrier's connection (Reserve, Release) or one of its own. Locks are always taken in the
same order: the reservation or delivery, then the articles by name.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING
from uuid import uuid4

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


async def reserve(connection: "Connection", order_id: str, lines: Sequence[Line]) -> str:
    """Keep all lines for the order and return the reservation's id. Raises AlreadyReserved, SkuUnknown, OutOfStock."""
    reservation_id = await connection.fetchval(
        "INSERT INTO reservation (order_id, reservation_id, state) VALUES ($1, $2, 'held')"
        " ON CONFLICT (order_id) DO NOTHING RETURNING reservation_id",
        order_id,
        f"res_{uuid4().hex}",
    )
    if reservation_id is None:
        raise AlreadyReserved(f"order {order_id} was reserved before")
    await _move(connection, Movement.RESERVE, order_id, lines)
    return str(reservation_id)


async def release(connection: "Connection", order_id: str) -> None:
    """Give back what is kept for the order; again: nothing. Raises NotReserved when it is unknown or has left."""
    match await _lock_reservation(connection, order_id):
        case ReservationState.HELD:
            await _end(connection, order_id, ReservationState.RELEASED, Movement.RELEASE)
        case ReservationState.DISPATCHED:
            raise NotReserved(f"what was kept for order {order_id} has left the warehouse")


async def dispatch(connection: "Connection", order_id: str) -> None:
    """Sell what is kept for the order; again: nothing. Raises NotReserved when it is unknown or was released."""
    match await _lock_reservation(connection, order_id):
        case ReservationState.HELD:
            await _end(connection, order_id, ReservationState.DISPATCHED, Movement.DISPATCH)
        case ReservationState.RELEASED:
            raise NotReserved(f"what was kept for order {order_id} was released")


async def receive(connection: "Connection", delivery_id: str, lines: Sequence[Line]) -> None:
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
    await _move(connection, Movement.RECEIVE, delivery_id, lines)


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


async def _end(connection: "Connection", order_id: str, state: ReservationState, movement: Movement) -> None:
    await connection.execute("UPDATE reservation SET state = $2 WHERE order_id = $1", order_id, state)
    await _move(connection, movement, order_id, await _moved(connection, Movement.RESERVE, order_id))


async def _moved(connection: "Connection", movement: Movement, reference: str) -> tuple[Line, ...]:
    rows = await connection.fetch(
        "SELECT sku, quantity FROM movement WHERE reference = $1 AND kind = $2 ORDER BY sku", reference, movement
    )
    return tuple(Line(**row) for row in rows)


async def _move(connection: "Connection", movement: Movement, reference: str, lines: Sequence[Line]) -> None:
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
        "UPDATE stock SET received = a.received, available = a.available, reserved = a.reserved, sold = a.sold"
        " FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[])"
        " AS a (sku, received, available, reserved, sold) WHERE stock.sku = a.sku",
        skus,
        [each.received for each in after],
        [each.available for each in after],
        [each.reserved for each in after],
        [each.sold for each in after],
    )
    await connection.execute(
        "INSERT INTO movement (reference, kind, sku, quantity)"
        " SELECT $1, $2, line.* FROM unnest($3::text[], $4::bigint[]) AS line",
        reference,
        movement,
        skus,
        [line.quantity for line in lines],
    )
