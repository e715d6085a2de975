"""Who serves a service, what contracts say together, and what methods promise."""

from collections.abc import Callable
from datetime import timedelta
from types import ModuleType

import pytest
from amends_saga.analysis import ParticipantView, resolve
from amends_saga.check import CheckResult, check, check_saga
from amends_saga.definition import Document, MethodEntry, Node, NodeKind, Participant, SourceText, read
from amends_saga.descriptors import DescriptorError, contract_facts, parse_set, resolve_facts
from amends_saga.plan import MethodKind
from google.protobuf.descriptor_pb2 import (
    FileDescriptorSet,
    MethodDescriptorProto,
    MethodOptions,
)

from amends.options.v1 import options_pb2

NODE = Node(NodeKind.SCALAR, SourceText("a", ""), 0, 0)


def participant(name: str, namespace: str, callers: str, service: str = "demo.v1.Bank") -> Participant:
    text = (
        f"apiVersion: amends.dev/v1alpha1\nkind: Participant\nmetadata: {{name: {name}, namespace: {namespace}}}\n"
        f'spec: {{service: {service}, target: "dns:///a:1", methods: ["*"], callers: [{callers}]}}'
    )
    [found] = read([Document(name, text)]).participants
    return found


def resolved(*participants: Participant, service: str = "demo.v1.Bank") -> str:
    found = resolve(service, "shop", participants)
    return found.metadata.full_name if isinstance(found, Participant) else found.code.id


def test_a_method_that_is_misspelt_twice_is_told_twice(demo: Callable[..., CheckResult]) -> None:
    count = '- {name: %s, call: %s, request: "CountRequest{}"}\n'
    wrong = [("a", "demo.v1.Stock/Coun"), ("b", "demo.v1.Stock/Coun"), ("c", "demo.v1.Stok/Count")]
    result = demo("".join(count % item for item in [*wrong, ("d", "demo.v1.Stok/Count")]))
    assert [(finding.code, finding.place.line) for finding in result.findings] == [
        ("AM029", 8),
        ("AM029", 9),
        ("AM020", 10),
        ("AM020", 11),
    ]


def test_the_participant_of_the_own_namespace_comes_first() -> None:
    assert resolved(participant("b", "bank", "shop"), participant("a", "shop", "shop")) == "shop/a"


def test_else_the_only_one_that_grants_the_namespace() -> None:
    assert resolved(participant("b", "bank", "shop"), participant("c", "other", "x")) == "bank/b"


def test_two_that_grant_are_a_conflict() -> None:
    assert resolved(participant("b", "bank", "shop"), participant("c", "other", "shop")) == "AM021"
    assert resolved(participant("b", "shop", "shop"), participant("c", "shop", "shop")) == "AM021"


def test_no_grant_is_no_call_not_even_in_the_own_namespace() -> None:
    assert resolved(participant("a", "shop", "")) == "AM022"
    assert resolved(participant("a", "bank", "default")) == "AM022"
    assert resolved(participant("a", "shop", "other"), participant("b", "bank", "shop")) == "AM022"


@pytest.mark.parametrize(
    "service",
    [
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "grpc.channelz.v1.Channelz",
        "amends.saga.v1.RunService",
    ],
)
def test_some_services_are_never_called(service: str) -> None:
    assert resolved(participant("a", "shop", "shop", service), service=service) == "AM024"


def method(
    level: MethodOptions.IdempotencyLevel = MethodOptions.IDEMPOTENCY_UNKNOWN, **promise: object
) -> MethodDescriptorProto:
    found = MethodDescriptorProto(name="Do")
    if level:
        found.options.idempotency_level = level
    if promise:
        found.options.Extensions[options_pb2.method].CopyFrom(options_pb2.MethodContract(**promise))  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        (method(), MethodKind.ONCE),
        (method(MethodOptions.IDEMPOTENT), MethodKind.IDEMPOTENT),
        (method(MethodOptions.NO_SIDE_EFFECTS), MethodKind.READ),
        (method(guarded=True), MethodKind.GUARDED),
        (method(MethodOptions.IDEMPOTENT, guarded=True), MethodKind.GUARDED),
        (method(idempotency=options_pb2.IDEMPOTENCY_KEYED), MethodKind.KEYED),
        (method(MethodOptions.IDEMPOTENT, idempotency=options_pb2.IDEMPOTENCY_KEYED), MethodKind.KEYED),
    ],
)
def test_the_contract_alone_says_what_a_method_promises(found: MethodDescriptorProto, kind: MethodKind) -> None:
    facts, wrong = contract_facts(found)
    assert (facts.kind, wrong) == (kind, [])


@pytest.mark.parametrize(
    "found",
    [
        method(MethodOptions.NO_SIDE_EFFECTS, guarded=True),
        method(MethodOptions.IDEMPOTENT, idempotency=options_pb2.IDEMPOTENCY_ONCE),
        method(MethodOptions.NO_SIDE_EFFECTS, idempotency=options_pb2.IDEMPOTENCY_IDEMPOTENT),
    ],
)
def test_a_contract_that_contradicts_itself_is_told(found: MethodDescriptorProto) -> None:
    assert len(contract_facts(found)[1]) == 1


