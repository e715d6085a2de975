import importlib.util
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import pytest
from amends_contracts import descriptor_set
from amends_saga.check import CheckResult, check
from amends_saga.compiled import CompiledSaga
from amends_saga.definition import Document
from amends_saga.plan import Scope

REFERENCE = Path(__file__).parents[1] / "reference" / "generate.py"
SHOP = {
    "inventory": "shop.inventory.v1.InventoryService",
    "payments": "shop.payments.v1.PaymentService",
    "shipping": "shop.shipping.v1.ShippingService",
    "orders": "shop.orders.v1.OrderService",
}
HEAD = "apiVersion: amends.dev/v1alpha1\n"
PLACE_ORDER = """apiVersion: amends.dev/v1alpha1
kind: Saga
metadata: {name: place-order, namespace: shop}
spec:
  input: shop.orders.v1.PlaceOrderInput        # a protobuf message
  deadline: 60s                                # for the part that can still be undone
  steps:
    - name: reserve
      call: shop.inventory.v1.InventoryService/Reserve
      request: "ReserveRequest{order_id: input.order_id, lines: input.lines}"
      compensate:
        call: shop.inventory.v1.InventoryService/Release
        request: "ReleaseRequest{order_id: input.order_id}"
    - name: charge
      call: shop.payments.v1.PaymentService/Charge
      request: "ChargeRequest{order_id: input.order_id, amount: input.total, card_token: input.card_token}"
      compensate:
        call: shop.payments.v1.PaymentService/Refund
        request: "RefundRequest{order_id: input.order_id}"
    - name: ship
      pivot: true
      call: shop.shipping.v1.ShippingService/Book
      request: "BookRequest{order_id: input.order_id, address: input.address, lines: input.lines}"
    - name: confirm
      call: shop.orders.v1.OrderService/Confirm
      request: "ConfirmRequest{order_id: input.order_id, tracking_id: ship.tracking_id, payment_id: charge.payment_id}"
"""
INPUT = {
    "orderId": "o-1",
    "lines": [{"sku": "tea", "quantity": 2}],
    "total": {"currency": "EUR", "minor": "995"},
    "cardToken": "tok_visa",
    "address": {"city": "Ulm"},
}


def participant(name: str, service: str, extra: str = "") -> str:
    return (
        f"{HEAD}kind: Participant\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  service: {service}\n"
        f'  target: 127.0.0.1:1\n  methods: ["*"]\n  callers: [shop]\n  barrierRetention: 30d\n{extra}'
    )


@pytest.fixture(scope="session")
def reference() -> ModuleType:
    """The generator of the reference page, which knows the example contract."""
    spec = importlib.util.spec_from_file_location("checker_reference", REFERENCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["checker_reference"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def shop_contract() -> bytes:
    return descriptor_set().SerializeToString()


@pytest.fixture(scope="session")
def check_shop(shop_contract: bytes) -> Callable[..., CheckResult]:
    """Checks a saga beside the shop's Participants."""
    participants = "\n---\n".join(participant(name, service) for name, service in SHOP.items())

    def checked(text: str, *more: str) -> CheckResult:
        documents = [Document("saga.yaml", text), Document("participants.yaml", participants)]
        documents += [Document(f"more-{i}.yaml", item) for i, item in enumerate(more)]
        return check(documents, descriptors=shop_contract)

    return checked


@pytest.fixture(scope="session")
def place_order(check_shop: Callable[..., CheckResult]) -> CompiledSaga:
    return check_shop(PLACE_ORDER).sagas[0]


@pytest.fixture(scope="session")
def order_text() -> str:
    return PLACE_ORDER


@pytest.fixture(scope="session")
def order_input() -> dict[str, object]:
    return INPUT


@pytest.fixture(scope="session")
def make_scope() -> Callable[..., Scope]:
    def scope(data: bytes, responses: dict[int, bytes] | None = None) -> Scope:
        started = datetime(2026, 11, 23, 12, 0, 0, 500_000, UTC)
        return Scope(data, "run-1", "place-order", started, "key-1", responses or {})

    return scope


@pytest.fixture(scope="session")
def demo(reference: ModuleType) -> Callable[..., CheckResult]:
    """Checks steps, a spec or documents against the example contract of the reference page."""
    return reference.run  # type: ignore[no-any-return]
