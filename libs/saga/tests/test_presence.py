"""Copies of fields that may be unset: what they mean, for messages, for scalars, in every dialect of protobuf."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from amends_saga.analysis import ParticipantView
from amends_saga.check import CheckResult, check
from amends_saga.compiled import CompiledSaga, load_bundle
from amends_saga.definition import Document, read
from amends_saga.plan import ExpressionError, Scope
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

MakeScope = Callable[..., Scope]
FIELDS = """
message Money { %(label)s string currency = 1; %(label)s int64 units = 2; }
message Line { %(label)s Money price = 1; }
message Quote {
  %(label)s Money cost = 1; %(label)s google.protobuf.Timestamp at = 2;
  repeated Line lines = 3; %(label)s google.protobuf.StringValue word = 4;
  %(optional)s string tx = 5; oneof way { Money cash = 6; string card = 7; } %(label)s Quote inner = 8;
  %(optional)s int32 n = 9;
  map<string, string> labels = 10; %(optional)s Kind kind = 11;
}
message Order {
  %(label)s Money cost = 1; %(label)s google.protobuf.Timestamp at = 2;
  repeated Line lines = 3; %(label)s google.protobuf.StringValue word = 4;
  %(optional)s string tx = 5; oneof way { Money cash = 6; string card = 7; } repeated string texts = 8;
  map<string, int32> counts = 9; %(optional)s int32 n = 10; %(optional)s Kind kind = 11; %(label)s Order nested = 12;
}
enum Kind { NONE = 0; BIG = 1; }
service Shop { rpc Ask(Quote) returns (Quote); rpc Ship(Order) returns (Quote); rpc Undo(Order) returns (Quote); }
"""
IMPORTS = 'import "google/protobuf/timestamp.proto"; import "google/protobuf/wrappers.proto";'
DIALECTS = {
    name: f"{head}; package s.v1; {IMPORTS}" + FIELDS % {"optional": optional, "label": label}
    for name, head, optional, label in (
        ("proto3", 'syntax = "proto3"', "optional", ""),
        ("edition", 'edition = "2023"', "", ""),
        ("proto2", 'syntax = "proto2"', "optional", "optional"),
    )
}
PARTICIPANT = """apiVersion: amends.dev/v1alpha1
kind: Participant
metadata: {name: shop, namespace: shop}
spec:
  service: s.v1.Shop
  target: dns:///shop.test:1
  callers: [shop]
  methods: ["*", {name: Ask, idempotency: NO_SIDE_EFFECTS}, {name: Ship, idempotency: IDEMPOTENT}]
"""
SAGA = """apiVersion: amends.dev/v1alpha1
kind: Saga
metadata: {name: order, namespace: shop}
spec:
  input: s.v1.Quote
  deadline: 5m
  steps:
    - name: quote
      call: s.v1.Shop/Ask
      request: "Quote{}"
    - name: ship
      call: s.v1.Shop/Ship
      request: "%s"
