"""Parcels, told again as the events that led to them. Assembled by `__main__.py`."""

from collections.abc import Iterable
from typing import Any

from amends_chassis.export import Exported, ExportedTable

from shop.shipping.events.v1.shipping_pb2 import ParcelBooked, ParcelCancelled, ParcelHandedOver, ParcelRefused
from shop_shipping.domain import ShipmentState


def _parcel(row: Any) -> Iterable[Exported]:
    order_id, tracking_id, told_at = row["order_id"], row["tracking_id"], row["told_at"]
    carrier, country = row["carrier"], row["country"]
    yield ParcelBooked(order_id=order_id, tracking_id=tracking_id, carrier=carrier, country=country), 1, told_at[0]
    match ShipmentState(row["state"]):
        case ShipmentState.CANCELLED:
            yield ParcelCancelled(order_id=order_id, tracking_id=tracking_id), 2, told_at[1]
        case ShipmentState.HANDED_OVER:
            handed_over = ParcelHandedOver(order_id=order_id, tracking_id=tracking_id, carrier=carrier, country=country)
            yield handed_over, 2, told_at[1]


def _refusal(row: Any) -> Iterable[Exported]:
    refused = ParcelRefused(order_id=row["order_id"], reason=row["reason"], message=row["message"])
    yield refused, 1, row["refused_at"]


EXPORTED = (
    ExportedTable("SELECT * FROM shipment", "order_id", _parcel),
    ExportedTable("SELECT * FROM refusal", "order_id", _refusal),
)
