"""What every domain begins with."""

import grpc
import pytest
from amends_chassis.domain import IdentifierInvalidError, RefusedError, identifier
from amends_chassis.errors import InvalidArgument, NotFound, answers


class Sold(RefusedError):
    reason = "SOLD"


@pytest.mark.parametrize("name", ["", " ", "a b", "x" * 101, "a\x00"])
def test_a_name_that_nobody_could_repeat_is_refused(name):
    with pytest.raises(IdentifierInvalidError, match="order_id"):
        identifier(name, "order_id")


@pytest.mark.parametrize("name", ["a", "o-1", "trk_1/2:3.4", "x" * 100])
def test_a_name_that_anybody_can_repeat_is_one(name):
    assert identifier(name, "order_id") == name


def test_a_refusal_is_answered_with_the_code_that_the_table_has_and_with_its_own_reason():
    with pytest.raises(NotFound) as told, answers({IdentifierInvalidError: InvalidArgument, Sold: NotFound}):
        raise Sold("it is sold")
    assert (told.value.code, told.value.reason, told.value.message) == (grpc.StatusCode.NOT_FOUND, "SOLD", "it is sold")


def test_a_refusal_that_nobody_has_thought_of_is_no_answer():
    with pytest.raises(LookupError), answers({IdentifierInvalidError: InvalidArgument}):
        raise Sold("it is sold")
