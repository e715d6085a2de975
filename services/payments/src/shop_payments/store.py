"""Payments and the ledger in Postgres: every function is one change inside a transaction that its caller owns.

`api.py` calls it with the barrier's connection (Charge, Refund) or one of its own. What others are to hear of a change
is written into the outbox by the statement that makes it. Balances are sums of postings and
nothing stores them, so that no two charges ever wait for each other.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

from amends_events import with_event

from shop.payments.events.v1.payments_pb2 import PaymentFailed, PaymentRefunded, PaymentTaken
from shop.types.v1 import types_pb2
from shop_payments import domain
from shop_payments.cards import Card
from shop_payments.domain import (
    Account,
    AlreadyCharged,
    CardReused,
    ChargeDisputed,
    DueCharge,
    Entry,
    Money,
    Payment,
    PaymentState,
    PaymentUnknown,
)

if TYPE_CHECKING:
    from amends_chassis.database import Connection
    from amends_events import Outbox

ANSWERED_WITHIN = timedelta(seconds=10)
"""A charge is asked for again when nobody has noted an answer for so long: whoever asked has died."""

_PAYMENT = (
    "SELECT payment_id, order_id, currency, minor, state, disputed, charged_at, refund_id FROM payment"
    " WHERE order_id = $1"
)

_CHARGE = with_event(
    "INSERT INTO payment (payment_id, order_id, currency, minor, card_fingerprint, card_last_four, disputed)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (order_id) DO NOTHING"
    " RETURNING version, told_at[version] AS occurred_at",
    7,
    timed=True,
)
_REFUSE = with_event(
    "INSERT INTO refusal (order_id, reason, message) VALUES ($1, $2, $3)"
    " ON CONFLICT (order_id) DO NOTHING RETURNING 1::bigint AS version, refused_at AS occurred_at",
    3,
    timed=True,
)
_KEEP = """
INSERT INTO kept_card (order_id, currency, minor, card_fingerprint, expires_at)
VALUES ($1, $2, $3, $4, now() + $5::interval)
ON CONFLICT (order_id) DO UPDATE SET expires_at = CASE kept_card.state
    WHEN 'kept' THEN greatest(kept_card.expires_at, excluded.expires_at) ELSE kept_card.expires_at END
RETURNING currency, minor, card_fingerprint
"""
_MAKE_DUE = """
UPDATE kept_card SET state = 'due', due_at = now(), cause = $2
WHERE order_id = $1 AND state = 'kept' AND expires_at > now() RETURNING true
"""
_CLAIM_DUE = """
WITH due AS MATERIALIZED (
    SELECT order_id FROM kept_card WHERE state = 'due' AND due_at <= now()
    ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED)
UPDATE kept_card AS k SET tries = tries + 1, due_at = now() + $2::interval
FROM due WHERE k.order_id = due.order_id RETURNING k.order_id, currency, minor, card_fingerprint, cause
"""
_END_DUE = """
UPDATE kept_card SET state = 'done', due_at = NULL WHERE order_id = $1 AND state = 'due' RETURNING expires_at > now()
"""
_REFUND = with_event(
    "UPDATE payment SET state = 'refunded', refund_id = $2, version = version + 1,"
    " told_at = told_at || clock_timestamp() WHERE payment_id = $1 RETURNING version, told_at[version] AS occurred_at",
    2,
    timed=True,
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


async def refuse(connection: "Connection", outbox: "Outbox", order_id: str, reason: str, message: str) -> None:
    """Write down that a choreographed order cannot be paid; again: nothing."""
    failed = outbox.row(PaymentFailed(order_id=order_id, reason=reason, message=message))
    await connection.execute(_REFUSE, order_id, reason, message, *failed.values)


async def keep_card(
    connection: "Connection", order_id: str, amount: Money, card_fingerprint: str, keep_for: timedelta
) -> None:
    """Keep a card for the order; again: for longer, while it is not charged. Raises CardReused for other content."""
    kept = await connection.fetchrow(_KEEP, order_id, amount.currency, amount.minor, card_fingerprint, keep_for)
    assert kept is not None
    if (Money(kept["currency"], kept["minor"]), kept["card_fingerprint"]) != (amount, card_fingerprint):
        raise CardReused(f"another card or amount is kept for order {order_id}")


async def make_due(connection: "Connection", order_id: str, cause: Mapping[str, str]) -> bool:
    """Have the card that is kept for the order charged soon; False when there is none, or it is charged or too old."""
    return bool(await connection.fetchval(_MAKE_DUE, order_id, json.dumps(cause)))


async def claim_due(connection: "Connection", limit: int) -> Sequence[DueCharge]:
    """Claim up to `limit` charges that are due, oldest first, for as long as the network may take.

    Those of which the time is over are given up. Claimants beside this one get other charges.
    """
    await connection.execute(
        "UPDATE kept_card SET state = 'done', due_at = NULL WHERE state = 'due' AND expires_at <= now()"
    )
    rows = await connection.fetch(_CLAIM_DUE, limit, ANSWERED_WITHIN)
    return [
        DueCharge(
            row["order_id"], Money(row["currency"], row["minor"]), row["card_fingerprint"], json.loads(row["cause"])
        )
        for row in rows
    ]


async def postpone(connection: "Connection", order_id: str) -> None:
    """Have a due charge tried again after a pause, which grows with the tries from 0.2 s to 30 s."""
    await connection.execute(
        "UPDATE kept_card SET due_at = now() + interval '0.1 seconds' * least(300, 2 ^ least(tries, 10))"
        " WHERE order_id = $1 AND state = 'due'",
        order_id,
    )


async def end_due(connection: "Connection", order_id: str) -> bool:
    """Note that nothing more is to be charged for the order; True when a charge was due until now, and in time."""
    return bool(await connection.fetchval(_END_DUE, order_id))


async def call_off(connection: "Connection", order_id: str) -> None:
    """Note that the card that is kept for the order is not to be charged, whatever is asked for later."""
    await connection.execute(
        "UPDATE kept_card SET state = 'done', due_at = NULL WHERE order_id = $1 AND state <> 'done'", order_id
    )


async def forget_cards(connection: "Connection", older_than: timedelta, limit: int) -> int:
    """Forget at most `limit` cards that expired so long ago; return how many."""
    tag = await connection.execute(
        "DELETE FROM kept_card WHERE order_id IN"
        " (SELECT order_id FROM kept_card WHERE expires_at < now() - $1::interval LIMIT $2 FOR UPDATE SKIP LOCKED)",
        older_than,
        limit,
    )
    return int(tag.rpartition(" ")[2])


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
