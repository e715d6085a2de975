"""What can be written about a customer."""

import pytest
from amends_chassis.domain import RefusedError
from shop_customers import domain

HOME = domain.Address("Ada Lovelace", "Rosenweg 3", "Berlin", "10115", "DE")


@pytest.mark.parametrize("email_address", ["", "ada@example.com", "a.b+c@x", "äda@bücher.example"])
@pytest.mark.parametrize("locale", ["de", "en-GB", "zh-Hans-CN", "es-419"])
def test_what_can_be_written(email_address, locale):
    details = domain.details("Ada", email_address, locale, HOME)
    assert (details.email_address, details.locale, details.billing_address) == (email_address, locale, HOME)


def test_without_a_locale_one_is_written_to_in_english():
    assert domain.details("Ada", "", "", None).locale == "en"


@pytest.mark.parametrize(
    "email_address",
    [
        "ada",
        "@example.com",
        "ada@",
        "a@b@c",
        "ada @example.com",
        "ada@example.com\nBcc: x@y",
        "<ada@example.com>",
        "a,b@example.com",
        "ada@example.com\u200b",
        f"{'a' * 65}@example.com",
        f"ada@{'x' * 190}",
    ],
)
def test_what_no_message_can_be_sent_to_is_refused(email_address):
    with pytest.raises(domain.EmailAddressInvalid):
        domain.details("Ada", email_address, "de", None)


@pytest.mark.parametrize(
    ("make", "refusal"),
    [
        (lambda: domain.details(" ", "", "", None), domain.NameInvalid),
        (lambda: domain.details("Ada\x00", "", "", None), domain.NameInvalid),
        (lambda: domain.details("a" * 201, "", "", None), domain.NameInvalid),
        (lambda: domain.details("Ada", "", "german", None), domain.LocaleInvalid),
        (lambda: domain.details("Ada", "", "de_DE", None), domain.LocaleInvalid),
        (lambda: domain.address(domain.Address("Ada", "", "Berlin", "10115", "DE")), domain.AddressInvalid),
        (lambda: domain.address(domain.Address("Ada", "a", "Berlin", "10115", "Germany")), domain.AddressInvalid),
        (lambda: domain.delivery_address("home", "", HOME), domain.LabelInvalid),
        (lambda: domain.payment_method("card-1", "Visa", "424"), domain.CardInvalid),
        (lambda: domain.payment_method("card-1", "", "4242"), domain.CardInvalid),
        (lambda: domain.card_token(""), domain.CardInvalid),
    ],
)
def test_what_cannot_be_written(make, refusal: type[RefusedError]):
    with pytest.raises(refusal):
        make()
