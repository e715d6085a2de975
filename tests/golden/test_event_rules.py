"""The rules that contracts of events keep: each refuses a contract that breaks it, and accepts what looks alike."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from amends_contracts import descriptor_set
from event_rules import command
from event_rules.compare import EventContracts, EventRule, compare
from event_rules.releases import ROOT, contracts_at, golden, tagged
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc  # type: ignore[import-untyped]

HEAD = """\
syntax = "proto3";
package shop.orders.events.v1;
import "amends/options/v1/events.proto";
option (amends.options.v1.topic) = {partitions: 8};
"""
ORDERS = """\
message OrderPlaced {
  option (amends.options.v1.event) = {key: "order_id"};
  // The order.
  string order_id = 1;
  int64 total = 2;
  repeated Line lines = 3;
  oneof way { string parcel = 4; string pickup = 5; }
  Reason reason = 6;
  string coupon = 7;
  reserved 8;
  reserved "old";
}
message Line { string sku = 1; int32 quantity = 2; }
enum Reason { REASON_UNSPECIFIED = 0; REASON_GIFT = 1; }
"""
LINE = "message Line { string sku = 1; int32 quantity = 2; }"
OPTION = 'option (amends.options.v1.unknown_value) = "as UNSPECIFIED";'
CHOICE = 'option (amends.options.v1.unknown_choice) = "nobody knows the way";'


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Compile a contract of orders; the same text is compiled once."""
    known: dict[str, EventContracts] = {}

    def build(text: str, head: str = HEAD) -> EventContracts:
        if head + text not in known:
            folder = tmp_path_factory.mktemp("contract")
            (folder / "orders.proto").write_text(head + text)
            protos = Path(__file__).parents[2] / "protos"
            include = Path(protoc.__file__).parent / "_proto"
            arguments = [f"-I{folder}", f"-I{protos}", f"-I{include}", "--include_imports", "--include_source_info"]
            out = folder / "out.binpb"
            assert protoc.main(["protoc", *arguments, f"--descriptor_set_out={out}", "orders.proto"]) == 0
            known[head + text] = EventContracts.of(FileDescriptorSet.FromString(out.read_bytes()))
        return known[head + text]

    return build


def changed(*replacements: str) -> str:
    text = ORDERS
    for old, new in zip(replacements[::2], replacements[1::2], strict=True):
        assert old in text, old
        text = text.replace(old, new)
    return text


