"""What expressions may copy, use and cost, one row for each way of writing it."""

from collections.abc import Callable

import pytest
from amends_saga.check import CheckResult

Check = Callable[..., CheckResult]
CREDIT = "demo.v1.Payments/Credit"


def said(demo: Check, request: str, *, call: str = CREDIT, when: str = "") -> list[str]:
    steps = f'- name: credit\n  call: {call}\n  request: "{request}"\n'
    if when:
        undo = '{call: demo.v1.Payments/Refund, request: "RefundRequest{}"}'
        steps += f'  when: "{when}"\n  compensate: {undo}\n'
    return [finding.code for finding in demo(steps).findings]


@pytest.mark.parametrize(
    "request_",
    [
        "ChargeRequest{?coupon: input.?coupon}",
        "ChargeRequest{?amount: input.?total}",
        "ChargeRequest{amount: input.total}",  # made certain by refusing an input without it
        "input.order_id == '' ? ChargeRequest{amount: input.total} : ChargeRequest{}",  # fails without it
        "has(input.coupon) ? ChargeRequest{coupon: input.coupon} : ChargeRequest{}",
        "!has(input.coupon) ? ChargeRequest{} : ChargeRequest{coupon: input.coupon}",
        "has(input.coupon) && true ? ChargeRequest{coupon: input.coupon} : ChargeRequest{}",
        "!has(input.coupon) || false ? ChargeRequest{} : ChargeRequest{coupon: input.coupon}",
        "ChargeRequest{coupon: has(input.coupon) ? input.coupon : 'none'}",
        "ChargeRequest{coupon: input.?coupon.orValue('none')}",
        "ChargeRequest{coupon: 'fixed'}",
        "ChargeRequest{order_id: 'x' + input.coupon}",
        "ChargeRequest{?card: input.?card, ?iban: input.?iban}",
        "ChargeRequest{amount: Money{currency: input.total.currency}}",
        "ChargeRequest{?amount: has(input.total) ? optional.of(input.total) : optional.none()}",
        "ChargeRequest{?coupon: optional.ofNonZeroValue(input.coupon)}",
        "ChargeRequest{order_id: saga.run_id + saga.name + saga.idempotency_key}",
        "ChargeRequest{order_id: string(saga.started_at)}",
        "ChargeRequest{at: saga.started_at}",
        "ChargeRequest{coupon: input.coupon}",  # both know whether it was set
        "input.order_id == '' ? ChargeRequest{coupon: input.coupon} : ChargeRequest{}",
    ],
)
def test_copies_that_lose_nothing_are_accepted(demo: Check, request_: str) -> None:
    assert said(demo, request_) == []


@pytest.mark.parametrize(
    "request_",
    [
        "ChargeRequest{order_id: input.coupon}",
        "has(input.total) ? ChargeRequest{order_id: input.coupon} : ChargeRequest{}",
        "has(input.coupon) || true ? ChargeRequest{order_id: input.coupon} : ChargeRequest{}",
        "has(input.coupon) ? ChargeRequest{} : ChargeRequest{order_id: input.coupon}",
        "ChargeRequest{card: input.card}",
        "ChargeRequest{?coupon: optional.of(input.coupon)}",
        "ChargeRequest{coupon: input.order_id == '' ? input.coupon : 'x'}",
        "ChargeRequest{coupon: input.?card.orValue(input.coupon)}",
    ],
)
def test_copying_a_field_that_may_be_unset_is_an_error(demo: Check, request_: str) -> None:
    assert said(demo, request_) == ["AM066"]


def test_a_condition_that_asks_for_a_field_guards_the_request(demo: Check) -> None:
    assert said(demo, "ChargeRequest{order_id: input.coupon}", when="has(input.coupon) && input.pieces > 0") == []
    assert said(demo, "ChargeRequest{order_id: input.coupon}", when="input.pieces > 0") == ["AM066"]


@pytest.mark.parametrize(
    "request_",
    [
        "ChargeRequest{card: 'a', iban: 'b'}",
        "ChargeRequest{?card: input.?card, iban: 'b'}",
        "ChargeRequest{?card: input.?card, ?iban: input.?card}",
    ],
)
def test_two_arms_of_a_oneof_are_an_error(demo: Check, request_: str) -> None:
    assert said(demo, request_) == ["AM067"]


