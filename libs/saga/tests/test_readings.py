"""Texts that other tools make or read: lists, mixed kinds, YAML 1.1, targets; and what is said of odd expressions."""

from collections.abc import Callable

import pytest
from amends_saga.check import CheckResult, check
from amends_saga.definition import Document, read

Check = Callable[..., CheckResult]
POLICY = "apiVersion: amends.dev/v1alpha1\nkind: RetryPolicy\nmetadata: {name: p}\nspec: {attempts: 3}\n"
CONFIG = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {flag: yes}\n"


def said(text: str) -> list[str]:
    return [finding.code for finding in read([Document("a.yaml", text)]).findings]


def test_a_list_is_read_item_by_item() -> None:
    items = "".join("- " + POLICY.replace("name: p", f"name: {n}").replace("\n", "\n  ").rstrip(" ") for n in "ab")
    found = read([Document("a.yaml", f"apiVersion: v1\nkind: List\nitems:\n{items}")])
    assert found.findings == []
    assert [policy.metadata.name for policy in found.policies] == ["a", "b"]


def test_documents_of_other_kinds_are_passed_by() -> None:
    found = read([Document("a.yaml", f"{CONFIG}---\n{POLICY}")])
    assert found.findings == []
    assert len(found.policies) == len(found.passed_by) == 1


@pytest.mark.parametrize(
    "text",
    [
        CONFIG,
        POLICY.replace("amends.dev/v1alpha1", "amends.dev/v1alpha2"),
        POLICY.replace("amends.dev", "ammends.dev"),
        POLICY.replace("RetryPolicy", "RetryPolcy"),
        POLICY.replace("apiVersion: amends.dev/v1alpha1", "apiVersion: v1"),
    ],
)
def test_a_misspelt_resource_of_ours_is_not_passed_by(text: str) -> None:
    assert said(text) == ["AM004"]


@pytest.mark.parametrize(
    "value",
    ["y", "no", "Off", "ON", "yes", "010", "-07", "1_000", "0x1F", "0b11", "12:30", "1:2:3", ".inf", "-.Inf", ".NaN"],
)
def test_a_value_that_other_readers_take_for_something_else_is_warned_about(value: str) -> None:
    labels = POLICY.replace("{name: p}", f"{{name: p, annotations: {{a: {value}}}}}")
    assert said(labels) == ["AM014"]
    assert said(labels.replace(f"a: {value}", f'a: "{value}"')) == []
    assert said(POLICY.replace("{name: p}", f"{{name: p, annotations: {{{value}: a}}}}")) == ["AM014"]


@pytest.mark.parametrize("value", ["true", "null", "10", "0", "1.5", "nope", "10:x", "a_b", "0.5", "1e3", "60s", "-3"])
def test_a_value_that_all_readers_take_for_the_same_is_not(value: str) -> None:
    assert said(POLICY.replace("{name: p}", f"{{name: p, annotations: {{a: {value}}}}}")) == []


def participant(target: str) -> str:
    return (
        "apiVersion: amends.dev/v1alpha1\nkind: Participant\nmetadata: {name: p}\n"
        f'spec: {{service: a.v1.S, target: "{target}", methods: ["*"], callers: [default]}}\n'
    )


@pytest.mark.parametrize(
    "target", ["dns:///a:1", "dns:///a.b.svc.cluster.local:65535", "127.0.0.1:1", "[::1]:1", "localhost:9"]
)
def test_a_target_that_an_orchestrator_can_take_is_accepted(target: str) -> None:
    assert said(participant(target)) == []


@pytest.mark.parametrize(
    "target",
    [
        *("a.b:1", "a.b", "dns:///a.b", "dns:///a.b:0", "dns:///a.b:65536", "http://a.b:1", "dns://x/a.b:1"),
        *(
            "dns:///10.0.0.5:1",
            "10.0.0.5:1",
            "dns:///my_a.b:1",
            "vsock:2:1",
            "dns:///0x7f:1",
            "unix:/a",
            "dns:///A.b:1",
        ),
    ],
)
def test_a_target_that_none_can_take_is_an_error(target: str) -> None:
    assert said(participant(target)) == ["AM010"]


def steps(request: str, extra: str = "") -> str:
    return f'- name: transfer\n  call: demo.v1.Bank/Transfer\n  request: "{request}"\n{extra}'


def test_a_warning_about_a_plain_step_can_be_accepted(demo: Check) -> None:
    undo = '  compensate: {call: demo.v1.Bank/Reverse, request: "TransferRequest{}"}\n'
    assert [f.code for f in demo(steps("TransferRequest{}", undo)).findings] == ["AM058"]
    accepted = demo(steps("TransferRequest{}", undo + "  accept: [AM058]\n"))
    assert accepted.findings == []
    assert demo(steps("TransferRequest{}", undo)).sagas[0].digest == accepted.sagas[0].digest
    assert [f.code for f in demo(steps("TransferRequest{}", "  accept: [AM057]\n")).findings] == []
    assert [f.code for f in demo(steps("TransferRequest{}", undo + "  accept: [AM066]\n")).findings] == [
        "AM010",
        "AM058",
    ]


@pytest.mark.parametrize(
    ("request_", "message", "hint"),
    [
        ("CreditRequest{in: 1}", "`in` is a word of CEL.", "`` `in` ``"),
        ("CreditRequest{true: 1}", "`true` is a word of CEL.", "`` `true` ``"),
        ("TransferRequest{from: input.null}", "`null` is a word of CEL.", "`` `null` ``"),
        ("CreditRequest{null: 1}", "`null` is a word of CEL.", "`` `null` ``"),
        ("TransferRequest{from: input.order_id", "`}` is missing at the end.", ""),
        ("TransferRequest{from: string(1", "`)` is missing at the end.", ""),
    ],
)
def test_one_mistake_in_the_grammar_is_one_finding(demo: Check, request_: str, message: str, hint: str) -> None:
    found = [finding for finding in demo(steps(request_)).findings if finding.is_error]
    assert [(finding.code, finding.message) for finding in found] == [("AM060", message)]
    assert hint in found[0].hint


def test_an_expression_of_many_copies_is_accepted(demo: Check) -> None:
    lines = ", ".join(f"Line{{sku: 'a rather long name of a thing that is sold, number {n}'}}" for n in range(150))
    step = f'- name: r\n  call: demo.v1.Stock/Reserve\n  request: "ReserveRequest{{lines: [{lines}]}}"\n'
    step += '  compensate: {call: demo.v1.Stock/Release, request: "ReleaseRequest{}"}\n'
    assert len(lines) > 8_000
    assert demo(step).findings == []
    [finding] = demo(step.replace("'a rather", "'" + "x" * 20_000 + "a rather", 1)).findings
    assert finding.code == "AM065"


def test_a_tab_is_called_a_tab() -> None:
    [finding] = read([Document("a.yaml", "kind: Saga\n\tapiVersion: x\n")]).findings
    assert "tab" in finding.message.lower()


def test_a_deadline_that_is_wrong_is_not_said_to_be_missing(demo: Check) -> None:
    for text in ("deadline: 30 seconds", "deadlin: 30s"):
        whole = (
            "apiVersion: amends.dev/v1alpha1\nkind: Saga\nmetadata: {name: s}\n"
            f"spec: {{input: {{a: string}}, {text}, steps: []}}\n"
        )
        assert "AM083" not in [finding.code for finding in check([Document("s", whole)]).findings]
