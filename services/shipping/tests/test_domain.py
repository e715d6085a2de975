from dataclasses import replace

import pytest
from amends_chassis.domain import IdentifierInvalidError
from shop_shipping import domain
from shop_shipping.domain import (
    Address,
    AddressInvalid,
    Line,
    LinesInvalid,
    NoSlot,
    NotServed,
    Slots,
    SlotsInvalid,
)

HOME = Address("Ada Lovelace", "Gartenstr. 1", "Berlin", "10115", "DE")


@pytest.mark.parametrize(
    ("country", "postal_code"),
    [("DE", "10115"), ("GB", "SW1A 1AA"), ("NL", "1012 AB"), ("PL", "00-950"), ("US", "94103-1234"), ("SE", "111 52")],
)
def test_an_address_as_its_country_writes_it_is_deliverable(country, postal_code):
    address = replace(HOME, country=country, postal_code=postal_code)
    assert domain.deliverable(address) == address


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("recipient", ""),
        ("recipient", "  "),
        ("street", "x" * 201),
        ("city", "Ber\nlin"),
        ("city", "Ber\x00lin"),
        ("postal_code", "1011"),
        ("postal_code", "SW1A 1AA"),
        ("country", "Germany"),
        ("country", "de"),
    ],
)
def test_an_address_where_no_parcel_arrives_is_refused_by_field(field, value):
    with pytest.raises(AddressInvalid, match=field):
        domain.deliverable(replace(HOME, **{field: value}))


def test_the_carrier_with_most_slots_left_is_booked():
    few, many = Slots("courier", "DE", 3, 0), Slots("postal", "DE", 4, 9)
    assert domain.choose("DE", [few, many]) == many


def test_a_country_without_a_carrier_is_not_served():
    with pytest.raises(NotServed, match="AQ"):
        domain.choose("AQ", [])


def test_a_country_whose_carriers_are_full_has_no_slot():
    with pytest.raises(NoSlot, match="DE"):
        domain.choose("DE", [Slots("courier", "DE", 0, 7), Slots("postal", "DE", 0, 9)])


@pytest.mark.parametrize(
    ("carrier", "country", "available", "refusal"),
    [
        ("", "DE", 1, IdentifierInvalidError),
        ("Postal Service", "DE", 1, IdentifierInvalidError),
        ("postal", "", 1, AddressInvalid),
        ("postal", "DE", -1, SlotsInvalid),
        ("postal", "DE", domain.MAX_SLOTS + 1, SlotsInvalid),
    ],
)
def test_capacity_that_no_carrier_can_have_is_refused(carrier, country, available, refusal):
    with pytest.raises(refusal):
        domain.slots(carrier, country, available)


@pytest.mark.parametrize("lines", [[], [Line("tea", 0)], [Line("tea", 1)] * 101])
def test_a_parcel_without_sensible_contents_is_refused(lines):
    with pytest.raises(LinesInvalid):
        domain.contents(lines)


def test_contents_without_a_name_are_refused():
    with pytest.raises(IdentifierInvalidError):
        domain.contents([Line("", 1)])
