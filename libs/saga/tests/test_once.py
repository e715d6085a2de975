"""A mistake is told once: no finding follows from another, and no hint leads into another error."""

from collections.abc import Callable

import pytest
from amends_saga.analysis import ParticipantView
from amends_saga.check import CheckResult, check
from amends_saga.definition import Document, read

Demo = Callable[..., CheckResult]
BOOK = '- {name: book, call: demo.v1.Shipping/Book, request: "BookRequest{%s}"}\n'
RESERVE = """\
- name: %s
  call: demo.v1.Stock/Reserve
  request: "ReserveRequest{}"
  compensate: {call: demo.v1.Stock/Release, request: "ReleaseRequest{}"}
"""


def errors(result: CheckResult) -> list[tuple[str, str, str]]:
    return [(finding.code, finding.message, finding.hint) for finding in result.findings if finding.is_error]


def codes(result: CheckResult) -> list[str]:
    return [code for code, _, _ in errors(result)]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (
            "- {name: Count, call: demo.v1.Stock/Count, request: 'CountRequest{}'}\n" + BOOK % "grams: Count.available",
            "AM011",
        ),
        (
            "- {name: count-it, call: demo.v1.Stock/Count, request: 'CountRequest{}'}\n"
            + BOOK % "grams: count-it.available",
            "AM011",
        ),
        ("- {name: Count, call: demo.v1.Stock/Count, request: 'CountRequest{}'}\n" + BOOK % "grams: count.a", "AM011"),
        (RESERVE % "same" + RESERVE % "same" + BOOK % "note: other_one.reservation_id", "AM040"),
        (RESERVE % "demo" + BOOK % "", "AM041"),
        (RESERVE % "same" + RESERVE % "same" + BOOK % "", "AM040"),
        (
            RESERVE % "one" + "- {name: same, call: demo.v1.Stock/Count, request: 'CountRequest{}'}\n" * 2 + BOOK % "",
            "AM040",
        ),
        (RESERVE % "one" + BOOK.replace("request", "reqest") % "note: input.order_id", "AM006"),
        (RESERVE.replace("compensate:", "compensates:") % "one" + BOOK % "", "AM006"),
        (RESERVE.replace("call: demo.v1.Stock/Reserve", "calls: demo.v1.Stock/Reserve") % "one" + BOOK % "", "AM006"),
        (RESERVE.replace("Stock/Reserve", "Stock/Reserv") % "one" + BOOK % "", "AM029"),
    ],
)
def test_one_mistake_is_one_error(demo: Demo, text: str, code: str) -> None:
    assert codes(demo(text)) == [code], errors(demo(text))


@pytest.mark.parametrize("type_", ["int", "demo.v1.Nothing", "map<string, int>", "list of string"])
def test_a_field_of_the_input_without_a_type_is_told_once(demo: Demo, type_: str) -> None:
    text = f"input: {{pieces: '{type_}'}}\ndeadline: 5m\nsteps:\n  " + BOOK % "grams: input.pieces"
    assert codes(demo(text)) == ["AM032" if "." in type_ else "AM010"]


def test_what_is_mended_at_a_participant_is_told_once_for_each() -> None:
    text = "input: {a: string}\ndeadline: 5m\nsteps:\n" + "".join(
        f"  - {{name: {name}, call: a.v1.{service}/Do, request: 'Req{{}}', compensate: {{call: a.v1.{service}/Undo, "
        "request: 'Req{}'}}\n"
        for name, service in (("one", "Away"), ("two", "Away"), ("three", "Mine"), ("four", "Mine"))
    )
    head = "apiVersion: amends.dev/v1alpha1\n"
    saga = f"{head}kind: Saga\nmetadata: {{name: s, namespace: shop}}\nspec:\n  {text.replace(chr(10), chr(10) + '  ')}"
    mine = f'{head}kind: Participant\nmetadata: {{name: mine}}\nspec: {{service: a.v1.Mine, target: "dns:///m:7"}}\n'
    assert codes(check([Document("saga.yaml", saga), Document("p.yaml", mine)])) == ["AM020", "AM022"]


@pytest.mark.parametrize("order", ["", ", after: [first]"])
def test_a_step_that_comes_later_is_not_to_be_put_before(demo: Demo, order: str) -> None:
    """The hint for a step that may run at the same time would make a circle here."""
    count = "- {name: %s, call: demo.v1.Stock/Count, request: 'CountRequest{%s}'%s}\n"
    text = (
        count % ("first", "sku: string(last.available)", "") + count % ("middle", "", "") + count % ("last", "", order)
    )
    [(code, message, hint)] = errors(demo(text))
    assert (code, message) == ("AM064", "`last` is not certain to have finished before `first` begins.")
    assert hint == "`last` comes after `first`: use a value of the input, or move the step."
    moved = count % ("last", "", "") + count % ("first", "sku: string(last.available)", "") + count % ("middle", "", "")
    assert codes(demo(moved)) == []


@pytest.mark.parametrize(
    ("service", "hint"),
    [
        ("demo.v1.Shiping", "Did you mean `demo.v1.Shipping`?"),
        ("demo.v2.Shipping", "Did you mean `demo.v1.Shipping`?"),
        ("demo.v1.Shop", "Write a Participant that has this `service`."),
        ("demo.v1.SnackService", "Write a Participant that has this `service`."),
        ("demo.v1.StockRoom", "Write a Participant that has this `service`."),
    ],
)
def test_only_a_name_that_is_near_is_taken_for_a_misspelt_one(demo: Demo, service: str, hint: str) -> None:
    [(code, message, said)] = errors(demo(BOOK.replace("demo.v1.Shipping", service) % ""))
    assert (code, message, said) == ("AM020", f"There is no Participant for `{service}`.", hint)


def test_a_field_that_an_inline_input_lacks_is_missing_in_the_input(demo: Demo) -> None:
    text = "input: {order_id: string}\ndeadline: 5m\nsteps:\n  " + BOOK % "note: input.oder_id"
    assert errors(demo(text)) == [
        ("AM061", "The saga's input has no field `oder_id`.", "Did you mean `order_id`?"),
    ]


def test_a_contract_that_is_not_known_is_told_once_for_each_participant() -> None:
    participants = [
        "apiVersion: amends.dev/v1alpha1\nkind: Participant\n"
        f"metadata: {{name: {name}, namespace: shop}}\n"
        f'spec: {{service: "a.v1.{name.title()}", target: "dns:///{name}:7", methods: ["*"], callers: [shop]}}\n'
        for name in ("one", "two")
    ]
    steps = "".join(
        f"    - {{name: {name}_{number}, call: a.v1.{name.title()}/Do, request: 'Req{{}}'}}\n"
        for number in range(3)
        for name in ("one", "two")
    )
    saga = (
        "apiVersion: amends.dev/v1alpha1\nkind: Saga\nmetadata: {name: s, namespace: shop}\n"
        f"spec:\n  input: {{a: string}}\n  deadline: 5m\n  steps:\n{steps}"
    )
    known = read([Document("p.yaml", "---\n".join(participants))]).participants
    views = [ParticipantView(known[0], None, "connection refused"), ParticipantView(known[1], None)]
    hint = "Give a FileDescriptorSet, or make the service reachable and switch its reflection on."
    assert errors(check([Document("saga.yaml", saga)], participants=views)) == [
        ("AM025", "The descriptors of Participant shop/one (dns:///one:7) are not known: connection refused.", hint),
        ("AM025", "The descriptors of Participant shop/two (dns:///two:7) are not known.", hint),
    ]
