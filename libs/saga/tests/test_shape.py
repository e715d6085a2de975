"""Shapes that the examples of the reference page do not show, and the figures."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from amends_saga.check import CheckResult
from amends_saga.compiled import load_bundle

Check = Callable[..., CheckResult]
COUNT = '{name: %s, call: demo.v1.Stock/Count, request: "CountRequest{}", after: [%s]}'
BOOK = '{name: %s, call: demo.v1.Shipping/Book, request: "BookRequest{}", after: [%s]}'
RESERVE = (
    '{name: %s, call: demo.v1.Stock/Reserve, request: "ReserveRequest{}", '
    'compensate: {call: demo.v1.Stock/Release, request: "ReleaseRequest{}"}, after: [%s]}'
)


def steps(*items: str) -> str:
    return "".join(f"- {item}\n" for item in items)


def codes_of(result: CheckResult) -> list[str]:
    return [finding.code for finding in result.findings]


def test_a_single_last_step_with_effects_is_the_pivot(demo: Check) -> None:
    result = demo(steps(RESERVE % ("a", ""), RESERVE % ("b", ""), BOOK % ("c", "a, b")))
    assert codes_of(result) == []
    assert result.sagas[0].plan.pivot == 2
    assert result.sagas[0].plan.steps[2].after == (0, 1)


def test_a_last_step_that_reads_or_can_be_undone_is_no_pivot(demo: Check) -> None:
    assert demo(steps(RESERVE % ("a", ""), COUNT % ("b", "a"))).sagas[0].plan.pivot is None
    assert demo(steps(COUNT % ("a", ""), RESERVE % ("b", "a"))).sagas[0].plan.pivot is None


def test_two_last_steps_with_effects_have_no_pivot_and_nothing_that_undoes_them(demo: Check) -> None:
    assert codes_of(demo(steps(BOOK % ("a", ""), BOOK % ("b", "")))) == ["AM046", "AM046"]


def test_a_step_beside_an_implicit_pivot_is_none(demo: Check) -> None:
    result = demo(steps(COUNT % ("a", ""), COUNT % ("b", ""), BOOK % ("c", "a, b"), COUNT % ("d", "c")))
    assert codes_of(result) == ["AM046"]  # the last step reads, so that nothing is the pivot


def test_reads_may_stand_anywhere(demo: Check) -> None:
    pivot = (BOOK % ("b", "a")).replace("{name", "{pivot: true, name")
    assert codes_of(demo(steps(COUNT % ("a", ""), pivot, COUNT % ("c", "b")))) == []


def test_a_last_step_whose_undo_the_contract_knows_is_probably_a_mistake(demo: Check) -> None:
    charge = '- {name: charge, call: demo.v1.Payments/Charge, request: "ChargeRequest{}"%s}'
    assert codes_of(demo(charge % "")) == ["AM055"]
    assert codes_of(demo(charge % ", pivot: true")) == []


def test_long_circles_and_steps_for_themselves_are_found(demo: Check) -> None:
    assert codes_of(demo(steps(COUNT % ("a", "a")))) == ["AM043"]
    ring = [COUNT % (f"s{i}", f"s{(i + 1) % 200}") for i in range(200)]
    [finding] = demo(steps(*ring)).findings
    assert finding.code == "AM043"
    assert "…" in finding.message


def test_a_circle_of_steps_with_effects_brings_no_other_findings(demo: Check) -> None:
    ring = (BOOK % ("a", "c"), BOOK % ("b", "a"), BOOK % ("c", "b"))
    assert codes_of(demo(steps(*ring, BOOK % ("d", "c")))) == ["AM043"]


def test_a_misspelt_predecessor_brings_no_other_findings(demo: Check) -> None:
    assert codes_of(demo(steps(RESERVE % ("a", ""), BOOK % ("b", "A")))) == ["AM042"]


@pytest.mark.parametrize("name", ["input", "saga", "if", "int", "demo", "google", "amends", "optional", "namespace"])
def test_names_that_mean_something_else_are_refused(demo: Check, name: str) -> None:
    assert "AM041" in codes_of(demo(steps(COUNT % (name, ""))))


def test_the_worst_case_follows_the_longest_path_to_the_pivot(demo: Check) -> None:
    slow = """kind: RetryPolicy
apiVersion: amends.dev/v1alpha1
metadata: {name: slow, namespace: shop}
spec:
  selector: {participants: [demo.v1.Stock], methods: [Count]}
  timeout: 10s
  attempts: 3
  backoff: {initial: 1s, max: 5s, multiplier: 2}
---
kind: Saga
apiVersion: amends.dev/v1alpha1
metadata: {name: example, namespace: shop}
spec:
  input: demo.v1.Input
  deadline: 30s
  steps:
