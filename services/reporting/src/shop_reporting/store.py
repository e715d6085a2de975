"""Reads of the views, which show the projection that serves. Every function is one query. `api.py` calls it."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any

from amends_chassis.database import Executes

from shop_reporting.domain import OrderUnknown, Period


async def sales(
    connection: Executes, period: Period, currency: str, after: tuple[date, str] | None, limit: int
) -> Sequence[Any]:
    """Read up to `limit` sums, newest day first, then by currency; an empty currency means all."""
    day, name = after or (None, None)
    return await connection.fetch(
        "SELECT * FROM sales WHERE day BETWEEN $1 AND $2 AND ($3 = '' OR currency = $3)"
        " AND ($4::date IS NULL OR day < $4 OR (day = $4 AND currency > $5))"
        " ORDER BY day DESC, currency LIMIT $6",
        period.first,
        period.last,
        currency,
        day,
        name,
        limit,
    )


async def funnel(connection: Executes, period: Period) -> Sequence[Any]:
    """Count how far the orders of a period came, by the way they are fulfilled."""
    return await connection.fetch(
        "SELECT fulfilment, sum(placed)::bigint AS placed, sum(reserved)::bigint AS reserved,"
        " sum(taken)::bigint AS paid, sum(booked)::bigint AS booked, sum(confirmed)::bigint AS confirmed,"
        " sum(rejected)::bigint AS rejected, sum(order_refunded)::bigint AS refunded,"
        " sum(dispatched)::bigint AS dispatched"
        " FROM funnel WHERE day BETWEEN $1 AND $2 GROUP BY fulfilment ORDER BY fulfilment",
        period.first,
        period.last,
    )


async def undone(connection: Executes, period: Period, after: tuple[date, str] | None, limit: int) -> Sequence[Any]:
    """Read up to `limit` sums, newest day first, then by reason."""
    day, code = after or (None, None)
    return await connection.fetch(
        "SELECT * FROM undone WHERE day BETWEEN $1 AND $2"
        " AND ($3::date IS NULL OR day < $3 OR (day = $3 AND code > $4)) ORDER BY day DESC, code LIMIT $5",
        period.first,
        period.last,
        day,
        code,
        limit,
    )


async def open_orders(
    connection: Executes, stuck_after: timedelta, stuck: bool, after: tuple[datetime, str] | None, limit: int
) -> Sequence[Any]:
    """Read up to `limit` orders in which something is still to come, the oldest first: all, or those that are stuck."""
    since, order_id = after or (None, None)
    return await connection.fetch(
        "SELECT *, open_since < now() - $1::interval AS stuck FROM order_process"
        " WHERE open_since < CASE WHEN $2 THEN now() - $1::interval ELSE 'infinity' END"
        " AND ($3::timestamptz IS NULL OR (open_since, order_id) > ($3, $4)) ORDER BY open_since, order_id LIMIT $5",
        stuck_after,
        stuck,
        since,
        order_id,
        limit,
    )


async def order(connection: Executes, order_id: str, stuck_after: timedelta) -> Any:
    """Read where one order stands. Raises OrderUnknown."""
    row = await connection.fetchrow(
        "SELECT *, coalesce(open_since < now() - $2::interval, false) AS stuck FROM order_process WHERE order_id = $1",
        order_id,
        stuck_after,
    )
    if row is None:
        raise OrderUnknown(f"nobody has told of order {order_id}")
    return row
