from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shop_payments import domain
from shop_payments.cards import card
from shop_payments.domain import (
    Account,
    AmountInvalid,
    CardDeclined,
    CardUnknown,
    Entry,
    EntryKind,
    InsufficientFunds,
    Money,
    Posting,
    ProcessingError,
)
from shop_payments.network import FAILING_ATTEMPTS, Network

SOME = Money("EUR", 1250)


class MemoryInMemory:
    """The network's memory without a database."""

    def __init__(self):
        self.attempts = {}

    async def attempt(self, order_id):
        self.attempts[order_id] = self.attempts.get(order_id, 0) + 1
        return self.attempts[order_id]


@pytest.fixture
def network():
    return Network(MemoryInMemory(), slow_answer=timedelta(0))


@given(st.integers(1, domain.MAX_MINOR))
def test_a_charge_and_its_refund_leave_nothing_on_any_account(minor):
    balances = dict.fromkeys(Account, 0)
    for entry in (domain.charge(Money("EUR", minor)), domain.refund(Money("EUR", minor))):
        assert sum(posting.minor for posting in entry.postings) == 0
        for posting in entry.postings:
            balances[posting.account] += posting.minor
    assert set(balances.values()) == {0}


def test_a_charge_is_the_merchants():
    assert Posting(Account.MERCHANT, 1250) in domain.charge(SOME).postings


@pytest.mark.parametrize("postings", [(), (Posting(Account.MERCHANT, 0),), (Posting(Account.MERCHANT, 5),) * 2])
def test_an_entry_that_does_not_balance_cannot_be_made(postings):
    with pytest.raises(ValueError, match="sum to zero"):
        Entry(EntryKind.CHARGE, "EUR", postings)


@pytest.mark.parametrize(
    "amount", [Money("EUR", 0), Money("EUR", -1), Money("EUR", domain.MAX_MINOR + 1), Money("", 1), Money("eur", 1)]
)
def test_an_amount_that_nobody_pays_is_refused(amount):
    with pytest.raises(AmountInvalid):
        domain.payable(amount)


def test_an_unknown_token_is_not_repeated_in_the_refusal():
    with pytest.raises(CardUnknown) as refusal:
        card("tok_secret")
    assert "tok_secret" not in str(refusal.value)


def test_a_card_keeps_nothing_of_its_token():
    assert "tok_visa" not in repr(card("tok_visa"))
    assert card("tok_visa").last_four == "4242"
    assert card("tok_visa").fingerprint != card("tok_mastercard").fingerprint


@pytest.mark.parametrize("token", ["tok_visa", "tok_mastercard", "tok_disputed", "tok_slow"])
async def test_a_good_card_is_approved(network, token):
    assert await network.authorise("o-1", card(token)) is None


@pytest.mark.parametrize(
    ("token", "refusal"), [("tok_chargeDeclined", CardDeclined), ("tok_insufficientFunds", InsufficientFunds)]
)
async def test_a_bad_card_is_always_refused(network, token, refusal):
    for _ in range(3):
        with pytest.raises(refusal):
            await network.authorise("o-1", card(token))


async def test_a_processing_error_goes_away_for_each_order_on_its_own(network):
    for order_id in ("o-1", "o-2"):
        for _ in range(FAILING_ATTEMPTS):
            with pytest.raises(ProcessingError):
                await network.authorise(order_id, card("tok_processingError"))
        assert await network.authorise(order_id, card("tok_processingError")) is None