BROKEN = {
    "a field is gone": (("  string coupon = 7;\n", ""), EventRule.FIELD_FORGOTTEN, "OrderPlaced.coupon"),
    "its number is reserved and its name is not": (
        ("  string coupon = 7;\n", "  reserved 7;\n"),
        EventRule.FIELD_FORGOTTEN,
        "OrderPlaced.coupon",
    ),
    "a number has another name": (("coupon = 7", "voucher = 7"), EventRule.FIELD_REUSED, "OrderPlaced.voucher"),
    "a number has another type": (("int64 total", "string total"), EventRule.FIELD_REUSED, "OrderPlaced.total"),
    "a name has another number": (("coupon = 7", "coupon = 9"), EventRule.FIELD_REUSED, "OrderPlaced.coupon"),
    "one becomes many": (("string coupon", "repeated string coupon"), EventRule.FIELD_REUSED, "OrderPlaced.coupon"),
    "a field moves into a oneof": (
        ("string pickup = 5; }", "string pickup = 5; string coupon = 7; }", "  string coupon = 7;\n", ""),
        EventRule.FIELD_REUSED,
        "OrderPlaced.coupon",
    ),
    "a reserved number is used": (("reserved 8;", "string more = 8;"), EventRule.FIELD_REUSED, "OrderPlaced.more"),
    "a reserved name is used": (('reserved "old";', "string old = 9;"), EventRule.FIELD_REUSED, "OrderPlaced.old"),
    "a message inside has another field": (
        (LINE, "message Line { string sku = 1; string quantity = 2; }"),
        EventRule.FIELD_REUSED,
        "Line.quantity",
    ),
    "a field is of another message, which differs": (
        ("repeated Line", "repeated Item", LINE, "message Item { string name = 1; int32 quantity = 2; }"),
        EventRule.FIELD_REUSED,
        "Item.name",
    ),
    "a value has another name": (("REASON_GIFT", "REASON_PRESENT"), EventRule.FIELD_REUSED, "Reason.REASON_PRESENT"),
    "a value is gone": ((" REASON_GIFT = 1;", ""), EventRule.FIELD_FORGOTTEN, "Reason.REASON_GIFT"),
    "an old field is required": (("// The order.", "// The order. Required."), EventRule.FIELD_REQUIRED, ".order_id"),
    "an enum grows": (("GIFT = 1;", "GIFT = 1; REASON_TEST = 2;"), EventRule.GREW_UNSAID, "v1.Reason"),
    "a oneof grows": (("pickup = 5; }", "pickup = 5; string boat = 9; }"), EventRule.GREW_UNSAID, "OrderPlaced.way"),
    "an event has another key": (('key: "order_id"', 'key: "coupon"'), EventRule.KEY_CHANGED, "OrderPlaced"),
    "an event is none any more": (
        ('  option (amends.options.v1.event) = {key: "order_id"};\n', ""),
        EventRule.EVENT_GONE,
        "OrderPlaced",
    ),
}
ALIKE = {
    "a new field": ("  string coupon = 7;", "  string coupon = 7;\n  string note = 9;"),
    "a field becomes unused": ("string coupon = 7;", "string coupon = 7 [deprecated = true];"),
    "a field is gone for good": ("  string coupon = 7;\n", '  reserved 7;\n  reserved "coupon";\n'),
    "an enum grows, and says what it is taken for": ("REASON_GIFT = 1;", f"REASON_GIFT = 1; REASON_TEST = 2; {OPTION}"),
    "a oneof grows, and says so": ("string pickup = 5; }", f"string pickup = 5; string boat = 9; {CHOICE} }}"),
    "a field is of another message that is the same": (
        "repeated Line",
        "repeated Item",
        "message Line",
        "message Item",
    ),
    "another event": (
        "message Line {",
        'message Paid { option (amends.options.v1.event) = {key: "id"}; string id = 1; }\nmessage Line {',
    ),
    "a new field is required": ("reserved 8;", "reserved 8;\n  // Required.\n  string note = 9;"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_contract_that_breaks_a_rule_is_refused_where_it_does(built, name):
    replacements, rule, where = BROKEN[name]
    found = compare(built(ORDERS), built(changed(*replacements)))
    assert [(one.rule, one.where.endswith(where)) for one in found] == [(rule, True)], found


@pytest.mark.parametrize("name", ALIKE)
def test_what_looks_alike_and_harms_nobody_is_accepted(built, name):
    assert compare(built(ORDERS), built(changed(*ALIKE[name]))) == []


def test_the_number_of_partitions_never_changes(built):
    (found,) = compare(built(ORDERS), built(ORDERS, HEAD.replace("partitions: 8", "partitions: 16")))
    assert (found.rule, found.where) == (EventRule.KEY_CHANGED, "shop.orders.events.v1")


def test_a_message_that_is_no_event_may_change(built):
    other = ORDERS + "message Note { string text = 1; }\n"
    assert compare(built(other), built(other.replace("string text", "int32 text"))) == []


def test_an_exception_has_a_reason_and_is_needed(tmp_path):
    file = tmp_path / "exceptions.toml"
    file.write_text('[[exception]]\nrule = "FIELD_REUSED"\nwhere = "x"\nreason = " "\n')
    with pytest.raises(ValueError, match="has no reason"):
        command.excepted(file)
    current = descriptor_set()
    older = FileDescriptorSet()
    older.CopyFrom(current)
    (orders,) = (file for file in older.file if file.name == "shop/orders/events/v1/orders.proto")
    orders.message_type[0].field.add(name="gone", number=4000, type=9, label=1)
    gone = f"{orders.package}.{orders.message_type[0].name}.gone"
    (line,) = command.judged(current, [("v9", older)], {})[0]
    assert line.startswith(f"{gone} is gone")
    assert line.endswith("(FIELD_FORGOTTEN, against v9)")
    assert command.judged(current, [("v9", older)], {("FIELD_FORGOTTEN", gone): "never published"}) == ([], 1)
    (stale,) = command.judged(current, [("v9", current)], {("FIELD_FORGOTTEN", gone): "never published"})[0]
    assert "breaks it nowhere" in stale


def test_releases_of_the_last_two_weeks_are_compared_and_the_one_that_was_in_use_before(tmp_path):
    def git(*arguments: str, at: datetime) -> None:
        when = at.isoformat()
        environment = {"GIT_AUTHOR_DATE": when, "GIT_COMMITTER_DATE": when, "HOME": str(tmp_path)}
        who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *arguments], check=True, env=environment, capture_output=True)

    now = datetime.now(UTC)
    git("init", at=now)
    for name, days in (("v0.1", 40), ("v0.2", 20), ("v0.3", 10), ("other", 5), ("v0.4", 1)):
        git("commit", "--allow-empty", "-m", name, at=now - timedelta(days=days))
        git("tag", name, at=now - timedelta(days=days))
    assert tagged(tmp_path, now) == ["v0.2", "v0.3", "v0.4"]
    assert tagged(tmp_path / "nowhere", now) == []


def test_the_contracts_can_read_what_every_release_has_left_in_a_log():
    releases = dict(golden())
    assert releases
    assert command.judged(descriptor_set(), releases.items(), command.excepted(command.EXCEPTIONS)) == (
        [],
        len(releases),
    )


def test_the_contracts_of_a_revision_are_built(monkeypatch):
    if not (ROOT / ".git").exists():
        pytest.skip("needs the history: this is no clone")
    monkeypatch.setenv("BUF", str(Path(sys.executable).with_name("buf")))
    assert EventContracts.of(contracts_at(ROOT, "HEAD")).events()
