import pytest
from amends_chassis.domain import IdentifierInvalidError
from hypothesis import given
from hypothesis import strategies as st
from shop_inventory import domain
from shop_inventory.domain import Line, LinesInvalid, Movement, OutOfStock, Stock


def test_what_is_received_is_available():
    assert Stock("tea").apply(Movement.RECEIVE, 5) == Stock("tea", received=5, available=5)


def test_what_is_reserved_is_kept_and_can_be_dispatched():
    stock = Stock("tea", received=5, available=5).apply(Movement.RESERVE, 2)
    assert stock == Stock("tea", received=5, available=3, reserved=2)
    assert stock.apply(Movement.DISPATCH, 2) == Stock("tea", received=5, available=3, sold=2)


def test_what_is_released_is_available_again():
    stock = Stock("tea", received=5, available=5)
    assert stock.apply(Movement.RESERVE, 2).apply(Movement.RELEASE, 2) == stock


def test_more_than_is_available_cannot_be_reserved():
    with pytest.raises(OutOfStock, match="3 of tea were asked for, 2 are available"):
        Stock("tea", received=2, available=2).apply(Movement.RESERVE, 3)


@given(st.lists(st.tuples(st.sampled_from(Movement), st.integers(1, 9)), max_size=40))
def test_nothing_is_lost_whatever_moves(movements):
    stock = Stock("tea")
    for movement, quantity in movements:
        try:
            stock = stock.apply(movement, quantity)
        except OutOfStock:
            continue
        assert stock.received == stock.available + stock.reserved + stock.sold
        assert stock.available >= 0


def test_lines_of_one_article_are_added_up_and_sorted_by_article():
    lines = [Line("tea", 1), Line("Cup", 2), Line("tea", 3)]
    assert domain.lines(lines) == (Line("Cup", 2), Line("tea", 4))


@pytest.mark.parametrize("lines", [[], [Line("tea", 0)], [Line("tea", -1)], [Line("tea", 1_000_001)]])
def test_lines_without_a_sensible_quantity_are_refused(lines):
    with pytest.raises(LinesInvalid):
        domain.lines(lines)


def test_too_many_lines_are_refused():
    with pytest.raises(LinesInvalid, match="100"):
        domain.lines(Line(f"sku-{number}", 1) for number in range(101))


@pytest.mark.parametrize("name", ["", " ", "a b", "-a", "x" * 101, "a\x00", "a\n", "ä"])
def test_a_name_that_nobody_could_repeat_is_refused(name):
    with pytest.raises(IdentifierInvalidError, match="sku"):
        domain.identifier(name, "sku")
