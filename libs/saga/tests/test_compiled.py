from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import ModuleType

import pytest
from amends_saga.bundle import BundleError
from amends_saga.cel.patterns import states
from amends_saga.cel.runtime import MAX_ELEMENTS
from amends_saga.check import CheckResult, check
from amends_saga.compiled import CompiledSaga, InputError, load_bundle
from amends_saga.definition import Document
from amends_saga.plan import ExpressionError, MethodKind, Scope
from google.protobuf import message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import StringValue

from shop.orders.v1.orders_pb2 import ConfirmRequest, PlaceOrderInput
from shop.payments.v1.payments_pb2 import ChargeRequest, ChargeResponse
from shop.shipping.v1.shipping_pb2 import BookResponse

Check = Callable[..., CheckResult]
MakeScope = Callable[..., Scope]


def test_the_plan_says_what_the_engine_needs(place_order: CompiledSaga) -> None:
    plan = place_order.plan
    assert (plan.namespace, plan.saga, plan.deadline) == ("shop", "place-order", timedelta(seconds=60))
    assert [step.name for step in plan.steps] == ["reserve", "charge", "ship", "confirm"]
    assert plan.pivot == 2
    assert [step.post for step in plan.steps] == [False, False, False, True]
    assert all(step.action.kind is MethodKind.GUARDED for step in plan.steps)
    assert plan.steps[1].action.retention == timedelta(days=30)
    assert plan.steps[1].compensation is not None
    assert plan.steps[1].compensation.path == "/shop.payments.v1.PaymentService/Refund"
    assert plan.steps[3].uses == (1, 2)
    assert plan.digest == place_order.digest


def test_requests_are_built_from_the_input_and_the_responses(
    place_order: CompiledSaga, order_input: dict[str, object], make_scope: MakeScope
) -> None:
    data = place_order.parse_input(order_input)
    charge = ChargeRequest.FromString(place_order.request(1, make_scope(data)))
    assert (charge.order_id, charge.amount.minor, charge.card_token) == ("o-1", 995, "tok_visa")
    responses = {
        1: ChargeResponse(payment_id="p-1").SerializeToString(),
        2: BookResponse(tracking_id="t-1").SerializeToString(),
    }
    confirm = ConfirmRequest.FromString(place_order.request(3, make_scope(data, responses)))
    assert (confirm.order_id, confirm.tracking_id, confirm.payment_id) == ("o-1", "t-1", "p-1")


def test_a_step_that_was_skipped_reads_as_an_empty_message(
    place_order: CompiledSaga, order_input: dict[str, object], make_scope: MakeScope
) -> None:
    data = place_order.parse_input(order_input)
    assert ConfirmRequest.FromString(place_order.request(3, make_scope(data))).payment_id == ""


def test_a_bundle_gives_the_same_saga_again(
    place_order: CompiledSaga, order_input: dict[str, object], make_scope: MakeScope
) -> None:
    again = load_bundle(place_order.bundle)
    scope = make_scope(place_order.parse_input(order_input))
    assert again.plan == place_order.plan
    assert again.request(0, scope) == place_order.request(0, scope)
    assert again.compensation(0, scope) == place_order.compensation(0, scope)
    assert again.input_descriptor.full_name == "shop.orders.v1.PlaceOrderInput"


GOLDEN = Path(__file__).parent / "golden" / "bundle-1.json"


def test_a_bundle_of_the_first_format_is_read_for_ever(make_scope: MakeScope) -> None:
    saga = load_bundle(GOLDEN.read_bytes())
    assert saga.digest == "0102cde90172cb43ba803593a7ac4e66d5a8aba1e2ca1af31456c8de4e2078ee"
    assert [step.name for step in saga.plan.steps] == ["reserve", "charge", "book"]
    assert saga.plan.pivot == 2
    data = saga.parse_input({"orderId": "o-1", "total": {"minor": 5}, "lines": [{"sku": "tea", "quantity": 2}]})
    assert saga.request(0, make_scope(data)) == b"\n\x03o-1\x12\x07\n\x03tea\x10\x02"
    assert saga.request(1, make_scope(data)) == b"\n\x03o-1\x12\x02\x10\x05"
    assert saga.compensation(0, make_scope(data)) == b"\n\x03o-1"


