"""Sagas over contracts of others are judged rightly: the good are accepted, each bad one for its reason."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from amends_saga.analysis import ParticipantView
from amends_saga.check import check
from amends_saga.definition import Document, read

HERE = Path(__file__).parent
CASES: dict[str, list[dict[str, Any]]] = {
    name: yaml.safe_load((HERE / f"{name}.yaml").read_text()) for name in ("boutique", "boutique-more", "logistics")
}
ALL = [pytest.param(name, case, id=f"{name}: {case['name']}") for name, cases in CASES.items() for case in cases]
HEAD = "apiVersion: amends.dev/v1alpha1\n"
READ = "idempotency: NO_SIDE_EFFECTS"
METHODS = {
    "CartService": f"{{name: GetCart, {READ}}}, {{name: EmptyCart, idempotency: IDEMPOTENT}}",
    "ShippingService": f"{{name: GetQuote, {READ}}}, {{name: ShipOrder, idempotency: IDEMPOTENT}}",
    "CurrencyService": f"{{name: Convert, {READ}}}, {{name: GetSupportedCurrencies, {READ}}}",
    "PaymentService": "Charge",
    "EmailService": "{name: SendOrderConfirmation, idempotency: IDEMPOTENT}",
}
MORE = {
    "RecommendationService": f"{{name: ListRecommendations, {READ}}}",
    "ProductCatalogService": f"{{name: GetProduct, {READ}}}, {{name: SearchProducts, {READ}}}",
    "CheckoutService": "PlaceOrder",
    "AdService": f"{{name: GetAds, {READ}}}",
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


def participants(methods: dict[str, str] = METHODS, package: str = "hipstershop") -> str:
    return "---\n".join(
        f"{HEAD}kind: Participant\nmetadata: {{name: {name.lower()}}}\n"
        f"spec: {{service: {package}.{name}, target: localhost:1, callers: [default], "
        f'methods: ["*", {entry if entry[0] == "{" else "{name: " + entry + "}"}]}}\n'
        for name, entry in methods.items()
    )


def saga(case: dict[str, Any], *, first: str = FIRST, given: str = "hipstershop.PlaceOrderRequest") -> str:
    steps = ("" if case.get("alone") else first) + case["steps"]
    indented = "".join(f"    {line}\n" for line in steps.splitlines())
    also = "".join(f"  {line}\n" for line in case.get("also", "").splitlines())
    return (
        f"{HEAD}kind: Saga\nmetadata: {{name: checkout}}\nspec:\n  input: {case.get('input', given)}\n"
        f"  deadline: {case.get('deadline', '5m')}\n{also}  steps:\n{indented}"
    )


def documents(name: str, case: dict[str, Any]) -> list[Document]:
    """Return a case's saga with the Participants that its file of cases is written for."""
    if name == "boutique":
        text, others = saga(case), participants()
    elif name == "boutique-more":
        text, others = saga(case, first=""), participants(METHODS | MORE)
    else:
        text = saga(case, first="", given="acme.logistics.v1.PlaceRequest")
        others = participants({"Orders": "Create", "Wallet": "Hold", "Fleet": "Book"}, "acme.logistics.v1")
    return [Document("saga.yaml", text), Document("participants.yaml", others)]


def test_a_field_of_a_message_without_any_is_told_so(compiled: Callable[..., bytes]) -> None:
    clear = '- {name: clear, call: hipstershop.CartService/EmptyCart, request: "EmptyCartRequest{}"}\n'
    mail = (
        "- {name: mail, call: hipstershop.EmailService/SendOrderConfirmation, "
        'request: "SendOrderConfirmationRequest{email: clear.id}"}\n'
    )
    texts = documents("boutique", {"steps": clear + mail})
    [finding] = [one for one in check(texts, descriptors=compiled("boutique.proto")).findings if one.is_error]
    assert (finding.code, finding.hint) == ("AM061", "The message has no fields at all.")


@pytest.mark.parametrize(("name", "count"), [("boutique", 30), ("boutique-more", 104), ("logistics", 77)])
def test_there_are_as_many_as_it_is_said(name: str, count: int) -> None:
    assert len({case["name"] for case in CASES[name]}) == len(CASES[name]) == count


@pytest.mark.parametrize(("name", "case"), ALL)
def test_a_saga_is_judged_rightly(compiled: Callable[..., bytes], name: str, case: dict[str, Any]) -> None:
    contract = compiled(f"{name.partition('-')[0]}.proto")
    result = check(documents(name, case), descriptors=contract)
    found = [finding.code for finding in result.findings if finding.is_error]
    assert found == case.get("wrong", []), result.findings
    assert bool(result.sagas) == (not found)


@pytest.mark.parametrize("among", [True, False], ids=["among the texts", "in force"])
def test_a_contract_that_is_not_known_is_told_once_a_participant_with_target_and_cause(among: bool) -> None:
    written = Document("participants.yaml", participants())
    views = [ParticipantView(one, None, "nothing listens there") for one in read([written]).participants]
    ship = '- {name: ship, call: hipstershop.ShippingService/ShipOrder, request: "ShipOrderRequest{}"}\n'
    texts = [Document("saga.yaml", saga({"steps": ship})), *([written] if among else [])]
    found = [finding.message for finding in check(texts, participants=views).findings if finding.code == "AM025"]
    assert found == [
        f"The descriptors of Participant default/{name} (localhost:1) are not known: nothing listens there."
        for name in ("cartservice", "shippingservice", "paymentservice")
    ]