"""
    graph = [RESERVE % ("a", ""), COUNT % ("b", ""), COUNT % ("c", "a"), BOOK % ("d", "b, c")]
    result = demo(slow + "".join(f"    - {item}\n" for item in graph))
    [figures] = result.figures
    assert figures.worst_path == ("a", "c")
    assert figures.worst_case == timedelta(seconds=8.7 + 3 * 10 + 1 + 2)
    assert figures.whole_worst_case == figures.worst_case + timedelta(seconds=8.7)
    [finding] = result.findings
    assert finding.code == "AM081"
    assert "41s700ms" in finding.message
    assert "30s" in finding.message
    assert result.sagas


def test_retries_of_three_layers_multiply(demo: Check) -> None:
    def service(name: str, calls: str) -> str:
        return (
            f"kind: Participant\napiVersion: amends.dev/v1alpha1\n"
            f"metadata: {{name: {name.lower()}, namespace: shop}}\n"
            f'spec: {{service: demo.v1.{name}, target: "dns:///a:1", '
            f'methods: ["*"], callers: [shop], calls: [{calls}]}}\n'
            "---\n"
        )

    result = demo(
        service("Shipping", "demo.v1.Stock")
        + service("Stock", "demo.v1.Bank, demo.v1.Shipping")
        + """kind: RetryPolicy
apiVersion: amends.dev/v1alpha1
metadata: {name: three, namespace: shop}
spec: {attempts: 3}
---
kind: Saga
apiVersion: amends.dev/v1alpha1
metadata: {name: example, namespace: shop}
spec:
  input: demo.v1.Input
  deadline: 5m
  steps:
    - {name: book, call: demo.v1.Shipping/Book, request: "BookRequest{}"}
"""
    )
    assert "3 × 3 × 3 = 27" in result.findings[0].message
    assert result.figures[0].steps[0].amplification == (3, 3, 3)


def test_the_figures_name_the_input_that_must_be_there(demo: Check) -> None:
    result = demo('- {name: credit, call: demo.v1.Payments/Credit, request: "ChargeRequest{amount: input.total}"}')
    assert result.figures[0].required_input == ("total",)
    assert result.sagas[0].required_input == ("total",)


AMENDED = """input: demo.v1.Input
deadline: 5m
steps:
  - {name: book, call: demo.v1.Shipping/Book, request: "BookRequest{}", pivot: true}
  - {name: count, call: demo.v1.Stock/Count, request: "CountRequest{}"}
afterPivot:
  - %s
"""
GIVE_BACK = '{name: give_back, call: demo.v1.Stock/Release, request: "ReleaseRequest{}"}'


@pytest.mark.parametrize(
    ("amendment", "code", "hint"),
    [
        (GIVE_BACK.replace("give_back", "book"), "AM040", "Rename"),
        (GIVE_BACK.replace("Release", "Count"), "AM047", "Call a guarded"),
        ('{name: pay, call: demo.v1.Bank/Transfer, request: "TransferRequest{}"}', "AM047", "Call a guarded"),
        (GIVE_BACK[:-1] + ", pivot: true}", "AM006", ""),
        (GIVE_BACK[:-1] + ", after: [book]}", "AM006", ""),
        (GIVE_BACK[:-1] + ", when: 'true'}", "AM006", ""),
        (GIVE_BACK[:-1] + ", compensate: {call: demo.v1.Stock/Reserve, request: 'ReserveRequest{}'}}", "AM006", ""),
        (
            GIVE_BACK.replace("ReleaseRequest{}", "count == count ? ReleaseRequest{} : ReleaseRequest{}"),
            "AM064",
            "pivot",
        ),
    ],
)
def test_what_may_not_stand_in_an_amendment_is_said(demo: Check, amendment: str, code: str, hint: str) -> None:
    found = demo(AMENDED % amendment).findings
    assert code in [finding.code for finding in found], found
    assert hint in next(finding.hint for finding in found if finding.code == code)


def test_an_amendment_waits_for_everything_behind_the_pivot_and_is_kept_in_the_bundle(
    demo: Check,
) -> None:
    [saga] = demo(AMENDED % GIVE_BACK).sagas
    plan = load_bundle(saga.bundle).plan
    assert plan == saga.plan
    assert plan.amendments == (2,)
    assert (plan.steps[2].after, plan.steps[2].post, plan.steps[2].compensation) == ((0, 1), True, None)
    assert plan.chain


def test_a_bundle_with_amendments_cannot_be_taken_for_one_without(demo: Check) -> None:
    [saga] = demo(AMENDED % GIVE_BACK).sagas
    [without] = demo((AMENDED % GIVE_BACK).partition("afterPivot")[0]).sagas
    assert b'"format":2' in saga.bundle
    assert b'"format":1' in without.bundle
    assert b"amendment" not in without.bundle
