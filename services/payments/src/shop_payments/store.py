"""Payments and the ledger in Postgres: every function is one change inside a transaction that its caller owns.

`api.py` calls it with the barrier's connection (Charge, Refund) or one of its own. What others are to hear of a change
is written into the outbox by the statement that makes it. Balances are sums of postings and
nothing stores them, so that no two charges ever wait for each other.
"""

from typing import TYPE_CHECKING
from uuid import uuid4

from amends_events import with_event

from shop.payments.events.v1.payments_pb2 import PaymentRefunded, PaymentTaken
from shop.types.v1 import types_pb2
from shop_payments import domain
from shop_payments.cards import Card
from shop_payments.domain import (
    Account,
    AlreadyCharged,
    ChargeDisputed,
    Entry,
    Money,
    Payment,
    PaymentState,
    PaymentUnknown,
)

if TYPE_CHECKING:
    from amends_chassis.database import Connection
    from amends_events import Outbox

_PAYMENT = (
    "SELECT payment_id, order_id, currency, minor, state, disputed, charged_at, refund_id FROM payment"
    " WHERE order_id = $1"
)

_CHARGE = with_event(
    "INSERT INTO payment (payment_id, order_id, currency, minor, card_fingerprint, card_last_four, disputed)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (order_id) DO NOTHING RETURNING version",
    7,
)
_REFUND = with_event(
    "UPDATE payment SET state = 'refunded', refund_id = $2, version = version + 1 WHERE payment_id = $1"
    " RETURNING version",
    2,
)


async def charge(connection: "Connection", outbox: "Outbox", order_id: str, amount: Money, card: Card) -> str:
    """Write down that the order was paid and return the payment's id. Raises AlreadyCharged."""
    payment_id = f"pay_{uuid4().hex}"
    taken = outbox.row(PaymentTaken(order_id=order_id, payment_id=payment_id, amount=_amount(amount)))
    is_new = await connection.fetchval(
        _CHARGE,
        payment_id,
        order_id,
        amount.currency,
        amount.minor,
        card.fingerprint,
        card.last_four,
        card.disputes,
        *taken.values,
    )
    if not is_new:
        raise AlreadyCharged(f"order {order_id} was charged before")
    await record(connection, payment_id, domain.charge(amount))
    return payment_id


async def refund(connection: "Connection", outbox: "Outbox", order_id: str) -> str:
    """Write down that the order's money went back and return the refund's id; again: the same id.

    Raises PaymentUnknown, ChargeDisputed.
    """
    payment = await _payment(connection, _PAYMENT + " FOR UPDATE", order_id)
    if payment.refund_id is not None:
        return payment.refund_id
    if payment.disputed:
        raise ChargeDisputed(f"the charge for order {order_id} is disputed and cannot be refunded until that is over")
    refund_id = f"ref_{uuid4().hex}"
    refunded = outbox.row(
        PaymentRefunded(
            order_id=order_id, payment_id=payment.payment_id, refund_id=refund_id, amount=_amount(payment.amount)
        )
    )
    await connection.execute(_REFUND, payment.payment_id, refund_id, *refunded.values)
    await record(connection, payment.payment_id, domain.refund(payment.amount))
    return refund_id


async def record(connection: "Connection", payment_id: str, entry: Entry) -> None:
    """Append an entry to the ledger. The database checks at commit that its postings sum to zero."""
    entry_id = f"ent_{uuid4().hex}"
    await connection.execute(
        "INSERT INTO entry (entry_id, payment_id, kind, currency) VALUES ($1, $2, $3, $4)",
        entry_id,
        payment_id,
        entry.kind,
        entry.currency,
    )
    await connection.execute(
        "INSERT INTO posting (entry_id, account, minor) SELECT $1, p.* FROM unnest($2::text[], $3::bigint[]) AS p",
        entry_id,
        [posting.account for posting in entry.postings],
        [posting.minor for posting in entry.postings],
    )


async def close_dispute(connection: "Connection", order_id: str) -> None:
    """End the dispute about the order's charge, if there is one. Raises PaymentUnknown."""
    known = await connection.fetchval(
        "UPDATE payment SET disputed = false WHERE order_id = $1 RETURNING true", order_id
    )
    if not known:
        raise PaymentUnknown(f"order {order_id} has no payment")


async def payment_of(connection: "Connection", order_id: str) -> Payment:
    """Read the payment of an order. Raises PaymentUnknown."""
    return await _payment(connection, _PAYMENT, order_id)


async def _payment(connection: "Connection", query: str, order_id: str) -> Payment:
    row = await connection.fetchrow(query, order_id)
    if row is None:
        raise PaymentUnknown(f"order {order_id} has no payment")
    return Payment(
        payment_id=row["payment_id"],
        order_id=row["order_id"],
        amount=Money(row["currency"], row["minor"]),
        state=PaymentState(row["state"]),
        disputed=row["disputed"],
        charged_at=row["charged_at"],
        refund_id=row["refund_id"],
    )


def _amount(amount: Money) -> types_pb2.Money:
    return types_pb2.Money(currency=amount.currency, minor=amount.minor)


async def balances(connection: "Connection") -> list[tuple[Account, Money]]:
    """Read the balance of every account and currency that money ever moved on, by account and currency."""
    rows = await connection.fetch(
        "SELECT account, currency, sum(minor)::bigint AS minor FROM posting JOIN entry USING (entry_id)"
        " GROUP BY account, currency ORDER BY account, currency"
    )
    return [(Account(row["account"]), Money(row["currency"], row["minor"])) for row in rows]
