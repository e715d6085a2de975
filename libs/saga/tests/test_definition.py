from datetime import timedelta

import pytest
from amends_saga.definition import Document, Resources, compose, read
from amends_saga.definition.nodes import to_json
from amends_saga.definition.offsets import place_at
from hypothesis import given
from hypothesis import strategies as st

HEAD = "apiVersion: amends.dev/v1alpha1\n"


def read_one(text: str) -> Resources:
    return read([Document("a.yaml", text)])


def codes_of(resources: Resources) -> list[str]:
    return [finding.code for finding in resources.findings]


def test_a_participant_is_read_with_all_its_fields() -> None:
    resources = read_one(
        HEAD
        + """kind: Participant
metadata: {name: payments, namespace: shop}
spec:
  service: shop.payments.v1.PaymentService
  target: dns:///payments.shop.svc.cluster.local:50051
  methods:
    - "*"
    - {name: Charge, guarded: true, compensatedBy: Refund}
    - {name: Lookup, idempotency: NO_SIDE_EFFECTS}
    - {name: Capture, idempotency: KEYED, window: 24h}
    - {name: Cancel, idempotency: IDEMPOTENT, outcomes: {NOT_FOUND: ok}}
  callers: [shop]
  barrierRetention: 30d
  descriptors: {reflection: true}
"""
    )
    assert resources.findings == []
    [payments] = resources.participants
    assert payments.metadata.full_name == "shop/payments"
    assert payments.all_methods
    assert payments.methods["Charge"].guarded is True
    assert payments.methods["Charge"].compensated_by == "Refund"
    assert payments.methods["Capture"].window == timedelta(hours=24)
    assert payments.methods["Cancel"].outcomes == {"NOT_FOUND": "ok"}
    assert payments.barrier_retention == timedelta(days=30)
    assert payments.grants("shop")
    assert not payments.grants("default")


def test_an_identity_that_nothing_would_verify_is_refused() -> None:
    resources = read_one(
        HEAD
        + """kind: Participant
metadata: {name: payments, namespace: shop}
spec:
  service: shop.payments.v1.PaymentService
  target: dns:///payments.shop.svc.cluster.local:50051
  identity: spiffe://shop/ns/shop/sa/payments
"""
    )
    assert codes_of(resources) == ["AM013"]
    assert "does not verify `identity`" in resources.findings[0].message


@pytest.mark.parametrize(
    ("key", "good"),
    [
        ("order-7", True),
        ('"7"', True),
        ("a" * 255, True),
        ("a" * 256, False),
        ('""', False),
        (r'"a\nb"', False),
        ("sagarun/1", False),
    ],
)
def test_the_key_of_a_run_is_one_that_it_can_be_started_with(key: str, good: bool) -> None:
    resources = read_one(HEAD + f"kind: SagaRun\nmetadata: {{name: a}}\nspec: {{saga: a, key: {key}}}\n")
    assert codes_of(resources) == ([] if good else ["AM010"])


def test_a_retry_policy_is_read_with_all_its_fields() -> None:
    resources = read_one(
        HEAD
        + """kind: RetryPolicy
metadata: {name: payments}
spec:
  selector: {participants: [shop.payments.v1.PaymentService], methods: ["Charge"]}
  timeout: 2s
  attempts: 3
  backoff: {initial: 200ms, max: 5s, multiplier: 3}
  retryOn: [UNAVAILABLE]
  budget: {ratio: 0.1, minPerSecond: 5}
  circuitBreaker: {failureRatio: 0.5, minimumCalls: 20, window: 10s, openFor: 5s}
  bulkhead: {maxConcurrent: 64, maxQueued: 0}
"""
    )
    assert resources.findings == []
    [policy] = resources.policies
    assert policy.metadata.namespace == "default"
    assert policy.policy.attempts == 3
    assert policy.policy.backoff.initial == timedelta(milliseconds=200)
    assert policy.policy.bulkhead.max_queued == 0
    assert policy.policy.retry_on == {"UNAVAILABLE"}
    assert policy.selector.methods == ("Charge",)


def test_a_run_keeps_its_input_as_json() -> None:
    resources = read_one(
        HEAD
        + "kind: SagaRun\nmetadata: {name: r}\n"
        + "spec: {saga: s, input: {orderId: o-1, n: 1, f: 1.5, t: true, x: null}}"
    )
    assert resources.runs[0].input == {"orderId": "o-1", "n": 1, "f": 1.5, "t": True, "x": None}


def test_json_is_read_like_yaml() -> None:
    resources = read_one(
        '{"apiVersion": "amends.dev/v1alpha1", "kind": "SagaRun", "metadata": {"name": "r"}, "spec": {"saga": "s"}}'
    )
    assert resources.findings == []
    assert resources.runs[0].saga == "s"


