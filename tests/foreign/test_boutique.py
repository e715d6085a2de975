"""Thirty sagas over Online Boutique's contract are judged rightly: the good are accepted, each bad for its reason."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from amends_saga.analysis import ParticipantView
from amends_saga.check import check
from amends_saga.definition import Document, read

CASES: list[dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "boutique.yaml").read_text())
HEAD = "apiVersion: amends.dev/v1alpha1\n"
METHODS = {
    "CartService": "{name: GetCart, idempotency: NO_SIDE_EFFECTS}, {name: EmptyCart, idempotency: IDEMPOTENT}",
    "ShippingService": "{name: GetQuote, idempotency: NO_SIDE_EFFECTS}, {name: ShipOrder, idempotency: IDEMPOTENT}",
    "CurrencyService": "{name: Convert, idempotency: NO_SIDE_EFFECTS}",
    "PaymentService": "Charge",
    "EmailService": "{name: SendOrderConfirmation, idempotency: IDEMPOTENT}",
}
FIRST = """\
- {name: cart, call: hipstershop.CartService/GetCart, request: "GetCartRequest{user_id: input.user_id}"}
- name: quote
  call: hipstershop.ShippingService/GetQuote
  request: "GetQuoteRequest{address: input.address, items: cart.items}"
- name: charge
  pivot: true
  call: hipstershop.PaymentService/Charge
  request: "ChargeRequest{amount: quote.cost_usd, credit_card: input.credit_card}"
"""


def participants() -> str:
    return "---\n".join(
        f"{HEAD}kind: Participant\nmetadata: {{name: {name.lower()}}}\n"
        f"spec: {{service: hipstershop.{name}, target: localhost:1, callers: [default], "
        f'methods: ["*", {methods if methods[0] == "{" else "{name: " + methods + "}"}]}}\n'
        for name, methods in METHODS.items()
    )


def saga(case: dict[str, Any]) -> str:
    steps = ("" if case.get("alone") else FIRST) + case["steps"]
    indented = "".join(f"    {line}\n" for line in steps.splitlines())
    given = case.get("input", "hipstershop.PlaceOrderRequest")
    return (
        f"{HEAD}kind: Saga\nmetadata: {{name: checkout}}\nspec:\n  input: {given}\n  deadline: 5m\n  steps:\n{indented}"
    )


def test_a_field_of_a_message_without_any_is_told_so(compiled: Callable[..., bytes]) -> None:
    clear = '- {name: clear, call: hipstershop.CartService/EmptyCart, request: "EmptyCartRequest{}"}\n'
    mail = (
        "- {name: mail, call: hipstershop.EmailService/SendOrderConfirmation, "
        'request: "SendOrderConfirmationRequest{email: clear.id}"}\n'
    )
    documents = [Document("saga.yaml", saga({"steps": clear + mail})), Document("participants.yaml", participants())]
    [finding] = [one for one in check(documents, descriptors=compiled("boutique.proto")).findings if one.is_error]
    assert (finding.code, finding.hint) == ("AM061", "The message has no fields at all.")


def test_there_are_thirty() -> None:
    assert len({case["name"] for case in CASES}) == 30


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_a_saga_is_judged_rightly(compiled: Callable[..., bytes], case: dict[str, Any]) -> None:
    documents = [Document("saga.yaml", saga(case)), Document("participants.yaml", participants())]
    result = check(documents, descriptors=compiled("boutique.proto"))
    found = [finding.code for finding in result.findings if finding.is_error]
    assert found == case.get("wrong", []), result.findings
    assert bool(result.sagas) == (not found)


@pytest.mark.parametrize("among", [True, False], ids=["among the texts", "in force"])
def test_a_contract_that_is_not_known_is_told_once_a_participant_with_target_and_cause(among: bool) -> None:
    written = Document("participants.yaml", participants())
    views = [ParticipantView(one, None, "nothing listens there") for one in read([written]).participants]
    ship = '- {name: ship, call: hipstershop.ShippingService/ShipOrder, request: "ShipOrderRequest{}"}\n'
    documents = [Document("saga.yaml", saga({"steps": ship})), *([written] if among else [])]
    found = [finding.message for finding in check(documents, participants=views).findings if finding.code == "AM025"]
    assert found == [
        f"The descriptors of Participant default/{name} (localhost:1) are not known: nothing listens there."
        for name in ("cartservice", "shippingservice", "paymentservice")
    ]
