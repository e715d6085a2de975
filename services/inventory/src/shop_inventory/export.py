"""What inventory keeps, told again as the events that led to it. Assembled by `__main__.py`."""

from collections.abc import Iterable
from typing import Any

from amends_chassis.export import Exported, ExportedTable

from shop.inventory.events.v1.inventory_pb2 import StockChanged, StockReleased, StockReserved, StockShort
from shop.types.v1.types_pb2 import Line
from shop_inventory.domain import ReservationState

_RESERVATIONS = """
SELECT r.*,
       ARRAY(SELECT sku FROM movement m WHERE reference = r.order_id AND kind = 'reserve' ORDER BY sku) AS skus,
       ARRAY(SELECT quantity FROM movement m WHERE reference = r.order_id AND kind = 'reserve' ORDER BY sku)
           AS quantities
FROM reservation r
"""


def _reservation(row: Any) -> Iterable[Exported]:
    order_id, told_at = row["order_id"], row["told_at"]
    lines = [Line(sku=sku, quantity=quantity) for sku, quantity in zip(row["skus"], row["quantities"], strict=True)]
    yield StockReserved(order_id=order_id, reservation_id=row["reservation_id"], lines=lines), 1, told_at[0]
    if row["state"] == ReservationState.RELEASED:
        yield StockReleased(order_id=order_id, lines=lines), 2, told_at[1]


def _refusal(row: Any) -> Iterable[Exported]:
    short = StockShort(order_id=row["order_id"], reason=row["reason"], message=row["message"])
    yield short, 1, row["refused_at"]


def _stock(row: Any) -> Iterable[Exported]:
    changed = StockChanged(**{name: row[name] for name in ("sku", "received", "available", "reserved", "sold")})
    if row["version"]:  # else no event has told of it
        yield changed, row["version"], row["changed_at"]


EXPORTED = (
    ExportedTable(_RESERVATIONS, "r.order_id", _reservation),
    ExportedTable("SELECT * FROM refusal", "order_id", _refusal),
    ExportedTable("SELECT * FROM stock", "sku", _stock),
)