def test_a_message_of_proto2_keeps_its_required_fields(demo: Check, make_scope: MakeScope) -> None:
    request = "BookRequest{parcel: Parcel{label: input.order_id}}"
    [saga] = demo(f'- {{name: book, call: demo.v1.Shipping/Book, request: "{request}"}}').sagas
    again = load_bundle(saga.bundle)
    assert again.request(0, make_scope(saga.parse_input({"orderId": "o"}))) == b"\x3a\x03\n\x01o"


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b'{"format":2}', b'{"format":1,"descriptors":"AAAA"}'])
def test_bytes_that_are_no_bundle_are_refused(data: bytes) -> None:
    with pytest.raises(BundleError):
        load_bundle(data)


def test_the_digest_is_of_what_the_saga_reaches(check_shop: Check, place_order: CompiledSaga, order_text: str) -> None:
    commented = order_text.replace("deadline: 60s", "deadline: 60s  # a minute") + "# the end\n"
    assert check_shop(commented).sagas[0].digest == place_order.digest
    assert check_shop(order_text.replace("60s  ", "61s  ")).sagas[0].digest != place_order.digest


def test_an_unrelated_change_of_a_contract_keeps_the_digest(
    place_order: CompiledSaga, order_text: str, shop_contract: bytes
) -> None:
    files = FileDescriptorSet.FromString(shop_contract)
    for file in files.file:
        file.ClearField("source_code_info")
        if file.name.startswith("shop/orders") and file.service:
            file.message_type.add(name="Unrelated").field.add(name="a", number=1, type=9, label=1)
            file.service[0].method.add(
                name="More", input_type=".shop.orders.v1.Unrelated", output_type=".shop.orders.v1.Unrelated"
            )
    participants = "\n---\n".join(
        f"apiVersion: amends.dev/v1alpha1\nkind: Participant\nmetadata: {{name: p{i}, namespace: shop}}\n"
        f'spec: {{service: {call.service}, target: "dns:///a:1", '
        f'methods: ["*"], callers: [shop], barrierRetention: 30d}}'
        for i, call in enumerate(step.action for step in place_order.plan.steps)
    )
    documents = [Document("s", order_text), Document("p", participants)]
    changed = check(documents, descriptors=files.SerializeToString()).sagas[0]
    assert changed.digest == place_order.digest
    orders = next(file for file in files.file if file.name.startswith("shop/orders") and file.service)
    given = next(message for message in orders.message_type if message.name == "PlaceOrderInput")
    given.field.add(name="note", number=99, type=9, label=1, json_name="note")
    assert check(documents, descriptors=files.SerializeToString()).sagas[0].digest != place_order.digest


def test_redacted_fields_are_hidden_wherever_they_are_shown(
    place_order: CompiledSaga, order_input: dict[str, object], make_scope: MakeScope
) -> None:
    data = place_order.parse_input(order_input)
    shown = place_order.input_json(data)
    assert shown["cardToken"] == "[REDACTED]"
    assert "tok_visa" not in str(shown)
    assert place_order.input_json(data, redact=False)["cardToken"] == "tok_visa"
    request = place_order.request(1, make_scope(data))
    assert place_order.request_json(1, request)["cardToken"] == "[REDACTED]"
    assert place_order.request_json(0, place_order.compensation(0, make_scope(data)), compensation=True) == {
        "orderId": "o-1"
    }
    assert place_order.to_json(1, ChargeResponse(payment_id="p").SerializeToString()) == {"paymentId": "p"}
    assert place_order.to_json(1, b"\xff\xff") == {"@error": "not shown: 2 bytes"}


def test_a_redacted_field_inside_an_any_is_hidden_too(demo: Check) -> None:
    saga = demo('- {name: book, call: demo.v1.Shipping/Book, request: "BookRequest{?extra: input.?extra}"}').sagas[0]
    packed = {"extra": {"payload": {"@type": "type.googleapis.com/demo.v1.Input", "orderId": "o", "token": "secret"}}}
    shown = saga.input_json(saga.parse_input(packed))
    assert shown["extra"]["payload"]["token"] == "[REDACTED]"
    assert "secret" not in str(shown)


