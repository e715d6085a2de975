"""What the contracts of several participants say together: merged by name, each with its own version."""

from collections.abc import Callable, Mapping
from itertools import permutations
from pathlib import Path

import pytest
from amends_saga.analysis import ParticipantView
from amends_saga.check import CheckResult, check
from amends_saga.compiled import CompiledSaga, load_bundle
from amends_saga.definition import Document, read
from amends_saga.descriptors import Contracts, ContractSet, DescriptorError
from amends_saga.descriptors.merge import contradictions
from amends_saga.plan import Scope
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.protobuf.message_factory import GetMessageClass

MakeScope = Callable[..., Scope]
SAGA = """apiVersion: amends.dev/v1alpha1
kind: Saga
metadata: {name: trip, namespace: shop}
spec:
  input: {trip_id: string}
  deadline: 5m
  steps:
    - name: hotel_step
      call: hotel.v1.Hotels/Book
      request: "BookRequest{trip_id: input.trip_id}"
      compensate: {call: hotel.v1.Hotels/Cancel, request: "BookRequest{trip_id: input.trip_id}"}
    - name: flight_step
      call: flight.v1.Flights/Book
      request: "%s"
"""
COPY = "BookRequest{trip_id: input.trip_id, ?price: hotel_step.?price}"


def compile_protos(folder: Path, files: Mapping[str, str], *roots: str) -> bytes:
    """Return the FileDescriptorSet of some files, as protoc makes it."""
    from grpc_tools import protoc  # type: ignore[import-untyped]

    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    out = folder / "set.binpb"
    include = Path(protoc.__file__).parent / "_proto"
    arguments = ["protoc", f"-I{folder}", f"-I{include}", "--include_imports", f"--descriptor_set_out={out}"]
    assert protoc.main([*arguments, *(roots or sorted(files))]) == 0
    return out.read_bytes()


def service(package: str, name: str, shared: str) -> dict[str, str]:
    """Return the two files of a service that uses a shared `Money`."""
    return {
        "service.proto": f'syntax = "proto3";\npackage {package};\nimport "types.proto";\n'
        "message BookRequest { string trip_id = 1; shared.v1.Money price = 2; }\n"
        "message BookReply { string id = 1; shared.v1.Money price = 2; }\n"
        f"service {name} {{ rpc Book(BookRequest) returns (BookReply); rpc Cancel(BookRequest) returns (BookReply); }}",
        "types.proto": f'syntax = "proto3";\npackage shared.v1;\n{shared}',
    }


def participants() -> str:
    texts = []
    for name, full in (("hotel", "hotel.v1.Hotels"), ("flight", "flight.v1.Flights")):
        texts.append(
            "apiVersion: amends.dev/v1alpha1\nkind: Participant\n"
            f"metadata: {{name: {name}, namespace: shop}}\nspec:\n  service: {full}\n  target: dns:///{name}.test:1\n"
            '  callers: [shop]\n  methods: ["*", {name: Book, idempotency: IDEMPOTENT}, '
            "{name: Cancel, idempotency: IDEMPOTENT}]\n"
        )
    return "\n---\n".join(texts)


@pytest.fixture
def trip(tmp_path: Path) -> Callable[..., CheckResult]:
    """Checks the saga over two services whose versions of what they share are given."""

    def checked(hotel: str, flight: str, request: str = COPY) -> CheckResult:
        sets = {
            "hotel": compile_protos(tmp_path / "h", service("hotel.v1", "Hotels", hotel)),
            "flight": compile_protos(tmp_path / "f", service("flight.v1", "Flights", flight)),
        }
        known = read([Document("p", participants())]).participants
        views = [ParticipantView(found, sets[found.metadata.name]) for found in known]
        return check([Document("s", SAGA % request)], participants=views)

    return checked


def errors(result: CheckResult) -> list[tuple[str, str]]:
    return [(finding.code, finding.message) for finding in result.findings if finding.is_error]


OLD = "message Money { string currency = 1; int64 minor = 2; }"
NEW = "message Note { string text = 1; } message Money { string currency = 1; int64 minor = 2; Note note = 3; }"


def test_two_services_with_files_of_one_name_are_in_one_saga(trip: Callable[..., CheckResult]) -> None:
    result = trip(OLD, OLD)
    assert errors(result) == []
    assert result.sagas


