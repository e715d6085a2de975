"""An example of a message can be read back as that message, and shows where something has to be written."""

import json

import pytest
from amends_contracts import descriptor_set
from amends_saga.example import example
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor_pool import DescriptorPool

POOL = DescriptorPool()
for file in descriptor_set().file:
    POOL.Add(file)


@pytest.mark.parametrize(
    "name", ["shop.payments.v1.ChargeResponse", "shop.orders.v1.PlaceOrderRequest", "amends.saga.v1.Run"]
)
def test_an_example_is_a_message_of_its_type(name: str) -> None:
    of = POOL.FindMessageTypeByName(name)
    message = json_format.Parse(json.dumps(example(of)), message_factory.GetMessageClass(of)())
    assert message.ByteSize() > 0, "every field is shown"


def test_texts_are_marked_and_the_first_of_a_oneof_is_shown() -> None:
    shown = example(POOL.FindMessageTypeByName("amends.saga.v1.StartRunRequest"))
    assert shown["saga"] == "..."
    assert "binary" not in shown
