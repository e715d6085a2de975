"""The proof finds what is wrong: each claim is shown books in which it does not hold."""

import io
from collections import Counter
from dataclasses import replace

import pytest
from amends_demo.proof import Books, prove, settled
from amends_demo.telling import Telling
from rich.console import Console

SOUND = Books(
    orders={"o-1": "confirmed", "o-2": "rejected", "o-3": "rejected"},
    totals={"o-1": 2190, "o-2": 2190, "o-3": 2190},
    pieces=Counter({"tea": 1}),
    unbalanced_entries=0,
    entries={"o-1": ["charge"], "o-3": ["charge", "refund"]},
    merchant=2190,
    ledger=0,
    stock=[
        {"sku": "tea", "received": 10, "available": 9, "reserved": 0, "sold": 1},
        {"sku": "mug", "received": 5, "available": 5, "reserved": 0, "sold": 0},
    ],
    shipped={"o-1"},
    slots_booked=1,
    runs={"o-1": 4, "o-2": 5, "o-3": 5},
    runs_with_gaps=0,
)


def broken(books: Books) -> list[str]:
    telling = Telling(Console(file=io.StringIO()))
    prove(books, telling)
    return telling.broken


def test_sound_books_hold() -> None:
    assert broken(SOUND) == []
    assert settled(SOUND)


@pytest.mark.parametrize(
    ("change", "claim"),
    [
        ({"unbalanced_entries": 1}, "every ledger entry sums to zero"),
        ({"ledger": 5}, "all accounts together sum to zero"),
        ({"entries": {"o-1": ["charge", "charge"], "o-3": ["charge", "refund"]}}, "no order was charged twice"),
        ({"entries": {"o-3": ["charge", "refund"]}}, "confirmed orders were charged once and not refunded"),
        ({"entries": {"o-1": ["charge"], "o-2": ["charge"]}}, "rejected orders were never charged"),
        ({"merchant": 2189}, "the merchant holds what 1 confirmed orders cost"),
        (
            {"stock": [{"sku": "tea", "received": 10, "available": 8, "reserved": 0, "sold": 1}]},
            "every article: received = available + reserved + sold",
        ),
        ({"pieces": Counter({"tea": 2})}, "what left the shelf is what confirmed orders contain"),
        ({"shipped": {"o-1", "o-2"}}, "a parcel for each confirmed order"),
        ({"slots_booked": 2}, "the carrier's slots are the parcels"),
        ({"runs": {"o-1": 4, "o-2": 5, "o-3": 3}}, "every run has ended"),
        ({"runs": {"o-1": 4, "o-2": 5}}, "a run for each order"),
        ({"runs": {"o-1": 5, "o-2": 5, "o-3": 5}}, "1 confirmed orders have completed runs"),
        ({"runs_with_gaps": 1}, "no journal has a gap"),
    ],
)
def test_each_claim_can_fail(change: dict, claim: str) -> None:
    assert any(text.startswith(claim) for text in broken(replace(SOUND, **change)))


def test_books_are_not_settled_while_an_order_is_on_its_way() -> None:
    assert not settled(replace(SOUND, orders={"o-1": "pending"}))
    assert not settled(replace(SOUND, stock=[{"sku": "tea", "received": 1, "available": 0, "reserved": 1, "sold": 0}]))