def test_requests_of_well_known_types_are_made_of_plain_values(reference: ModuleType, make_scope: MakeScope) -> None:
    files = FileDescriptorSet.FromString(reference.contract())
    contract = next(file for file in files.file if file.name == "contract.proto")
    contract.dependency.extend(["google/protobuf/wrappers.proto", "google/protobuf/struct.proto"])
    service = next(service for service in contract.service if service.name == "Shipping")
    for name in ("StringValue", "Struct", "Timestamp", "ListValue"):
        method = service.method.add(
            name=name, input_type=f".google.protobuf.{name}", output_type=f".google.protobuf.{name}"
        )
        method.options.idempotency_level = method.options.NO_SIDE_EFFECTS
    steps = "".join(
        f"- {{name: a_{name.lower()}, call: demo.v1.Shipping/{name}, request: {request!r}}}\n"
        for name, request in {
            "StringValue": '"a" + input.order_id',
            "Struct": '{"a": a_stringvalue}',
            "Timestamp": "saga.started_at",
            "ListValue": "[1, a_struct.a]",
        }.items()
    )
    shipping = (
        "apiVersion: amends.dev/v1alpha1\nkind: Participant\nmetadata: {name: shipping, namespace: shop}\n"
        'spec: {service: demo.v1.Shipping, target: "dns:///a:1", methods: ["*"], callers: [shop]}'
    )
    documents = [Document("s", reference.whole(steps)), Document("p", shipping)]
    result = check(documents, descriptors=files.SerializeToString())
    assert result.findings == []
    [saga] = result.sagas
    scope = make_scope(build(saga, order_id="b"), {0: StringValue(value="x").SerializeToString()})
    assert StringValue.FromString(saga.request(0, scope)).value == "ab"
    assert Struct.FromString(saga.request(1, scope))["a"] == "x"
    assert Timestamp.FromString(saga.request(2, scope)).ToDatetime().year == 2026
    with pytest.raises(ExpressionError):
        saga.request(3, scope)  # the struct is empty here


@pytest.mark.parametrize(
    ("change", "path", "words"),
    [
        ({"orderid": "o"}, "orderid", "Did you mean `orderId`?"),
        ({"orderId": 1}, "orderId", "a text"),
        ({"lines": {}}, "lines", "a list"),
        ({"lines": [{"sku": "a", "quantity": "x"}]}, "lines[0].quantity", "a whole number"),
        ({"lines": [{"sku": "a", "quantity": 2**31}]}, "lines[0].quantity", "must be from"),
        ({"lines": [{"sku": "a", "amount": 2}]}, "lines[0].amount", "no such field"),
        ({"total": 5}, "total", "an object"),
        ({"total": {"minor": "1.5"}}, "total.minor", "a whole number"),
        ({"total": None}, "total", "must be set"),
        ({"address": None}, "address", "must be set"),
    ],
)
def test_a_wrong_input_is_refused_with_its_path(
    place_order: CompiledSaga, order_input: dict[str, object], change: dict[str, object], path: str, words: str
) -> None:
    with pytest.raises(InputError) as caught:
        place_order.parse_input({**order_input, **change})
    assert caught.value.path == path
    assert words in caught.value.message


def test_an_input_in_either_spelling_and_in_bytes_is_the_same(
    place_order: CompiledSaga, order_input: dict[str, object]
) -> None:
    spelt = dict(order_input)
    spelt["order_id"] = spelt.pop("orderId")
    assert place_order.parse_input(spelt) == place_order.parse_input(order_input)
    data = place_order.parse_input(order_input)
    assert place_order.check_input(data) == data
    with pytest.raises(InputError, match="total"):
        place_order.check_input(PlaceOrderInput(order_id="o", address={}).SerializeToString())
    with pytest.raises(InputError, match="no shop"):
        place_order.check_input(b"\xff")


def test_what_a_person_assumes_for_a_skipped_step_is_checked(place_order: CompiledSaga) -> None:
    assert ChargeResponse.FromString(place_order.parse_response(1, {"paymentId": "p"})).payment_id == "p"
    with pytest.raises(InputError, match="paymentid"):
        place_order.parse_response(1, {"paymentid": "p"})


def compiled(
    demo: Check, request: str, *, call: str = "demo.v1.Stock/Reserve", undo: str = "ReleaseRequest{}"
) -> CompiledSaga:
    compensation = f'{{call: demo.v1.Stock/Release, request: "{undo}"}}'
    result = demo(f'- name: reserve\n  call: {call}\n  request: "{request}"\n  compensate: {compensation}\n')
    assert result.ok, result.findings
    return result.sagas[0]


def build(saga: CompiledSaga, **fields: object) -> bytes:
    made = message_factory.GetMessageClass(saga.input_descriptor)
    return made(**fields).SerializeToString(deterministic=True)