def test_a_shared_message_that_one_has_in_a_newer_version_is_copied_whole(
    trip: Callable[..., CheckResult], make_scope: MakeScope, tmp_path: Path
) -> None:
    for hotel, flight in ((OLD, NEW), (NEW, OLD)):
        result = trip(hotel, flight)
        assert errors(result) == []
        saga = result.sagas[0]
        reply = GetMessageClass(saga.response_descriptor(0))()
        reply.price.currency, reply.price.minor, reply.price.note.text = "EUR", 5, "late"  # type: ignore[attr-defined]
        scope = make_scope(saga.parse_input({"tripId": "t"}), {0: reply.SerializeToString()})
        for ready in (saga, load_bundle(saga.bundle)):
            request = GetMessageClass(ready.request_descriptor(1)).FromString(ready.request(1, scope))
            assert request.price.note.text == "late"  # type: ignore[attr-defined]


def test_a_field_that_no_version_knew_when_it_was_compiled_is_kept(
    trip: Callable[..., CheckResult], make_scope: MakeScope
) -> None:
    old, new = trip(OLD, OLD).sagas[0], trip(NEW, NEW).sagas[0]
    reply = GetMessageClass(new.response_descriptor(0))()
    reply.price.currency, reply.price.note.text = "EUR", "late"  # type: ignore[attr-defined]
    scope = make_scope(old.parse_input({"tripId": "t"}), {0: reply.SerializeToString()})
    request = GetMessageClass(new.request_descriptor(1)).FromString(old.request(1, scope))
    assert request.price.note.text == "late"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("hotel", "flight"),
    [
        (OLD, "enum Kind { KIND_UNKNOWN = 0; } message Money { string currency = 1; int64 minor = 2; Kind k = 4; }"),
        (OLD, "message Money { string currency = 1; int64 minor = 2; reserved 3, 5 to 9; }"),
        (OLD, "message Money { string currency = 1; reserved 2; }"),
        ("message Money { string currency = 1; int32 minor = 2; }", OLD),
        (OLD, "message Money { string currency = 1 [deprecated = true]; int64 minor = 2 [json_name = 'cents']; }"),
        (OLD, "message Money { string currency = 1; optional int64 minor = 2; }"),
        (OLD, "message Money { string currency = 1; int64 minor = 2; oneof more { string a = 3; string b = 4; } }"),
        (
            "message Money { enum E { A = 0; } E e = 1; map<string, int32> m = 2; }",
            "message Money { enum E { A = 0; B = 1; } E e = 1; map<string, int64> m = 2; }",
        ),
        (
            "message Money { message In { string a = 1; } In in = 1; }",
            "message Money { message In { string a = 1; string b = 2; } In in = 1; message Two {} }",
        ),
    ],
)
def test_what_is_compatible_on_the_wire_is_merged_in_either_order(
    trip: Callable[..., CheckResult], hotel: str, flight: str
) -> None:
    assert errors(trip(hotel, flight)) == []
    assert errors(trip(flight, hotel)) == []


@pytest.mark.parametrize(
    ("flight", "symbol", "theirs"),
    [
        ("message Money { string currency = 1; string minor = 2; }", "shared.v1.Money", "`string minor = 2`"),
        ("message Money { string currency = 1; int64 minor = 3; }", "shared.v1.Money", "`int64 minor = 3`"),
        ("message Money { string currency = 1; int64 cents = 2; }", "shared.v1.Money", "`int64 cents = 2`"),
        ("message Money { string currency = 1; repeated int64 minor = 2; }", "shared.v1.Money", "`repeated int64"),
        ("message Money { oneof o { string currency = 1; } int64 minor = 2; }", "shared.v1.Money", "in the oneof o"),
        ("message Money { bytes currency = 1; int64 minor = 2; }", "shared.v1.Money", "`bytes currency = 1`"),
        ("message Money { string currency = 1; sint64 minor = 2; }", "shared.v1.Money", "`sint64 minor = 2`"),
        ("enum Money { NONE = 0; }", "shared.v1.Money", "an enum in"),
    ],
)
def test_a_contradiction_names_both_the_message_and_the_field(
    trip: Callable[..., CheckResult], flight: str, symbol: str, theirs: str
) -> None:
    [(code, message)] = errors(trip(OLD, flight))
    assert code == "AM027"
    assert f"`{symbol}`" in message
    assert "shop/hotel" in message
    assert "shop/flight" in message
    assert theirs in message