@pytest.mark.parametrize(
    "request_",
    [
        "ChargeRequest{order_id: 'a', order_id: 'b'}",
        "ChargeRequest{?coupon: input.?coupon, coupon: 'b'}",
        "ChargeRequest{card: 'a', card: 'b'}",
        "ChargeRequest{amount: Money{currency: 'a', currency: 'b'}}",
    ],
)
def test_a_field_that_is_set_twice_is_an_error(demo: Check, request_: str) -> None:
    assert said(demo, request_) == ["AM007"]


def test_the_same_field_of_two_messages_is_none(demo: Check) -> None:
    two = "ReserveRequest{lines: [Line{sku: 'a'}, Line{sku: 'b'}]}"
    assert said(demo, f"size({two}.lines) > 1 ? ChargeRequest{{card: 'a'}} : ChargeRequest{{card: 'b'}}") == []


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("input.weight", "AM068"),
        ("input.pieces + 1", "AM068"),
        ("int('5')", "AM068"),
        ("input.pieces > 1 ? input.weight : 1", "AM068"),
        ("2147483648", "AM069"),
        ("-2147483649", "AM069"),
        ("2147483647", None),
        ("-2147483648", None),
        ("input.pieces", None),
        ("input.lines[0].quantity", None),
        ("input.pieces > 1 ? input.pieces : 1", None),
        ("size(input.lines)", None),
    ],
)
def test_numbers_that_may_not_fit_are_told(demo: Check, value: str, code: str | None) -> None:
    found = said(demo, f"BookRequest{{grams: {value}}}", call="demo.v1.Shipping/Book")
    assert found == ([code] if code else [])


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ("", "AM060"),
        ("ChargeRequest{", "AM060"),
        ("if", "AM060"),
        ("ChargRequest{}", "AM061"),
        ("inputs.order_id", "AM061"),
        ("ChargeRequest{order: input.order_id}", "AM061"),
        ("ChargeRequest{order_id: input.total.minr}", "AM061"),
        ("ChargeRequest{order_id: 1}", "AM062"),
        ("ChargeRequest{order_id: 'a' + 1}", "AM062"),
        ("input.total", "AM063"),
        ("1", "AM063"),
        ("dyn(ChargeRequest{})", "AM063"),
        ("ChargeRequest{order_id: '" + "x" * 17_000 + "'}", "AM065"),
        ("(" * 40 + "1" + ")" * 40, "AM065"),
        ("[1].map(x, [2].map(y, y))", "AM065"),
        ("[1].map(x, x).map(y, y)", "AM065"),
        ("ChargeRequest{order_id: credit.payment_id}", "AM064"),
        ("ChargeRequest{order_id: 'a'.matches('[') ? 'a' : 'b'}", "AM072"),
        ("ChargeRequest{order_id: 'a'.matches(input.order_id) ? 'a' : 'b'}", "AM065"),
        ("ChargeRequest{order_id: matches('a', 'a' + input.order_id) ? 'a' : 'b'}", "AM065"),
        ("ChargeRequest{order_id: 'a'.matches('.{1,900}') ? 'a' : 'b'}", "AM065"),
        ("ChargeRequest{order_id: 'a'.matches('((a{9}){9}){9}(b{999}|c{999})') ? 'a' : 'b'}", "AM065"),
        ("ChargeRequest{order_id: 'a'.matches('[\\\\\\\\pL]{3}') ? 'a' : 'b'}", "AM065"),
        ("input.lines.exists(l, l.sku.matches('.{20}')) ? ChargeRequest{} : ChargeRequest{order_id: 'a'}", "AM065"),
    ],
)
def test_an_expression_that_could_never_run_is_refused(demo: Check, request_: str, code: str) -> None:
    assert said(demo, request_) == [code]


@pytest.mark.parametrize("pattern", ["^[A-Z]{3}-[0-9]{1,8}$", "^.{1,60}$", "^[^@]+@[^@]+[.][a-z]{2,}$", "^(?i)(a|b)*$"])
def test_a_pattern_as_people_write_them_is_accepted(demo: Check, pattern: str) -> None:
    assert said(demo, f"ChargeRequest{{order_id: input.order_id.matches('{pattern}') ? 'a' : 'b'}}") == []


