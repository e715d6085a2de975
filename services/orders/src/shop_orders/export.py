"""Orders, told again as the events that led to them. Assembled by `assemble.py`."""

from collections.abc import Iterable
from typing import Any

from amends_chassis.export import Exported, ExportedTable

from shop.orders.events.v1.orders_pb2 import (
    OrderConfirmed,
    OrderDispatched,
    OrderPlaced,
    OrderRefunded,
    OrderRejected,
)
from shop.types.v1.types_pb2 import Line, Money
from shop_orders.domain import Fulfilment, OrderState
from shop_orders.store import FULFILMENTS

_SELECT = """
SELECT o.*,
       ARRAY(SELECT sku FROM order_line l WHERE l.order_id = o.order_id ORDER BY sku) AS skus,
       ARRAY(SELECT quantity FROM order_line l WHERE l.order_id = o.order_id ORDER BY sku) AS quantities,
       ARRAY(SELECT unit_minor FROM order_line l WHERE l.order_id = o.order_id ORDER BY sku) AS unit_minors
FROM orders o
"""


def _events(row: Any) -> Iterable[Exported]:
    told_at = row["told_at"]
    yield _placed(row), 1, told_at[0]
    match OrderState(row["state"]):
        case OrderState.CONFIRMED:
            yield _confirmed(row), 2, told_at[1]
        case OrderState.REJECTED:
            yield _rejected(row), 2, told_at[1]
        case OrderState.REFUNDED:
            yield OrderRefunded(order_id=row["order_id"], customer_id=row["customer_id"]), 2, told_at[1]
    if row["version"] > 2:
        yield OrderDispatched(order_id=row["order_id"]), 3, told_at[2]


def _placed(row: Any) -> OrderPlaced:
    currency = row["currency"]
    return OrderPlaced(
        order_id=row["order_id"],
        customer_id=row["customer_id"],
        lines=[Line(sku=sku, quantity=quantity) for sku, quantity in zip(row["skus"], row["quantities"], strict=True)],
        total=Money(currency=currency, minor=row["total_minor"]),
        fulfilment=FULFILMENTS[Fulfilment(row["fulfilment"])],
        unit_prices=[Money(currency=currency, minor=minor) for minor in row["unit_minors"]],
    )


def _confirmed(row: Any) -> OrderConfirmed:
    return OrderConfirmed(
        order_id=row["order_id"],
        tracking_id=row["tracking_id"],
        payment_id=row["payment_id"],
        customer_id=row["customer_id"],
        total=Money(currency=row["currency"], minor=row["total_minor"]),
        fulfilment=FULFILMENTS[Fulfilment(row["fulfilment"])],
    )


def _rejected(row: Any) -> OrderRejected:
    return OrderRejected(
        order_id=row["order_id"],
        reason=row["reason"],
        customer_id=row["customer_id"],
        fulfilment=FULFILMENTS[Fulfilment(row["fulfilment"])],
        code=row["code"] or "",
    )


EXPORTED = (ExportedTable(_SELECT, "o.order_id", _events),)