@pytest.mark.parametrize(
    "expression",
    [
        "ReserveRequest{order_id: input.lines[0].sku}",
        "ReserveRequest{order_id: string(1 / input.pieces)}",
        "ReserveRequest{order_id: {'a': 'b'}[input.order_id]}",
        "ReserveRequest{order_id: string(int(input.order_id))}",
        "ReserveRequest{order_id: string(timestamp(input.order_id))}",
        "ReserveRequest{order_id: input.?coupon.value()}",
        "ReserveRequest{order_id: string(9223372036854775807 + input.weight)}",
        "ReserveRequest{lines: [Line{quantity: int(input.weight * 3000000000)}]}",
        "ReserveRequest{order_id: string(input.weight == 0 ? b'' : b'\\\\xff')}",
    ],
)
def test_every_way_to_fail_is_one_error_that_quotes_nothing(
    demo: Check, make_scope: MakeScope, expression: str
) -> None:
    saga = compiled(demo, expression)
    data = build(saga, order_id="secret(", weight=1)
    with pytest.raises(ExpressionError) as caught:
        saga.request(0, make_scope(data))
    assert "secret" not in str(caught.value)
    assert "reserve" in str(caught.value)


def test_an_input_that_is_no_message_is_an_expression_error(demo: Check, make_scope: MakeScope) -> None:
    with pytest.raises(ExpressionError):
        compiled(demo, "ReserveRequest{order_id: input.order_id}").request(0, make_scope(b"\xff"))


def test_a_comprehension_is_bounded_before_it_runs(demo: Check, make_scope: MakeScope) -> None:
    saga = compiled(demo, "ReserveRequest{lines: input.lines.map(l, Line{sku: l.sku})}")
    fits = build(saga, lines=[{"sku": "a"}] * MAX_ELEMENTS)
    assert saga.request(0, make_scope(fits))
    with pytest.raises(ExpressionError, match="1,001 elements"):
        saga.request(0, make_scope(build(saga, lines=[{"sku": "a"}] * (MAX_ELEMENTS + 1))))


def test_large_values_in_a_comprehension_are_refused_before_they_are_copied(demo: Check, make_scope: MakeScope) -> None:
    saga = compiled(demo, "ReserveRequest{lines: input.lines.map(l, Line{sku: input.order_id + l.sku})}")
    lines = [{"sku": "a"}] * MAX_ELEMENTS
    with pytest.raises(ExpressionError, match="65,536 KiB"):
        saga.request(0, make_scope(build(saga, lines=lines, order_id="x" * 100_000)))
    assert saga.request(0, make_scope(build(saga, lines=lines, order_id="x" * 100, token="y" * 1_000_000)))


@pytest.mark.parametrize(
    "condition",
    ["input.order_id.matches('[ab]*a[ab]{200}c')", "input.order_id.contains(input.token)"],
)
def test_searching_a_long_text_is_refused_before_it_is_begun(
    demo: Check, make_scope: MakeScope, condition: str
) -> None:
    saga = compiled(demo, f"ReserveRequest{{order_id: {condition} ? 'a' : 'b'}}")
    long = "ab" * 200_000
    with pytest.raises(ExpressionError, match="would touch"):
        saga.request(0, make_scope(build(saga, order_id=long, token=long[:100_000] + "c")))
    assert saga.request(0, make_scope(build(saga, order_id=long[:10_000], token="c")))


def test_a_pattern_of_many_states_is_counted_so() -> None:
    wide = [
        "a{1000}",
        "((a{10}){10}){10}",
        ".{90}",
        r"\pL",
        r"[\pL\d]",
        "[^a]{90}",
        "(a|b){400}",
        "(?i)(abc){200}",
        "é{900}",
    ]
    assert [pattern for pattern in wide if states(pattern) < 900] == []
    small = [
        "",
        "a",
        "^[A-Z]{3}-[0-9]+$",
        "(((((a)))))",
        "a{",
        "a{x}",
        "[]a]",
        "[a",
        "(",
        ")",
        "\\",
        r"\Qa{900}\E",
        "(?P<n>a)",
    ]
    assert [pattern for pattern in small if states(pattern) > 90] == []


def test_a_result_is_at_most_a_mebibyte(demo: Check, make_scope: MakeScope) -> None:
    saga = compiled(demo, "ReserveRequest{order_id: input.order_id}")
    assert saga.request(0, make_scope(build(saga, order_id="x" * (1024 * 1024 - 10))))
    with pytest.raises(ExpressionError, match="larger than"):
        saga.request(0, make_scope(build(saga, order_id="x" * (1024 * 1024))))


