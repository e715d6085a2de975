"""Never a traceback and never more than a moment, whatever the text, the expressions, the graph or the messages."""

import random
import time
from collections.abc import Callable
from types import ModuleType

import pytest
from amends_saga import codes
from amends_saga.check import CheckResult, check
from amends_saga.check.render import as_json, figures_table, sarif, text
from amends_saga.definition import Document
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

Check = Callable[..., CheckResult]
LIMIT = 3.0
"""Seconds of this process's own time, so that a busy machine does not matter.

Each of these takes less than one on an idle machine; work that grows with the square of the text takes minutes.
"""


def shown(result: CheckResult) -> None:
    """Everything that was found can be shown, and has a code that exists."""
    assert {finding.code for finding in result.findings} <= set(codes.ALL)
    text(result.findings)
    as_json(result.findings, result.figures)
    sarif(result.findings)
    for figures in result.figures:
        figures_table(figures)
    assert all(finding.place.line >= 0 for finding in result.findings)


WORDS = [
    "apiVersion: amends.dev/v1alpha1",
    "kind: Saga",
    "kind: Participant",
    "kind: RetryPolicy",
    "metadata: {name: a, namespace: shop}",
    "spec:",
    "  input: demo.v1.Input",
    "  input: {a: string, b: repeated demo.v1.Line, c: 'map<string, demo.v1.Line>'}",
    "  deadline: 5s",
    "  steps:",
    "    - name: a",
    "    - name: b",
    "      call: demo.v1.Shipping/Book",
    "      call: demo.v1.Stock/Reserve",
    "      call: demo.v1.Bank/Transfer",
    "      request: BookRequest{order_id: a.tracking_id}",
    "      request: ReserveRequest{}",
    "      when: input.pieces > 0",
    "      when: has(a.tracking_id)",
    "      pivot: true",
    "      after: [a]",
    "      after: [b]",
    "      after: []",
    "      compensate: {call: demo.v1.Stock/Release, request: 'ReleaseRequest{}'}",
    "      compensate: [",
    "  service: demo.v1.Bank",
    "  target: dns:///a:1",
    "  methods: ['*', {name: Transfer, guarded: true}]",
    "  callers: [shop]",
    "---",
    "&a",
    "*a",
    "!!x y",
    "\t",
]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(WORDS), max_size=25))
def test_lines_in_any_order_become_findings(reference: ModuleType, lines: list[str]) -> None:
    shown(check([Document("a", "\n".join(lines))], descriptors=reference.contract()))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_definition_with_something_cut_out_or_put_in_becomes_findings(
    reference: ModuleType, order_text: str, data: st.DataObject
) -> None:
    changed = order_text
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(changed)))
        end = min(len(changed), start + data.draw(st.integers(0, 12)))
        put = data.draw(
            st.sampled_from(["", "{", "}", "[", ":", "\n", " ", '"', "'", "é", "😀", "\x00", "- ", "? ", "1"])
        )
        changed = changed[:start] + put + changed[end:]
    shown(check([Document("a", changed)], descriptors=reference.contract()))


ATOMS = [
    "input",
    "input.total",
    "input.order_id",
    "saga",
    "charge",
    "x",
    "1",
    "1u",
    "1.5",
    "'a'",
    "null",
    "[]",
    "{}",
    "b'a'",
]
FORMS = [
    "({0})",
    "{0} + {1}",
    "{0} == {1}",
    "{0} ? {1} : {0}",
    "has({0})",
    "{0}.a",
    "{0}.?total",
    "{0}[{1}]",
    "{0}[?{1}]",
    "[{0}, {1}]",
    "[?{0}]",
    "{{{0}: {1}}}",
    "ChargeRequest{{order_id: {0}, ?amount: {1}}}",
    "ChargeRequest{{card: {0}, iban: {1}}}",
    "{0}.map(x, {1})",
    "{0}.filter(x, {1})",
    "{0}.optMap(x, {1})",
    "{0}.orValue({1})",
    "optional.of({0})",
    "{0}.matches({1})",
    "size({0})",
    "!{0}",
    "-{0}",
    "{0} && {1}",
    "{0} || {1}",
    "{0} in {1}",
    "int({0})",
    "type({0})",
    "google.protobuf.Timestamp{{seconds: {0}}}",
    "google.protobuf.Any{{value: {0}}}",
    "google.protobuf.Struct{{fields: {0}}}",
    "google.protobuf.Int32Value{{value: {0}}}",
]
EXPRESSIONS = st.recursive(
    st.sampled_from(ATOMS),
    lambda inner: st.builds(lambda form, a, b: form.format(a, b), st.sampled_from(FORMS), inner, inner),
    max_leaves=12,
)