def test_a_participant_says_what_the_contract_does_not() -> None:
    entry = MethodEntry("Do", NODE, idempotency="KEYED", window=timedelta(hours=1), compensated_by="Undo")
    facts, wrong = resolve_facts(method(), entry)
    assert wrong == []
    assert (facts.kind, facts.window, facts.compensated_by) == (MethodKind.KEYED, timedelta(hours=1), "Undo")


@pytest.mark.parametrize(
    ("found", "entry"),
    [
        (method(guarded=True), MethodEntry("Do", NODE, guarded=False)),
        (method(MethodOptions.IDEMPOTENT), MethodEntry("Do", NODE, idempotency="ONCE")),
        (method(MethodOptions.NO_SIDE_EFFECTS), MethodEntry("Do", NODE, idempotency="IDEMPOTENT")),
        (method(compensated_by="A"), MethodEntry("Do", NODE, compensated_by="B")),
        (method(guarded=True), MethodEntry("Do", NODE, idempotency="NO_SIDE_EFFECTS")),
        (method(window={"seconds": 1}), MethodEntry("Do", NODE, window=timedelta(seconds=2))),
    ],
)
def test_contract_and_participant_that_disagree_are_told(found: MethodDescriptorProto, entry: MethodEntry) -> None:
    assert len(resolve_facts(found, entry)[1]) == 1


def test_outcomes_of_the_participant_reach_the_plan(demo: Callable[..., CheckResult]) -> None:
    result = demo(
        """kind: Participant
apiVersion: amends.dev/v1alpha1
metadata: {name: bank, namespace: shop}
spec:
  service: demo.v1.Bank
  target: dns:///a:1
  methods: ["*", {name: Hold, outcomes: {ALREADY_EXISTS: rejected}}]
  callers: [shop]
---
kind: Saga
apiVersion: amends.dev/v1alpha1
metadata: {name: example, namespace: shop}
spec:
  input: demo.v1.Input
  deadline: 5m
  steps:
    - {name: hold, call: demo.v1.Bank/Hold, request: "TransferRequest{}"}
"""
    )
    assert result.sagas[0].plan.steps[0].action.outcomes == {"ALREADY_EXISTS": "rejected"}
    assert result.sagas[0].plan.steps[0].action.window == timedelta(hours=1)


@pytest.mark.parametrize("data", [b"", b"\xff", b"no descriptors", FileDescriptorSet(file=[{}]).SerializeToString()])
def test_data_that_is_no_descriptor_set_is_refused(data: bytes) -> None:
    with pytest.raises(DescriptorError):
        parse_set(data)


def test_a_message_that_holds_itself_is_fine(reference: ModuleType) -> None:
    files = FileDescriptorSet.FromString(reference.contract())
    contract = next(found for found in files.file if found.name == "contract.proto")
    given = next(message for message in contract.message_type if message.name == "Input")
    given.field.add(name="inner", number=90, label=1, type=11, type_name=".demo.v1.Input", json_name="inner")
    documents = reference.whole(
        '- {name: book, call: demo.v1.Shipping/Book, request: "BookRequest{note: input.inner.inner.order_id}"}'
    )
    shipping = participant("shipping", "shop", "shop", "demo.v1.Shipping")
    views = [ParticipantView(shipping, files.SerializeToString())]
    result = check([Document("s", documents)], participants=views)
    assert result.ok, result.findings
    assert result.sagas[0].parse_input({"inner": {"inner": {"orderId": "o"}}})


def test_one_saga_is_compiled_or_gives_its_findings(reference: ModuleType) -> None:
    steps = '- {name: book, call: demo.v1.Shipping/Book, request: "BookRequest{note: %s}"}'
    views = [
        ParticipantView(participant("shipping", "shop", "shop", "demo.v1.Shipping"), reference.contract()),
    ]
    [good] = read([Document("s", reference.whole(steps % "''"))]).sagas
    [bad] = read([Document("s", reference.whole(steps % "1"))]).sagas
    checked = check_saga(good, views, [])
    assert checked.compiled is not None
    assert checked.findings == []
    refused = check_saga(bad, views, [])
    assert refused.compiled is None
    assert [finding.code for finding in refused.findings] == ["AM062"]


def test_participants_of_the_documents_replace_those_in_force(reference: ModuleType) -> None:
    mine = participant("shipping", "shop", "other", "demo.v1.Shipping")
    documents = [
        Document("s", reference.whole('- {name: book, call: demo.v1.Shipping/Book, request: "BookRequest{}"}')),
        Document(
            "p",
            "apiVersion: amends.dev/v1alpha1\nkind: Participant\nmetadata: {name: shipping, namespace: shop}\n"
            'spec: {service: demo.v1.Shipping, target: "dns:///a:1", methods: ["*"], callers: [shop]}',
        ),
    ]
    in_force = [ParticipantView(mine, reference.contract())]
    assert [f.code for f in check(documents[:1], participants=in_force).findings] == ["AM022"]
    assert check(documents, participants=in_force).findings == []
