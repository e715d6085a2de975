"""Which policy holds for a method."""

from datetime import timedelta

import pytest
from amends_resilience import NamedPolicy, PolicyConflict, RetryPolicy, Selector, match
from hypothesis import given
from hypothesis import strategies as st

PAY, SHIP = "shop.payments.v1.PaymentService", "shop.shipping.v1.ShippingService"


def named(name: str, participants: tuple[str, ...] = (), methods: tuple[str, ...] = ()) -> NamedPolicy:
    return NamedPolicy(name, Selector(participants, methods), RetryPolicy(timeout=timedelta(seconds=len(name))))


EVERYTHING = named("a")
METHOD = named("ab", methods=("Charge",))
SERVICE = named("abc", participants=(PAY,))
BOTH = named("abcd", participants=(PAY,), methods=("Charge", "Refund"))


@pytest.mark.parametrize(
    ("policies", "wins"),
    [
        ([EVERYTHING], EVERYTHING),
        ([EVERYTHING, METHOD], METHOD),
        ([EVERYTHING, METHOD, SERVICE], SERVICE),
        ([EVERYTHING, METHOD, SERVICE, BOTH], BOTH),
    ],
)
def test_the_most_specific_match_wins(policies: list[NamedPolicy], wins: NamedPolicy) -> None:
    assert match(policies, PAY, "Charge") == wins.policy


def test_without_a_match_the_default_holds() -> None:
    assert match([SERVICE, BOTH], SHIP, "Book") == RetryPolicy()


def test_a_star_means_all_and_is_as_general_as_leaving_it_out() -> None:
    star = named("star", participants=("*",), methods=("*",))
    assert match([star], PAY, "Charge") == star.policy
    assert match([star, EVERYTHING], PAY, "Charge") == PolicyConflict(PAY, "Charge", ("a", "star"))


def test_a_name_beside_a_star_is_still_specific() -> None:
    assert match([named("both", participants=("*", PAY)), EVERYTHING], PAY, "Get") == named("both").policy


def test_a_tie_is_a_conflict_that_names_who_ties_and_nobody_else() -> None:
    rival = named("rival", participants=(PAY,), methods=("Charge",))
    found = match([rival, EVERYTHING, BOTH], PAY, "Charge")
    assert found == PolicyConflict(PAY, "Charge", ("abcd", "rival"))
    assert str(found) == f"{PAY}/Charge is matched equally well by the retry policies abcd, rival."


def test_a_tie_below_the_winner_is_no_conflict() -> None:
    assert match([named("x"), named("y"), BOTH], PAY, "Refund") == BOTH.policy


names = st.lists(st.sampled_from([PAY, SHIP, "*"]), max_size=2).map(tuple)
methods = st.lists(st.sampled_from(["Charge", "Book", "*"]), max_size=2).map(tuple)


@given(st.data(), st.lists(st.tuples(names, methods), max_size=6))
def test_the_order_of_the_policies_does_not_matter(
    data: st.DataObject, selectors: list[tuple[tuple[str, ...], tuple[str, ...]]]
) -> None:
    policies = [named(f"p{'x' * n}", *selector) for n, selector in enumerate(selectors)]
    shuffled = data.draw(st.permutations(policies))
    assert match(policies, PAY, "Charge") == match(shuffled, PAY, "Charge")


@given(st.tuples(names, methods), st.tuples(names, methods))
def test_two_selectors_tie_exactly_when_some_method_finds_both_equally_good(
    one: tuple[tuple[str, ...], tuple[str, ...]], other: tuple[tuple[str, ...], tuple[str, ...]]
) -> None:
    policies = [named("one", *one), named("other", *other)]
    everything = [(service, method) for service in (PAY, SHIP, "x.Other") for method in ("Charge", "Book", "Other")]
    ties = any(isinstance(match(policies, service, method), PolicyConflict) for service, method in everything)
    assert Selector(*one).ties_with(Selector(*other)) is ties


def test_whether_two_large_selectors_tie_takes_no_product_of_their_names() -> None:
    one = Selector(tuple(f"s{i}" for i in range(100_000)), tuple(f"m{i}" for i in range(100_000)))
    other = Selector((*one.participants[::-1], "more"), ("none",))
    assert not one.ties_with(other)
    assert one.ties_with(Selector(("s7",), ("m7",)))
