"""The short ways lead to valid values."""

import pytest
from amends_contracts import descriptor_set
from amends_saga.plan import MethodKind
from amends_testkit.builders import a_plan, guarded, keyed, message, read
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import ParseError


def test_a_plan_of_three_kinds_in_sequence_has_the_order_that_was_written() -> None:
    plan = a_plan(read("look"), keyed("pay", (0,)), guarded("ship", (1,), pivot=True))
    assert plan.order == (0, 1, 2)
    assert [step.action.kind for step in plan.steps] == [MethodKind.READ, MethodKind.KEYED, MethodKind.GUARDED]
    assert plan.pivot == 2
    assert plan.steps[1].compensation is not None


def test_a_message_is_made_of_json_and_a_wrong_field_is_refused() -> None:
    pool = DescriptorPool()
    for file in descriptor_set().file:
        pool.Add(file)
    made = message(pool, "shop.payments.v1.ChargeRequest", {"orderId": "o-1", "amount": {"minor": "5"}})
    assert made.order_id == "o-1"
    with pytest.raises(ParseError, match="orderIdd"):
        message(pool, "shop.payments.v1.ChargeRequest", {"orderIdd": "o-1"})