def saga_of(expression: str, *, when: str = "true") -> str:
    def quoted(value: str) -> str:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'

    return f"""- name: charge
  call: demo.v1.Payments/Charge
  when: {quoted(when)}
  request: {quoted(expression)}
  compensate: {{call: demo.v1.Payments/Refund, request: "RefundRequest{{}}"}}
"""


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(EXPRESSIONS, EXPRESSIONS)
def test_any_expression_is_compiled_or_becomes_findings(demo: Check, request_: str, when: str) -> None:
    result = demo(saga_of(request_, when=when))
    shown(result)
    assert bool(result.sagas) == result.ok


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=60))
def test_any_text_as_an_expression_becomes_findings(demo: Check, request_: str) -> None:
    result = demo(saga_of(request_))
    shown(result)
    assert not result.ok


HOSTILE = {
    "brackets": "(" * 500,
    "lists": "[" * 500 + "]" * 500,
    "maps": "{1:" * 300,
    "selects": "input" + ".a" * 500,
    "indices": "input" + "[0]" * 300,
    "negations": "!" * 1_000 + "true",
    "sums": "+".join(["1"] * 500),
    "conditions": "true?" * 200,
    "nested loops": "[1].all(a, " * 30 + "true" + ")" * 30,
    "doubling": "[1]" + ".map(x, x + x)" * 30,
    "doubling options": "optional.of('aa')" + ".optMap(x, x + x)" * 30,
    "regular expression": "'a'.matches('((a{1,1000}){1,1000}){1,1000}')",
    "wide regular expression": "'a'.matches('[\\pL]{1000}')",
    "regular expressions": "||".join(["'a'.matches('(.{1,500})')"] * 30),
    "regular expression of groups": "'a'.matches('" + "(" * 400 + "a" + ")*" * 200 + "')",
    "long": "'" + "x" * 100_000 + "'",
    "calls": "size(" * 200,
    "messages": "ChargeRequest{amount: Money{currency: " * 20,
    "types": "type(" * 30 + "1" + ")" * 30,
    "quotes": '"' * 999,
    "escapes": "'\\" * 400,
}


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_a_hostile_expression_is_answered_in_time(demo: Check, name: str) -> None:
    start = time.process_time()
    result = demo(saga_of(HOSTILE[name]))
    assert time.process_time() - start < LIMIT
    shown(result)
    assert not result.ok


def test_a_thousand_steps_are_answered_in_time(demo: Check) -> None:
    steps = "".join(
        f"""- name: s{i}
  call: demo.v1.Payments/Charge
  request: "ChargeRequest{{order_id: input.order_id{"".join(f" + s{j}.payment_id" for j in range(max(0, i - 2), i))}}}"
  compensate: {{call: demo.v1.Payments/Refund, request: "RefundRequest{{order_id: s{i}.payment_id}}"}}
"""
        for i in range(1_000)
    )
    demo("- {name: book, call: demo.v1.Shipping/Book, request: 'BookRequest{}'}")
    took, result = quickest(demo, steps)
    assert took < LIMIT
    assert [finding.code for finding in result.findings] == ["AM081"]
    assert len(result.sagas[0].plan.steps) == 1_000


def test_a_thousand_and_one_steps_are_refused(demo: Check) -> None:
    step = '- {name: s%d, call: demo.v1.Stock/Count, request: "CountRequest{}"}\n'
    assert [f.code for f in demo("".join(step % i for i in range(1_001))).findings] == ["AM003"]


def quickest(demo: Check, steps: str) -> tuple[float, CheckResult]:
    """Check `steps` up to three times, until once it took less than LIMIT; return how long that took, and what came."""
    for _ in range(3):
        start = time.process_time()
        result = demo(steps)
        took = time.process_time() - start
        if took < LIMIT:
            break
    return took, result