def test_a_small_pattern_may_be_matched_for_each_element(demo: Check) -> None:
    request = "input.lines.all(l, l.sku.matches('^[A-Z]+-[0-9]+$')) ? ChargeRequest{} : ChargeRequest{order_id: 'a'}"
    assert said(demo, request) == []


def test_the_caret_stands_under_the_name_and_a_name_is_suggested(demo: Check) -> None:
    steps = """- name: credit
  call: demo.v1.Payments/Credit
  request: |
    ChargeRequest{
      order_id: input.order_id,
      ?amount: input.?totl
    }
"""
    [finding] = demo(steps).findings
    assert finding.place.excerpt.strip() == "?amount: input.?totl"
    assert finding.place.excerpt[finding.place.column - 1 :].startswith("totl")
    assert finding.hint == "Did you mean `total`?"


@pytest.mark.parametrize(
    ("request_", "meant"),
    [
        ("demo.v1.ChargRequest{}", "Did you mean `demo.v1.ChargeRequest`?"),
        ("credits.v1.Note{}", ""),
        ("credits.Note{}", ""),
        ("ChargeRequest{order_id: credits.payment_id}", "Did you mean `credit.payment_id`?"),
    ],
)
def test_no_step_is_offered_for_a_package(demo: Check, request_: str, meant: str) -> None:
    [finding] = demo(f'- name: credit\n  call: {CREDIT}\n  request: "{request_}"\n').findings
    assert finding.code == "AM061"
    assert finding.hint.startswith(meant or "Use ")


def test_a_mistake_in_the_middle_of_a_path_is_told_once(demo: Check) -> None:
    assert said(demo, "ChargeRequest{order_id: input.totl.currency.x}") == ["AM061"]


def test_all_mistakes_of_an_expression_are_found_at_once(demo: Check) -> None:
    assert said(demo, "ChargeRequest{order_id: input.a, coupon: input.b}") == ["AM061", "AM061"]


def two_steps(second: str, *, when: str = "input.pieces > 0", second_when: str = "") -> str:
    condition = f'\n  when: "{second_when}"' if second_when else ""
    return f"""- name: charge
  when: "{when}"
  call: demo.v1.Payments/Charge
  request: "ChargeRequest{{}}"
  compensate: {{call: demo.v1.Payments/Refund, request: "RefundRequest{{order_id: charge.payment_id}}"}}
- name: count{condition}
  call: demo.v1.Stock/Count
  request: "{second}"
"""


@pytest.mark.parametrize(
    "second",
    [
        "CountRequest{sku: has(charge.payment_id) ? charge.payment_id : ''}",
        "CountRequest{?sku: charge.?payment_id}",
        "CountRequest{sku: charge.?payment_id.orValue('none')}",
        "charge.?payment_id.hasValue() ? CountRequest{sku: charge.payment_id} : CountRequest{}",
    ],
)
def test_a_guarded_use_of_a_skipped_step_is_accepted(demo: Check, second: str) -> None:
    assert demo(two_steps(second)).findings == []


@pytest.mark.parametrize(
    "second",
    [
        "CountRequest{sku: charge.payment_id}",
        "CountRequest{sku: charge.payment_id == '' ? 'a' : 'b'}",
        "CountRequest{sku: has(input.coupon) ? charge.payment_id : ''}",
    ],
)
def test_a_bare_use_of_a_skipped_step_is_an_error(demo: Check, second: str) -> None:
    assert [finding.code for finding in demo(two_steps(second)).findings] == ["AM070"]