"""
Checked = Callable[..., CheckResult]


def compiled_set(folder: Path, text: str) -> bytes:
    from grpc_tools import protoc  # type: ignore[import-untyped]

    folder.mkdir(exist_ok=True)
    (folder / "s.proto").write_text(text)
    include = Path(protoc.__file__).parent / "_proto"
    out = folder / "set.binpb"
    arguments = [f"-I{folder}", f"-I{include}", "--include_imports", f"--descriptor_set_out={out}", "s.proto"]
    assert protoc.main(["protoc", *arguments]) == 0
    return out.read_bytes()


@pytest.fixture
def checked(tmp_path: Path) -> Checked:
    """Checks the saga with a request over a contract."""

    def run(request: str, contract: str = DIALECTS["proto3"]) -> CheckResult:
        [participant] = read([Document("p", PARTICIPANT)]).participants
        views = [ParticipantView(participant, compiled_set(tmp_path / "c", contract))]
        return check([Document("s", SAGA % request)], participants=views)

    return run


def errors(result: CheckResult) -> list[tuple[str, str]]:
    return [(finding.code, finding.message) for finding in result.findings if finding.is_error]


def sent(saga: CompiledSaga, make_scope: MakeScope, **quote: object) -> Message:
    """Return the request of the second step for a response of the first."""
    reply = GetMessageClass(saga.response_descriptor(0))(**quote)
    again = load_bundle(saga.bundle)
    scope = make_scope(again.check_input(b""), {0: reply.SerializeToString()})
    return GetMessageClass(again.request_descriptor(1)).FromString(again.request(1, scope))


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("request_", "given"),
    [
        ("Order{cost: quote.cost}", {"cost": {"units": 5}}),
        ("Order{`cost` : (quote . cost)}", {"cost": {}}),
        ("Order{at: quote.at}", {"at": {"seconds": 5}}),
        ("Order{cost: quote.inner.cost}", {"inner": {"cost": {"units": 5}}}),
        ("quote.card == '' ? Order{cost: quote.cost} : Order{}", {"cost": {"units": 5}}),
        ("Order{lines: quote.lines.map(l, Line{price: l.price})}", {"lines": [{"price": {"units": 5}}]}),
        ("Order{nested: Order{cost: quote.cost}}", {"cost": {"units": 5}}),
    ],
)
def test_a_message_of_a_response_is_certain_where_it_is_copied(
    checked: Checked, make_scope: MakeScope, dialect: str, request_: str, given: dict[str, object]
) -> None:
    result = checked(request_, DIALECTS[dialect])
    assert errors(result) == []
    assert sent(result.sagas[0], make_scope, **given).ByteSize() > 0
    missing: dict[str, object] = {"lines": [{}]} if "lines" in given else {}
    with pytest.raises(ExpressionError, match="a field that it copies is not set"):
        sent(result.sagas[0], make_scope, **missing)


@pytest.mark.parametrize(
    "request_",
    [
        "input.tx == '' ? Order{cost: input.cost} : Order{}",
        "has(input.card) ? Order{cost: input.cost, ?card: input.?card} : Order{cost: input.cost}",
        "Order{lines: quote.lines.map(l, Line{price: input.cost})}",
    ],
)
def test_a_message_of_the_input_is_certain_where_it_is_copied_under_a_condition(
    checked: Checked, make_scope: MakeScope, request_: str
) -> None:
    result = checked(request_)
    assert errors(result) == []
    [saga] = result.sagas
    assert saga.required_input == ()
    answer = GetMessageClass(saga.response_descriptor(0))(lines=[{}]).SerializeToString()
    given = GetMessageClass(saga.input_descriptor)(cost={"units": 5}).SerializeToString()
    assert saga.request(1, make_scope(given, {0: answer}))
    with pytest.raises(ExpressionError, match="a field that it copies is not set"):
        saga.request(1, make_scope(b"", {0: answer}))


@pytest.mark.parametrize(
    ("request_", "fails"),
    [
        ("Order{word: quote.word}", False),
        ("Order{?word: quote.?word}", False),
        ("quote.card == 'x' ? Order{} : Order{word: quote.word}", False),
        ("Order{tx: quote.word == null ? 'none' : quote.word}", False),
        ("Order{tx: quote.word}", True),
    ],
)
def test_an_unset_wrapper_is_unset_in_its_copy_or_fails(
    checked: Checked, make_scope: MakeScope, request_: str, fails: bool
) -> None:
    result = checked(request_)
    assert errors(result) == []
    assert sent(result.sagas[0], make_scope, word={"value": "w"}).ByteSize() > 0
    if fails:
        with pytest.raises(ExpressionError):
            sent(result.sagas[0], make_scope)
    else:
        assert not sent(result.sagas[0], make_scope).HasField("word")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_scalar_keeps_whether_it_was_set(checked: Checked, make_scope: MakeScope, dialect: str) -> None:
    result = checked("Order{tx: quote.tx, n: quote.n, kind: quote.kind}", DIALECTS[dialect])
    assert errors(result) == []
    assert sent(result.sagas[0], make_scope).ByteSize() == 0
    found = sent(result.sagas[0], make_scope, tx="", n=0, kind=1)
    assert [found.HasField(name) for name in ("tx", "n", "kind")] == [True, True, True]
    from_input = checked("Order{tx: input.tx}", DIALECTS[dialect])
    assert errors(from_input) == []
    assert from_input.sagas[0].required_input == ()


def test_a_wrapper_keeps_whether_it_was_set(checked: Checked, make_scope: MakeScope) -> None:
    result = checked("Order{word: quote.word}")
    assert errors(result) == []
    assert not sent(result.sagas[0], make_scope).HasField("word")
    assert sent(result.sagas[0], make_scope, word={"value": ""}).HasField("word")


def test_a_default_of_the_contract_is_what_an_unset_field_means(checked: Checked, make_scope: MakeScope) -> None:
    contract = DIALECTS["proto2"].replace("int32 n = 9;", "int32 n = 9 [default = 7];")
    result = checked("Order{n: quote.n}", contract)
    assert errors(result) == []
    assert sent(result.sagas[0], make_scope).n == 7  # type: ignore[attr-defined]
    assert checked("Order{n: input.n}", contract).sagas[0].required_input == ()


def test_a_scalar_is_certain_where_its_target_must_be_set(checked: Checked, make_scope: MakeScope) -> None:
    texts = "repeated string texts = 8;"
    contract = DIALECTS["proto2"].replace(texts, f"{texts} required string must = 13;")
    result = checked("Order{must: quote.tx}", contract)
    assert errors(result) == []
    with pytest.raises(ExpressionError, match="is not set"):
        sent(result.sagas[0], make_scope)
    assert sent(result.sagas[0], make_scope, tx="a").must == "a"  # type: ignore[attr-defined]


WRONG = [
    "Order{card: quote.card}",
    "Order{texts: [quote.tx]}",
    "Order{counts: {'b': quote.n}}",
    "Order{counts: {'b': input.n}}",
    "Order{tx: quote.card == '' ? quote.tx : 'x'}",
    "Order{?tx: optional.of(input.tx)}",
    "Order{at: input.at}",
    "Order{cash: quote.cash}",
    "Order{tx: input.?tx.orValue(input.card)}",
]


@pytest.mark.parametrize("request_", WRONG)
def test_every_way_that_the_hint_names_is_accepted(checked: Checked, request_: str) -> None:
    [finding] = [finding for finding in checked(request_).findings if finding.is_error]
    assert finding.code == "AM066"
    ways = re.findall(r"`([^`]+)`", finding.hint)
    assert ways
    path = re.findall(r"`([^`]+)`", finding.message)[0]
    for way in ways:
        before = rf"\w+: {re.escape(path)}" if way.startswith("?") else re.escape(path)
        mended = re.sub(before, lambda _, way=way: way, request_, count=1)  # type: ignore[misc]
        assert mended != request_
        assert errors(checked(mended)) == [], mended
