from dataclasses import replace

import pytest
from amends_chassis.domain import IdentifierInvalidError
from shop_orders import domain
from shop_orders.domain import (
    Address,
    AddressInvalid,
    CardInvalid,
    CurrenciesMixed,
    Line,
    LinesInvalid,
    Money,
    PriceInvalid,
    PriceUnknown,
    TotalTooLarge,
)

HOME = Address("Ada Lovelace", "Gartenstr. 1", "Berlin", "10115", "DE")
WISHED = (Line("tea", 2), Line("cup", 1))


def content(customer_id="c-1", lines=WISHED, card_token="tok_visa", address=HOME):
    return domain.content(customer_id, lines, card_token, address)


def test_the_total_is_what_all_lines_cost():
    prices = {"tea": Money("EUR", 450), "cup": Money("EUR", 1000)}
    assert domain.total(content().lines, prices) == Money("EUR", 1900)


def test_an_article_without_a_price_is_not_for_sale():
    with pytest.raises(PriceUnknown, match="cup"):
        domain.total(content().lines, {"tea": Money("EUR", 450)})


def test_one_order_has_one_currency():
    with pytest.raises(CurrenciesMixed, match="EUR, USD"):
        domain.total(content().lines, {"tea": Money("EUR", 450), "cup": Money("USD", 450)})


def test_an_order_that_nobody_can_pay_is_refused():
    with pytest.raises(TotalTooLarge):
        domain.total(content().lines, dict.fromkeys(("tea", "cup"), Money("EUR", domain.MAX_MINOR)))


def test_the_same_wish_written_in_another_way_has_the_same_digest():
    other = content(lines=[Line("cup", 1), Line("tea", 1), Line("tea", 1)])
    assert content().digest("o-1") == other.digest("o-1")


@pytest.mark.parametrize(
    "other",
    [
        content(customer_id="c-2"),
        content(lines=[Line("tea", 3), Line("cup", 1)]),
        content(card_token="tok_mastercard"),
        content(address=replace(HOME, street="Gartenstr. 2")),
    ],
)
def test_another_wish_has_another_digest(other):
    assert content().digest("o-1") != other.digest("o-1")


def test_two_orders_for_the_same_have_different_digests():
    assert content().digest("o-1") != content().digest("o-2")


def test_the_card_token_is_never_shown():
    assert "tok_visa" not in repr(content())


@pytest.mark.parametrize(
    ("wish", "refusal"),
    [
        ({"customer_id": ""}, IdentifierInvalidError),
        ({"lines": []}, LinesInvalid),
        ({"lines": [Line("tea", 0)]}, LinesInvalid),
        ({"lines": [Line("tea", domain.MAX_QUANTITY), Line("tea", 1)]}, LinesInvalid),
        ({"lines": [Line(f"sku-{number}", 1) for number in range(101)]}, LinesInvalid),
        ({"lines": [Line("", 1)]}, IdentifierInvalidError),
        ({"card_token": ""}, CardInvalid),
        ({"card_token": "tok\x00"}, CardInvalid),
        ({"card_token": "x" * 201}, CardInvalid),
        ({"address": replace(HOME, city="")}, AddressInvalid),
        ({"address": replace(HOME, city="Ber\x00lin")}, AddressInvalid),
    ],
)
def test_a_wish_that_makes_no_sense_is_refused(wish, refusal):
    with pytest.raises(refusal):
        content(**wish)


@pytest.mark.parametrize("price", [Money("EUR", 0), Money("EUR", -1), Money("", 5), Money("EUR", domain.MAX_MINOR + 1)])
def test_a_price_that_nobody_pays_is_refused(price):
    with pytest.raises(PriceInvalid):
        domain.price(price)