@pytest.mark.parametrize(
    ("flight", "theirs"),
    [
        ("enum Kind { NONE = 0; BIG = 2; } message Money { Kind kind = 1; }", "`BIG = 2`"),
        ("enum Kind { NONE = 0; HUGE = 1; } message Money { Kind kind = 1; }", "`HUGE = 1`"),
    ],
)
def test_enum_values_that_mean_different_things_are_a_contradiction(
    trip: Callable[..., CheckResult], flight: str, theirs: str
) -> None:
    [(code, message)] = errors(trip("enum Kind { NONE = 0; BIG = 1; } message Money { Kind kind = 1; }", flight))
    assert code == "AM027"
    assert "`shared.v1.Kind`" in message
    assert theirs in message


def test_a_contradiction_about_what_the_saga_does_not_reach_is_none_of_its_business(
    trip: Callable[..., CheckResult],
) -> None:
    hotel, flight = (OLD + f" message Other {{ {kind} a = 1; }}" for kind in ("string", "int64"))
    assert errors(trip(hotel, flight)) == []
    used = "BookRequest{trip_id: string(shared.v1.Other{}.a)}"
    assert [code for code, _ in errors(trip(hotel, flight, used))] == ["AM027"]


def test_each_participant_keeps_its_own_version(trip: Callable[..., CheckResult]) -> None:
    written = "BookRequest{price: shared.v1.Money{currency: 'EUR', note: shared.v1.Note{text: 'x'}}}"
    assert errors(trip(OLD, NEW, written)) == []
    [(code, message)] = errors(trip(NEW, OLD, written))
    assert code == "AM061"
    assert "no field `note` in the contract of shop/flight" in message
    for used in ("trip_id: hotel_step.price.note.text", "?trip_id: hotel_step.price.note.?text"):
        assert errors(trip(NEW, OLD, f"BookRequest{{{used}}}")) == []
        [(code, message)] = errors(trip(OLD, NEW, f"BookRequest{{{used}}}"))
        assert "no field `note` in the contract of shop/hotel" in message


def test_a_number_that_its_receiver_holds_in_32_bits_is_warned_about(trip: Callable[..., CheckResult]) -> None:
    narrow = "message Money { string currency = 1; int32 minor = 2; }"
    written = "BookRequest{price: shared.v1.Money{minor: hotel_step.price.minor}}"
    assert "AM068" in [finding.code for finding in trip(OLD, narrow, written).findings]
    assert "AM068" not in [finding.code for finding in trip(narrow, OLD, written).findings]


def test_a_compatible_change_elsewhere_keeps_the_digest(trip: Callable[..., CheckResult]) -> None:
    before = trip(OLD, OLD).sagas[0].digest
    more = OLD + " message Unused { string a = 1; } enum AlsoUnused { NONE = 0; }"
    assert trip(OLD, more).sagas[0].digest == before
    assert trip(OLD, NEW).sagas[0].digest != before
    assert trip(NEW, OLD).sagas[0].digest == trip(OLD, NEW).sagas[0].digest


def file(name: str, *fields: str, package: str = "a") -> FileDescriptorProto:
    made = FileDescriptorProto(name=name, package=package, syntax="proto3")
    message = made.message_type.add(name="M")
    for number, field in enumerate(fields, 1):
        message.field.add(name=field, number=number, label=1, type=FieldDescriptorProto.TYPE_STRING)
    return made


def merged(*sets: list[FileDescriptorProto]) -> Contracts:
    contracts = Contracts()
    for i, files in enumerate(sets):
        given = ContractSet(FileDescriptorSet(file=files))
        for symbol in given.symbols:
            contracts.take(f"p{i}", given.view(symbol))
    return contracts


def test_options_and_comments_change_nothing() -> None:
    one, other = file("a.proto", "x_y"), file("a.proto", "x_y")
    other.options.go_package = "x"
    other.source_code_info.location.add(leading_comments="hello")
    other.message_type[0].field[0].json_name = "xY"
    contracts = merged([one], [other])
    assert not contracts.conflicts
    assert contracts.pool().FindMessageTypeByName("a.M").full_name == "a.M"


