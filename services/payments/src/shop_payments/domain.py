"""The rules of money, free of SQL and gRPC.

`api.py` parses requests into these values, `store.py` writes them down. The one law: the postings of a ledger entry
sum to zero, so money moves between accounts and is never made or lost.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from amends_chassis.domain import RefusedError

MAX_KEPT = timedelta(hours=1)
"""How long a card is kept for an order at most."""

MAX_MINOR = 1_000_000_000_000  # ten billion of a currency with cents: sums of a whole ledger stay far inside 64 bits

_CURRENCY = re.compile(r"[A-Z]{3}")


class AmountInvalid(RefusedError):
    """The amount has no currency, is nothing, or is more than a payment may be."""

    reason = "AMOUNT_INVALID"


class CardUnknown(RefusedError):
    """The token belongs to no card."""

    reason = "CARD_UNKNOWN"


class CardDeclined(RefusedError):
    """The bank declines the card."""

    reason = "CARD_DECLINED"


class InsufficientFunds(RefusedError):
    """The bank says no, and why."""

    reason = "INSUFFICIENT_FUNDS"


class CardBusy(RefusedError):
    """Too many charges of one card are under way; the charge may be tried again."""

    reason = "CARD_BUSY"


class ProcessingError(RefusedError):
    """The card network had a problem; the charge may be tried again."""

    reason = "PROCESSING_ERROR"


class AlreadyCharged(RefusedError):
    """The order has a payment already; an order is paid once."""

    reason = "ALREADY_CHARGED"


class CardReused(RefusedError):
    """Another card, or another amount, is kept for the order already."""

    reason = "CARD_REUSED"


class ChargeDisputed(RefusedError):
    """The customer disputes the charge; until that is over the money cannot go back."""

    reason = "CHARGE_DISPUTED"


class PaymentUnknown(RefusedError):
    """The order has no payment."""

    reason = "PAYMENT_UNKNOWN"


class Account(StrEnum):
    """The chart of accounts. `customer-cards` is the world outside: it is as negative as customers have paid."""

    CUSTOMER_CARDS = "customer-cards"
    MERCHANT = "merchant"


class EntryKind(StrEnum):
    """The reasons for which money moves."""

    CHARGE = "charge"
    REFUND = "refund"


class PaymentState(StrEnum):
    """The states in the life of a payment."""

    CHARGED = "charged"
    REFUNDED = "refunded"


@dataclass(frozen=True, slots=True)
class Money:
    """An amount in the currency's minor unit (cents)."""

    currency: str
    minor: int


@dataclass(frozen=True, slots=True)
class DueCharge:
    """A charge that an event has asked for and that is still to be made."""

    order_id: str
    amount: Money
    card_fingerprint: str
    cause: Mapping[str, str]
    """What the event carried."""


@dataclass(frozen=True, slots=True)
class Posting:
    """The amount that one account gains, or loses when negative."""

    account: Account
    minor: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One movement of money between accounts, in one currency."""

    kind: EntryKind
    currency: str
    postings: tuple[Posting, ...]

    def __post_init__(self) -> None:
        if len(self.postings) < 2 or sum(posting.minor for posting in self.postings) != 0:
            raise ValueError("the postings of an entry must be at least two and sum to zero")


@dataclass(frozen=True, slots=True)
class Payment:
    """The payment of an order, and where the money is."""

    payment_id: str
    order_id: str
    amount: Money
    state: PaymentState
    disputed: bool
    charged_at: datetime
    refund_id: str | None


def charge(amount: Money) -> Entry:
    """Return the entry that moves `amount` from the customer's card to the merchant."""
    return _transfer(EntryKind.CHARGE, amount, Account.CUSTOMER_CARDS, Account.MERCHANT)


def refund(amount: Money) -> Entry:
    """Return the entry that moves `amount` back."""
    return _transfer(EntryKind.REFUND, amount, Account.MERCHANT, Account.CUSTOMER_CARDS)


def _transfer(kind: EntryKind, amount: Money, source: Account, target: Account) -> Entry:
    return Entry(kind, amount.currency, (Posting(source, -amount.minor), Posting(target, amount.minor)))


def payable(amount: Money) -> Money:
    """Return `amount` if a card can be charged with it. Raises AmountInvalid."""
    if not _CURRENCY.fullmatch(amount.currency):
        raise AmountInvalid("the currency must be an ISO 4217 code such as EUR")
    if not 0 < amount.minor <= MAX_MINOR:
        raise AmountInvalid(f"the amount must be 1 to {MAX_MINOR} minor units")
    return amount