@pytest.mark.parametrize(
    ("when", "condition", "accepted"),
    [
        ("input.pieces > 0", "input.pieces > 0 ? charge.payment_id : ''", True),
        ("input.pieces > 0", "(input.pieces>0) && input.order_id != '' ? charge.payment_id : ''", True),
        ("input.pieces > 0", "input.pieces > 0 || input.order_id != '' ? charge.payment_id : ''", False),
        ("input.pieces > 0", "input.pieces > 1 ? charge.payment_id : ''", False),
        ("input.pieces > 0", "input.pieces > 0 ? '' : charge.payment_id", False),
        ("input.order_id != ''", "input.order_id == '' ? '' : charge.payment_id", True),
        ("input.order_id != ''", "input.order_id == '' || input.pieces == 0 ? '' : charge.payment_id", True),
        ("input.order_id != ''", "input.order_id == '' ? charge.payment_id : ''", False),
        ("!has(input.coupon)", "has(input.coupon) ? '' : charge.payment_id", True),
        ("'' != input.order_id", "input.order_id != '' ? charge.payment_id : ''", True),
        ("'' != input.order_id", "'x' != input.order_id ? charge.payment_id : ''", False),
        ("true == has(input.coupon)", "has(input.coupon) ? charge.payment_id : ''", True),
        ("true != has(input.coupon)", "false == has(input.coupon) ? charge.payment_id : ''", True),
        ("true != has(input.coupon)", "has(input.coupon) ? charge.payment_id : ''", False),
        ("!has(input.coupon)", "has(input.coupon) == false ? charge.payment_id : ''", True),
        ("!has(input.coupon)", "has(input.coupon) != true && true ? charge.payment_id : ''", True),
        ("has(input.coupon) == false", "!has(input.coupon) ? charge.payment_id : ''", True),
        ("!has(input.coupon)", "has(input.coupon) ? charge.payment_id : ''", False),
        ("input.pieces > 0 && has(input.coupon)", "input.pieces > 0 ? charge.payment_id : ''", False),
        ("input.pieces > 0 || has(input.coupon)", "input.pieces > 0 ? charge.payment_id : ''", False),
    ],
)
def test_a_branch_under_the_steps_condition_may_use_its_response(
    demo: Check, when: str, condition: str, accepted: bool
) -> None:
    found = [finding.code for finding in demo(two_steps(f"CountRequest{{sku: {condition}}}", when=when)).findings]
    assert found == ([] if accepted else ["AM070"])


@pytest.mark.parametrize(
    ("lines", "part"),
    [
        ("[Line{sku: 'a'}, Line{sku: 'b'}]", ""),
        ("[Line{sku: 'a'}, Money{}]", ""),
        ("input.lines + [Line{}, input.lines[0]]", ""),
        ("input.lines + [Line{}, 'x']", "x"),
    ],
)
def test_elements_of_several_types_are_held_against_the_field(demo: Check, lines: str, part: str) -> None:
    request = f"ReserveRequest{{lines: {lines}}}"
    undo = 'compensate: {call: demo.v1.Stock/Release, request: "ReleaseRequest{}"}'
    steps = f'- name: reserve\n  call: demo.v1.Stock/Reserve\n  request: "{request}"\n  {undo}\n'
    wrong = "Money" in lines or bool(part)
    assert [finding.code for finding in demo(steps).findings] == (["AM062"] if wrong else [])


@pytest.mark.parametrize(
    ("grams", "fits"),
    [
        ("int(input.weight % 1000)", True),
        ("input.weight % 2147483648", True),
        ("int((input.weight + 1) % 1000000000)", True),
        ("input.weight % 4000000000", False),
        ("input.weight % input.weight", False),
    ],
)
def test_a_remainder_of_a_small_divisor_fits(demo: Check, grams: str, fits: bool) -> None:
    found = demo(f'- {{name: book, call: demo.v1.Shipping/Book, request: "BookRequest{{grams: {grams}}}"}}\n').findings
    assert [finding.code for finding in found] == ([] if fits else ["AM068"])


def test_a_step_under_the_same_condition_may_use_the_response(demo: Check) -> None:
    use = "CountRequest{sku: charge.payment_id}"
    assert demo(two_steps(use, second_when="input.pieces>0 && input.order_id != ''")).findings == []
    assert demo(two_steps(use, second_when="has(charge.payment_id)")).findings == []
    assert [f.code for f in demo(two_steps(use, second_when="input.pieces > 1")).findings] == ["AM070"]


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        ("ChargeRequest{token: input.token}", False),
        ("ChargeRequest{token: 'a' + input.token}", False),
        ("ChargeRequest{order_id: input.token}", True),
        ("ChargeRequest{order_id: 'a' + input.token}", True),
        ("ChargeRequest{?coupon: optional.of(input.token)}", True),
        ("ChargeRequest{?coupon: input.?token}", True),
        ("ChargeRequest{order_id: input.token == '' ? 'a' : 'b'}", False),
        ("ChargeRequest{order_id: string(size(input.token))}", False),
    ],
)
def test_a_redacted_value_that_becomes_visible_is_told(demo: Check, request_: str, told: bool) -> None:
    assert said(demo, request_) == (["AM071"] if told else [])