def test_one_name_in_two_files_is_one_message() -> None:
    contracts = merged([file("a.proto", "x")], [file("b.proto", "x", "y")])
    assert not contracts.conflicts
    assert list(contracts.pool().FindMessageTypeByName("a.M").fields_by_name) == ["x", "y"]


def test_what_either_contract_redacts_stays_redacted() -> None:
    one, other = file("a.proto", "x"), file("a.proto", "x")
    other.message_type[0].field[0].options.debug_redact = True
    for pair in ((one, other), (other, one)):
        pool = merged([pair[0]], [pair[1]]).pool()
        assert pool.FindMessageTypeByName("a.M").fields_by_name["x"].GetOptions().debug_redact


def test_well_known_types_come_from_our_runtime() -> None:
    fake = FileDescriptorProto(name="google/protobuf/timestamp.proto", package="google.protobuf", syntax="proto3")
    fake.message_type.add(name="Timestamp").field.add(name="bogus", number=1, label=1, type=9)
    user = file("a.proto", "x")
    user.dependency.append(fake.name)
    pool = merged([fake, user]).pool()
    assert "nanos" in pool.FindMessageTypeByName("google.protobuf.Timestamp").fields_by_name


def test_well_known_types_in_a_file_of_another_name_are_passed_by() -> None:
    copy = FileDescriptorProto(name="google_protobuf.proto", package="google.protobuf", syntax="proto3")
    copy.message_type.add(name="Timestamp").field.add(name="seconds", number=1, label=1, type=3)
    user = file("a.proto", "x")
    user.message_type[0].field.add(name="at", number=2, label=1, type=11, type_name="google.protobuf.Timestamp")
    for dependency in ([], [copy.name]):
        user.dependency[:] = dependency
        fields = merged([copy, user]).pool().FindMessageTypeByName("a.M").fields_by_name
        assert "nanos" in fields["at"].message_type.fields_by_name


def test_an_import_that_is_not_there_matters_only_where_a_type_is_missing() -> None:
    user = file("a.proto", "x")
    user.dependency.append("google/api/annotations.proto")
    assert "a.M" in merged([user]).definitions
    user.message_type[0].field.add(name="y", number=2, label=1, type=11, type_name=".b.Nowhere")
    given = ContractSet(FileDescriptorSet(file=[user]))
    assert given.view("a.M")["a.M"].dangling == (("a.M.y", "b.Nowhere"),)


def test_relative_names_are_found_from_the_innermost_scope_outwards() -> None:
    user = file("a.proto", "x", package="a.b")
    for number, name in ((2, "M"), (3, "b.M"), (4, "a.b.M"), (5, "google.protobuf.Timestamp"), (6, "In")):
        user.message_type[0].field.add(name=f"f{number}", number=number, label=1, type_name=name)
    user.message_type[0].nested_type.add(name="In")
    fields = merged([user]).pool().FindMessageTypeByName("a.b.M").fields_by_name
    found = [fields[f"f{number}"].message_type.full_name for number in range(2, 7)]
    assert found == ["a.b.M", "a.b.M", "a.b.M", "google.protobuf.Timestamp", "a.b.M.In"]


def test_an_entry_of_a_map_gets_the_name_that_protobuf_asks_for() -> None:
    user = file("a.proto", "x")
    user.message_type[0].field.add(name="my_labels", number=2, label=3, type=11, type_name="MyLabels")
    entry = user.message_type[0].nested_type.add(name="MyLabels")
    entry.options.map_entry = True
    for number, part in ((1, "key"), (2, "value")):
        entry.field.add(name=part, number=number, label=1, type=9)
    field = merged([user]).pool().FindMessageTypeByName("a.M").fields_by_name["my_labels"]
    assert field.message_type.name == "MyLabelsEntry"


def test_packages_that_need_each_other_are_one_pool() -> None:
    def link(message: FileDescriptorProto, index: int, to: str) -> None:
        number = len(message.message_type[index].field) + 1
        message.message_type[index].field.add(name=f"to{number}", number=number, label=1, type=11, type_name=to)

    one, two = file("1", "x", package="p"), file("2", "x", package="q")
    one.message_type.add(name="N")
    two.message_type.add(name="N")
    link(one, 0, ".q.N")
    link(two, 0, ".p.N")
    pool = merged([one, two]).pool()
    assert pool.FindMessageTypeByName("p.M").fields_by_name["to2"].message_type.full_name == "q.N"
    link(one, 1, ".q.M")
    link(two, 1, ".p.M")
    with pytest.raises(DescriptorError, match="need each other"):
        merged([one, two]).pool()


