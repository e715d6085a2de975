"""The test cards, as payment providers have them: a token says how the card behaves.

`api.py` finds a card by its token, `network.py` plays its behaviour. A token is worth money, so nothing else of it
than a fingerprint and the last four digits leaves this module.
"""

import hashlib
from dataclasses import dataclass
from enum import StrEnum

from shop_payments.domain import CardUnknown


class Behaviour(StrEnum):
    """The answers that the card network can give."""

    APPROVED = "approved"
    DECLINED = "declined"
    INSUFFICIENT_FUNDS = "insufficient_funds"
    PROCESSING_ERROR = "processing_error"
    SLOW = "slow"


@dataclass(frozen=True, slots=True)
class Card:
    """The part of a card that may be kept."""

    fingerprint: str
    last_four: str
    behaviour: Behaviour
    disputes: bool = False
    """True when the customer disputes every charge."""


_CARDS = {
    "tok_visa": ("4242", Behaviour.APPROVED, False),
    "tok_mastercard": ("4444", Behaviour.APPROVED, False),
    "tok_chargeDeclined": ("0002", Behaviour.DECLINED, False),
    "tok_insufficientFunds": ("9995", Behaviour.INSUFFICIENT_FUNDS, False),
    "tok_processingError": ("0119", Behaviour.PROCESSING_ERROR, False),
    "tok_slow": ("3220", Behaviour.SLOW, False),
    "tok_disputed": ("0259", Behaviour.APPROVED, True),
}


def fingerprint(token: str) -> str:
    """Return what may be kept of a token, and what its card is found by again: 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(token.encode()).hexdigest()[:16]


_BY_FINGERPRINT = {
    fingerprint(token): Card(fingerprint(token), last_four, behaviour, disputes)
    for token, (last_four, behaviour, disputes) in _CARDS.items()
}


def card(token: str) -> Card:
    """Return the card of a token. Raises CardUnknown, without repeating the token."""
    return kept_card(fingerprint(token))


def kept_card(known: str) -> Card:
    """Return the card of a fingerprint, which stands here for a reference to a provider's vault. Raises CardUnknown."""
    if known not in _BY_FINGERPRINT:
        raise CardUnknown("the token belongs to no card")
    return _BY_FINGERPRINT[known]
