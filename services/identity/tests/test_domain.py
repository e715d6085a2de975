"""Which addresses and passwords there are."""

import pytest
from shop_identity import domain


def test_an_address_is_the_same_in_every_case():
    assert domain.email_address("Ada@Example.COM") == "ada@example.com"
    assert domain.email_address("A\u0308da@example.com") == domain.email_address("\xc4da@example.com")


@pytest.mark.parametrize("text", ["", "ada", "a@b@c", "ada @example.com", "ada@example.com\nx", f"{'a' * 65}@b"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(domain.EmailAddressInvalid):
        domain.email_address(text)


@pytest.mark.parametrize("text", ["short", "x" * 129, "ada.lovelace@example.com", "ADA.lovelace@example.com"])
def test_what_is_no_good_password_is_refused_without_being_repeated(text):
    with pytest.raises(domain.PasswordInvalid) as error:
        domain.new_password(text, "ada.lovelace@example.com")
    assert text not in str(error.value)


def test_a_password_is_the_same_from_every_keyboard():
    composed, decomposed = "p\xe4ssw\xf6rter, mehrere", "pa\u0308sswo\u0308rter, mehrere"
    assert domain.new_password(composed, "a@b") == domain.as_hashed(decomposed)