def test_a_compensation_sees_the_response_of_its_own_step(demo: Check, make_scope: MakeScope) -> None:
    saga = compiled(demo, "ReserveRequest{}", undo="ReleaseRequest{reservation_id: reserve.reservation_id}")
    [step] = saga.plan.steps
    assert step.compensation is not None
    assert step.compensation.uses_self
    assert step.uses == ()
    made = message_factory.GetMessageClass(saga.response_descriptor(0))
    response = made(reservation_id="r-1").SerializeToString()
    assert saga.compensation(0, make_scope(build(saga), {0: response})) == b"\x12\x03r-1"


def test_a_step_without_compensation_has_none_to_build(place_order: CompiledSaga, make_scope: MakeScope) -> None:
    with pytest.raises(LookupError):
        place_order.compensation(2, make_scope(b""))


def test_a_condition_decides_whether_a_step_runs(demo: Check, make_scope: MakeScope) -> None:
    undo = '{call: demo.v1.Stock/Release, request: "ReleaseRequest{}"}'
    [saga] = demo(
        f'- name: reserve\n  when: "input.pieces > 1"\n  call: demo.v1.Stock/Reserve\n  request: "ReserveRequest{{}}"\n'
        f"  compensate: {undo}\n"
    ).sagas
    assert saga.plan.steps[0].has_when
    assert not saga.when(0, make_scope(build(saga, pieces=1)))
    assert saga.when(0, make_scope(build(saga, pieces=2)))


def test_a_step_without_condition_always_runs(place_order: CompiledSaga, make_scope: MakeScope) -> None:
    assert place_order.when(0, make_scope(b""))


def test_the_run_itself_is_in_scope(demo: Check, make_scope: MakeScope) -> None:
    saga = compiled(demo, "ReserveRequest{order_id: saga.run_id + saga.idempotency_key + string(saga.started_at)}")
    text = b"run-1key-12026-11-23T12:00:00.500Z"
    assert saga.request(0, make_scope(build(saga))) == b"\n" + bytes([len(text)]) + text


def test_an_inline_input_is_a_message_of_its_own(demo: Check, make_scope: MakeScope) -> None:
    result = demo(
        "input:\n  order_id: string\n  lines: repeated demo.v1.Line\n  coupon: optional string\n"
        "  counts: map<string, int32>\n  when_: optional google.protobuf.Timestamp\n"
        "deadline: 5m\nsteps:\n"
        "  - {name: credit, call: demo.v1.Payments/Credit, "
        'request: "ChargeRequest{order_id: input.order_id + string(size(input.lines)), ?coupon: input.?coupon}"}\n'
    )
    assert result.findings == []
    [saga] = result.sagas
    data = saga.parse_input({"orderId": "o", "lines": [{"sku": "a"}], "counts": {"a": 1}})
    assert saga.request(0, make_scope(data)) == b"\n\x02o1"
    with pytest.raises(InputError, match="counts"):
        saga.parse_input({"counts": {"a": "b"}})
    assert load_bundle(saga.bundle).parse_input({"orderId": "o"}) == saga.parse_input({"orderId": "o"})


def test_a_run_among_the_documents_is_checked_against_its_saga(check_shop: Check, order_text: str) -> None:
    run = (
        "apiVersion: amends.dev/v1alpha1\nkind: SagaRun\nmetadata: {name: r, namespace: shop}\n"
        "spec:\n  saga: place-order\n  input:\n    total: {}\n    address: {}\n    lines:\n      - {skuu: a}\n"
    )
    [finding] = check_shop(order_text, run).findings
    assert (finding.code, finding.place.line) == ("AM010", 10)
    assert "lines[0].skuu" in finding.message


def test_an_input_that_does_not_fit_is_not_told_to_be_a_message_that_nobody_wrote(check_shop: Check) -> None:
    saga = (
        "apiVersion: amends.dev/v1alpha1\nkind: Saga\nmetadata: {name: free, namespace: shop}\n"
        "spec:\n  input: {order_id: string}\n  deadline: 60s\n  steps:\n    - name: free\n"
        "      call: shop.inventory.v1.InventoryService/Release\n"
        "      request: 'ReleaseRequest{order_id: input.order_id}'\n"
    )
    run = (
        "apiVersion: amends.dev/v1alpha1\nkind: SagaRun\nmetadata: {name: r, namespace: shop}\n"
        "spec: {saga: free, input: {orderId: 10}}\n"
    )
    [finding] = check_shop(saga, run).findings
    assert finding.message == "The input does not fit: orderId: It must be a text."
    assert finding.hint == "Write it as canonical protobuf JSON of the fields that the saga's `input` declares."
