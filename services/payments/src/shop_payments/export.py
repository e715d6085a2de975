"""Payments, told again as the events that led to them. Assembled by `__main__.py`."""

from collections.abc import Iterable
from typing import Any

from amends_chassis.export import Exported, ExportedTable

from shop.payments.events.v1.payments_pb2 import PaymentFailed, PaymentRefunded, PaymentTaken
from shop.types.v1.types_pb2 import Money
from shop_payments.domain import PaymentState


def _payment(row: Any) -> Iterable[Exported]:
    order_id, payment_id, told_at = row["order_id"], row["payment_id"], row["told_at"]
    amount = Money(currency=row["currency"], minor=row["minor"])
    yield PaymentTaken(order_id=order_id, payment_id=payment_id, amount=amount), 1, told_at[0]
    if row["state"] == PaymentState.REFUNDED:
        refunded = PaymentRefunded(order_id=order_id, payment_id=payment_id, refund_id=row["refund_id"], amount=amount)
        yield refunded, 2, told_at[1]


def _refusal(row: Any) -> Iterable[Exported]:
    failed = PaymentFailed(order_id=row["order_id"], reason=row["reason"], message=row["message"])
    yield failed, 1, row["refused_at"]


EXPORTED = (
    ExportedTable("SELECT * FROM payment", "order_id", _payment),
    ExportedTable("SELECT * FROM refusal", "order_id", _refusal),
)