def test_a_dense_graph_and_a_thousand_mistakes_are_answered_in_time(demo: Check) -> None:
    chance = random.Random(7)
    lines = []
    for i in range(1_000):
        after = ", ".join(f"s{chance.randrange(1_000)}" for _ in range(8))
        lines.append(
            f'- {{name: s{i}, call: demo.v1.Stock/Count, request: "CountRequest{{skuu: s{i}}}", after: [{after}]}}\n'
        )
    took, result = quickest(demo, "".join(lines))
    assert took < LIMIT
    assert {finding.code for finding in result.findings} == {"AM043", "AM061"}
    assert sum(finding.hint == "Did you mean `sku`?" for finding in result.findings) == 1_000
    shown(result)


STEP = '- {name: s%d, call: demo.v1.Stock/Count, request: "CountRequest{sku: %s}"%s}\n'
THOUSANDS: dict[str, Callable[[int], tuple[str, str]]] = {
    "misspelt names": lambda i: (f"t{i}.available", ""),
    "misspelt fields": lambda i: (f"s{i}.availible", ""),
    "many mistakes in one": lambda i: ("[" + ", ".join(f"x{i}_{j}" for j in range(110)) + "]", ""),
    "misspelt predecessors": lambda i: ("''", ", after: [" + ", ".join(f"t{j}" for j in range(i, i + 30)) + "]"),
    "long lists": lambda i: ("[" + ",".join(["1"] * 450) + f",{i}]", ""),
    "sums": lambda i: ("+".join([f"'{i}'"] + ["input.order_id"] * 28), ""),
    "loops": lambda i: (f"input.lines.exists(l, {'&&'.join(['l.quantity>0'] * 28)}) ? '{i}' : ''", ""),
    "regular expressions": lambda i: (f"'a'.matches('(.{{1,{i}}}){{9}}') ? 'a' : ''", ""),
    "brackets": lambda i: ("(" * 25 + "+)" * 100 + str(i), ""),
    "conditions": lambda i: (f"s{max(i - 1, 0)}.available > 0 ? 'a' : ''", f", when: input.pieces > {i}"),
    "one ring": lambda i: ("''", f", after: [s{(i + 1) % 1_000}]"),
    "a step for all": lambda i: ("''", ", after: [s0]" if i else ", after: [s999]"),
}


@pytest.mark.parametrize("name", sorted(THOUSANDS))
def test_a_thousand_hostile_steps_are_answered_in_time(demo: Check, name: str) -> None:
    took, result = quickest(demo, "".join(STEP % (i, *THOUSANDS[name](i)) for i in range(1_000)))
    assert took < LIMIT
    shown(result)
    assert not result.ok


def test_expressions_that_are_too_much_together_are_refused_once_and_at_their_place(demo: Check) -> None:
    result = demo("".join(STEP % (i, THOUSANDS["loops"](i)[0], "") for i in range(1_000)))
    [finding] = [finding for finding in result.findings if finding.is_error]
    assert finding.code == "AM065"
    assert 100 < finding.place.line < 1_000


def test_misspelt_names_among_a_thousand_get_a_suggestion(demo: Check) -> None:
    steps = [STEP % (i, f"reserve_{i - 1}.available > 0 ? 'a' : ''" if i else "''", "") for i in range(1_000)]
    text_ = "".join(steps).replace("name: s", "name: reserve_")
    result = demo(text_.replace("reserve_700.available", "resreve_700.available"))
    [finding] = [finding for finding in result.findings if finding.is_error]
    assert finding.hint == "Did you mean `reserve_700.available`?"


def test_services_that_all_call_each_other_are_answered_in_time(demo: Check) -> None:
    def service(number: int) -> str:
        name = "Shipping" if number == 0 else f"S{number}"
        calls = ", ".join(f"demo.v1.S{other}" for other in range(1, 150) if other != number)
        return (
            f"kind: Participant\napiVersion: amends.dev/v1alpha1\nmetadata: {{name: p{number}, namespace: shop}}\n"
            f'spec: {{service: demo.v1.{name}, target: "dns:///a:1", '
            f'methods: ["*"], callers: [shop], calls: [{calls}]}}\n'
            "---\n"
        )

    saga = "kind: Saga\napiVersion: amends.dev/v1alpha1\nmetadata: {name: example, namespace: shop}\nspec:\n"
    steps = '  input: demo.v1.Input\n  steps: [{name: book, call: demo.v1.Shipping/Book, request: "BookRequest{}"}]\n'
    text_ = "".join(map(service, range(150))).replace("name: p0", "name: shipping")
    start = time.process_time()
    result = demo(text_ + saga + steps)
    assert time.process_time() - start < LIMIT
    assert result.figures[0].steps[0].amplification == (4,) * 9
    assert "AM082" in {finding.code for finding in result.findings}