def test_several_documents_of_several_texts_are_read_together() -> None:
    run = HEAD + "kind: SagaRun\nmetadata: {name: %s}\nspec: {saga: s}\n"
    resources = read([Document("a", run % "a" + "---\n" + run % "b" + "---\n"), Document("b", run % "c")])
    assert [item.metadata.name for item in resources.runs] == ["a", "b", "c"]


def test_what_kubernetes_adds_to_a_resource_is_passed_over() -> None:
    resources = read_one(
        HEAD + "kind: SagaRun\nmetadata: {name: r, uid: x, labels: {a: b}, managedFields: []}\n"
        "spec: {saga: s}\nstatus: {a: 1}"
    )
    assert resources.findings == []


def test_the_place_of_an_unknown_field_is_the_field() -> None:
    resources = read_one(HEAD + "kind: SagaRun\nmetadata: {name: r}\nspec:\n  saga: s\n  inputs: {}\n")
    [finding] = resources.findings
    assert (finding.code, finding.place.line, finding.place.column) == ("AM006", 6, 3)
    assert finding.place.excerpt == "  inputs: {}"
    assert finding.hint == "Did you mean `input`?"


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("attempts: four", "AM009"),
        ("attempts: 0", "AM010"),
        ("attempts: 99999999999", "AM010"),
        ("attempts: true", "AM009"),
        ("timeout: 2", "AM010"),
        ("timeout: 0s", "AM010"),
        ("timeout: [1s]", "AM009"),
        ("retryOn: UNAVAILABLE", "AM009"),
        ("retryOn: [UNAVAILIBLE]", "AM010"),
        ("backoff: {initial: 10s, max: 1s}", "AM010"),
        ("budget: {ratio: much}", "AM009"),
        ("selector: {participant: [a]}", "AM006"),
        ("selector: []", "AM009"),
        ("circuitBreaker: {failureRatio: 2}", "AM010"),
    ],
)
def test_a_policy_with_a_wrong_value_is_refused(value: str, code: str) -> None:
    resources = read_one(HEAD + f"kind: RetryPolicy\nmetadata: {{name: p}}\nspec: {{{value}}}")
    assert codes_of(resources) == [code]
    assert resources.policies == []
    assert resources.findings[0].place.line == 4


@pytest.mark.parametrize(
    "text",
    [
        "a: &x 1\nb: *x",
        "a: !!python/object/apply:os.system [ls]",
        "a: &a [*a]",
        "? [1]\n: 2",
        "a: \x00",
        "a: \ud800",
        "\t- a",
        "%YAML 9.9\n---\na",
        "a: [1",
        'a: "\\q"',
        "[" * 10_000,
        "{a: " * 10_000,
        "- " * 1_000,
        "a: |\n b\n c: d\n- e",
        "\ufeff: : :",
    ],
)
def test_hostile_yaml_becomes_findings(text: str) -> None:
    resources = read_one(text)
    assert resources.findings
    assert all(finding.is_error for finding in resources.findings)


def test_a_billion_laughs_are_not_laughed() -> None:
    lines = ["a0: &a0 [ha, ha]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 30)]
    assert codes_of(read_one("\n".join(lines))) == ["AM002"]


def test_a_text_that_is_too_large_is_refused_unread() -> None:
    assert codes_of(read_one("a" * 1_500_001)) == ["AM003"]


def test_documents_before_a_mistake_are_kept() -> None:
    resources = read_one(HEAD + "kind: SagaRun\nmetadata: {name: r}\nspec: {saga: s}\n---\n[")
    assert [item.metadata.name for item in resources.runs] == ["r"]
    assert codes_of(resources) == ["AM001"]


@pytest.mark.parametrize("text", ["", "---\n", "# nothing\n", "null\n"])
def test_an_empty_text_says_nothing(text: str) -> None:
    assert read_one(text).findings == []


@given(st.text(max_size=200))
def test_no_text_makes_the_reader_fail(text: str) -> None:
    for root in compose("a", text)[0]:
        to_json(root)
    assert read_one(text).sagas == []


@pytest.mark.parametrize(
    ("yaml", "value"),
    [
        ("request: abc def", "abc def"),
        ("request: 'it''s here'", "it's here"),
        ('request: "a\\tb\\u0041c"', "a\tbAc"),
        ("request: |\n    abc\n      def\n    g", "abc\n  def\ng"),
        ("request: >-\n    abc\n    def\n\n    g", "abc def\ng"),
        ('request: "abc\n    def"', "abc def"),
        ("request: abc\n    def", "abc def"),
        ("request: 😀 ab", "😀 ab"),
        ('request: "abc\\\n    def"', "abcdef"),
    ],
)
def test_each_character_of_a_scalar_is_found_in_the_text(yaml: str, value: str) -> None:
    [root], findings = compose("a", yaml)
    assert not findings
    node = root.pairs[0][1]
    assert node.value.rstrip("\n") == value
    for offset, char in enumerate(value):
        if char.isalpha() and char != "A":
            place = place_at(node, offset)
            assert place.excerpt[place.column - 1] == char, (offset, char, place)