def test_messages_of_different_dialects_are_merged_as_they_mean_it(tmp_path: Path) -> None:
    texts = {
        "proto2": 'syntax = "proto2"; package a; message M { optional string x = 1; repeated int32 n = 2; '
        "optional In in = 3; message In { optional int32 i = 1; } }",
        "proto3": 'syntax = "proto3"; package a; message M { optional string x = 1; repeated int32 n = 2; '
        "In in = 3; message In { int32 i = 1; } string more = 4; }",
        "edition": 'edition = "2023"; package a; message M { string x = 1; repeated int32 n = 2; In in = 3; '
        "message In { int32 i = 1; } message Only { int32 j = 1; } Only only = 5; }",
    }
    sets = {
        name: ContractSet(FileDescriptorSet.FromString(compile_protos(tmp_path / name, {"a.proto": text})))
        for name, text in texts.items()
    }
    for order in permutations(sets):
        contracts = Contracts()
        for name in order:
            contracts.take(name, sets[name].view("a.M"))
        assert not contracts.conflicts
        fields = contracts.pool().FindMessageTypeByName("a.M").fields_by_name
        assert list(fields) == ["x", "n", "in", "more", "only"]
        assert fields["x"].has_presence
        assert fields["in"].message_type.fields_by_name["i"].has_presence


def test_enums_that_are_open_and_closed_contradict_each_other(tmp_path: Path) -> None:
    views = [
        ContractSet(
            FileDescriptorSet.FromString(
                compile_protos(
                    tmp_path / syntax, {"a.proto": f'syntax = "{syntax}"; package a; enum E {{ NONE = 0; }}'}
                )
            )
        ).view("a.E")["a.E"]
        for syntax in ("proto2", "proto3")
    ]
    assert list(contradictions(*views)) == [("a.E", "a closed enum", "an open enum")]


def test_a_compiled_saga_is_loaded_from_its_bytes(trip: Callable[..., CheckResult]) -> None:
    saga = trip(OLD, NEW).sagas[0]
    assert isinstance(load_bundle(saga.bundle), CompiledSaga)
    assert load_bundle(saga.bundle).digest == saga.digest


def as_reflected(data: bytes, gone: str = "") -> bytes:
    """Return a contract as servers that did not get it from protoc answer it: no imports, and relative names."""
    files = FileDescriptorSet.FromString(data)
    kept = [item for item in files.file if not item.package.startswith("google.") and item.package != gone]
    for item in kept:
        item.ClearField("dependency")
        for field in (field for message in item.message_type for field in message.field if field.type_name):
            field.type_name = field.type_name.removeprefix(f".{item.package}.").removeprefix(".")
        for method in (method for service in item.service for method in service.method):
            method.input_type = method.input_type.rpartition(".")[2]
            method.output_type = method.output_type.rpartition(".")[2]
    return FileDescriptorSet(file=kept).SerializeToString()


@pytest.mark.parametrize("gone", ["", "shared.v1"])
def test_a_contract_without_imports_works_and_one_that_lacks_a_type_is_told_at_the_participant(
    tmp_path: Path, gone: str
) -> None:
    money = (
        'import "google/protobuf/timestamp.proto"; message Money { int64 minor = 1; google.protobuf.Timestamp at = 2; }'
    )
    data = compile_protos(tmp_path / "h", service("hotel.v1", "Hotels", money))
    other = compile_protos(tmp_path / "f", service("flight.v1", "Flights", money))
    known = read([Document("p", participants())]).participants
    views = [ParticipantView(known[0], as_reflected(data, gone)), ParticipantView(known[1], other)]
    result = check([Document("s", SAGA % COPY)], participants=views)
    if not gone:
        assert errors(result) == []
        return
    owner = "which the descriptors of Participant shop/hotel do not define."
    assert errors(result) == [
        ("AM026", f"`hotel.v1.{message}.price` is of type `shared.v1.Money`, {owner}")
        for message in ("BookRequest", "BookReply")
    ]
    [told, _] = [f for f in check([Document("p", participants())], participants=views).findings if f.is_error]
    assert (told.code, told.place.source) == ("AM026", "p"), "also where the Participant is applied"