WIDE = {
    "documents": "---\n".join(["a: 1\n"] * 60_000),
    "separators": "---\n" * 300_000,
    "values": "a: [" + ",".join(["1"] * 190_000) + "]",
    "unknown fields": "kind: Saga\nspec:\n" + "".join(f"  inputt{i}: 1\n" for i in range(20_000)),
    "a field again and again": "kind: Saga\nspec:\n" + "  input: a\n" * 20_000,
    "types": "kind: Saga\nspec: {input: {" + ", ".join(f"f{i}: x.Lin{i}" for i in range(20_000)) + "}, steps: []}",
    "codes": "kind: RetryPolicy\nspec: {retryOn: [" + ", ".join(f"UNAVAILABL{i}" for i in range(20_000)) + "]}",
}


@pytest.mark.parametrize("name", sorted(WIDE))
def test_a_wide_text_is_answered_in_time(reference: ModuleType, name: str) -> None:
    head = "apiVersion: amends.dev/v1alpha1\nmetadata: {name: a, namespace: shop}\n"
    wide = head + WIDE[name] if WIDE[name].startswith("kind") else WIDE[name]
    start = time.process_time()
    result = check([Document("wide", wide)], descriptors=reference.contract())
    assert time.process_time() - start < LIMIT
    assert "AM003" in {finding.code for finding in result.findings}
    shown(result)


def test_messages_that_hold_each_other_are_answered_in_time(reference: ModuleType) -> None:
    files = FileDescriptorSet.FromString(reference.contract())
    contract = next(found for found in files.file if found.name == "contract.proto")
    for i in range(300):
        message = contract.message_type.add(name=f"R{i}")
        for j in range(5):
            target = f".demo.v1.R{(i * 7 + j * 13) % 300}"
            message.field.add(name=f"f{j}", number=j + 1, label=1, type=11, type_name=target)
    given = next(message for message in contract.message_type if message.name == "Input")
    given.field.add(name="r", number=90, label=1, type=11, type_name=".demo.v1.R0")
    shipping = (
        "apiVersion: amends.dev/v1alpha1\nkind: Participant\nmetadata: {name: shipping, namespace: shop}\n"
        'spec: {service: demo.v1.Shipping, target: "dns:///a:1", methods: ["*"], callers: [shop]}'
    )
    steps = (
        "- {name: book, call: demo.v1.Shipping/Book, request: \"BookRequest{note: has(input.r.f0.f1) ? 'a' : 'b'}\"}"
    )
    documents = [Document("s", reference.whole(steps)), Document("p", shipping)]
    start = time.process_time()
    result = check(documents, descriptors=files.SerializeToString())
    assert time.process_time() - start < LIMIT
    assert result.ok, result.findings
    assert result.sagas[0].parse_input({"r": {"f0": {"f1": {}}}})


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**31), st.integers(1, 30))
def test_descriptors_with_flipped_bytes_become_findings(reference: ModuleType, seed: int, count: int) -> None:
    chance = random.Random(seed)
    data = bytearray(reference.contract())
    for _ in range(count):
        data[chance.randrange(len(data))] = chance.randrange(256)
    steps = '- {name: book, call: demo.v1.Shipping/Book, request: "BookRequest{order_id: input.order_id}"}'
    participant = (
        "apiVersion: amends.dev/v1alpha1\nkind: Participant\nmetadata: {name: shipping, namespace: shop}\n"
        'spec: {service: demo.v1.Shipping, target: "dns:///a:1", methods: ["*"], callers: [shop]}'
    )
    shown(check([Document("s", reference.whole(steps)), Document("p", participant)], descriptors=bytes(data)))
