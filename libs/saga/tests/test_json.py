"""JSON that people and programs send: what it means, and that whatever is wrong is refused by name and place."""

import json
from typing import Any

import pytest
from amends_contracts.wellknown import well_known_file
from amends_saga.descriptors import build_pool
from amends_saga.descriptors.attributes import renamed
from amends_saga.jsoncheck import EXACT, MAX_DEPTH, MAX_PATH
from amends_saga.jsonform import InputError, check_depth, parse_json, recursive, show_json
from google.protobuf import message_factory
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct

BIG = 2**53 + 1
TYPES = {
    "trip_id": Field.TYPE_STRING,
    "account": Field.TYPE_INT64,
    "count": Field.TYPE_INT32,
    "ratio": Field.TYPE_DOUBLE,
    "share": Field.TYPE_FLOAT,
    "data": Field.TYPE_BYTES,
    "sure": Field.TYPE_BOOL,
}
MESSAGES = {
    "self": ".t.In",
    "loose": ".google.protobuf.Struct",
    "any": ".google.protobuf.Any",
    "at": ".google.protobuf.Timestamp",
    "wrapped": ".google.protobuf.Int64Value",
}
IMPORTS = ("any", "struct", "timestamp", "wrappers")


def files() -> list[FileDescriptorProto]:
    file = FileDescriptorProto(name="t.proto", package="t", syntax="proto3")
    file.dependency.extend(f"google/protobuf/{name}.proto" for name in IMPORTS)
    made = file.message_type.add(name="In")
    for name, kind in TYPES.items():
        made.field.add(name=name, number=len(made.field) + 1, type=kind, label=Field.LABEL_OPTIONAL)
    for name, kind_name in MESSAGES.items():
        number = len(made.field) + 1
        made.field.add(name=name, number=number, type=Field.TYPE_MESSAGE, type_name=kind_name, label=1)
    entry = made.nested_type.add(name="NamesEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=Field.TYPE_INT32, label=1)
    entry.field.add(name="value", number=2, type=Field.TYPE_STRING, label=1)
    made.field.add(name="names", number=30, type=Field.TYPE_MESSAGE, type_name=".t.In.NamesEntry", label=3)
    made.field.add(name="children", number=31, type=Field.TYPE_MESSAGE, type_name=".t.In", label=3)
    made.oneof_decl.add(name="way")
    for number, name in ((40, "by_air"), (41, "by_sea")):
        made.field.add(name=name, number=number, type=Field.TYPE_STRING, label=1, oneof_index=0)
    odd = file.message_type.add(name="Odd")
    for number, name in enumerate(("DESCRIPTOR", "Clear", "SerializeToString", "ListFields", "Clear_", "x"), 1):
        odd.field.add(name=name, json_name=name, number=number, type=Field.TYPE_STRING, label=1)
    known = [well_known_file(name) for name in file.dependency]
    return [file, *(each for each in known if each is not None)]


@pytest.fixture(scope="module")
def pool() -> DescriptorPool:
    return build_pool(files())


@pytest.fixture(scope="module")
def made(pool: DescriptorPool) -> type[Message]:
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.In"))


def read(given: Any, made: type[Message], pool: DescriptorPool) -> Any:
    return parse_json(given, made, pool)


def test_integers_of_a_text_are_exact(made: type[Message], pool: DescriptorPool) -> None:
    assert read(f'{{"account": {BIG}}}', made, pool).account == BIG
    assert read(f'{{"account": "{BIG}", "wrapped": {BIG}}}', made, pool).wrapped.value == BIG
    assert read('{"count": 1.0, "account": 1e3}', made, pool).account == 1000


@pytest.mark.parametrize("field", ["account", "wrapped"])
def test_an_integer_that_a_double_may_have_rounded_is_refused(
    made: type[Message], pool: DescriptorPool, field: str
) -> None:
    carried = Struct()
    carried.update({field: BIG})
    with pytest.raises(InputError, match="write it as a text") as caught:
        read(carried, made, pool)
    assert caught.value.path == field
    carried.update({field: EXACT})
    read(carried, made, pool)
    carried.update({field: str(BIG)})
    read(carried, made, pool)


DEEP = '{"self":' * (MAX_DEPTH + 1) + "{}" + "}" * (MAX_DEPTH + 1)


@pytest.mark.parametrize(
    ("text", "path", "words"),
    [
        ('{"tripId": "a", "trip_id": "b"}', "trip_id", "given twice, as tripId and trip_id"),
        ('{"self": {"tripId": "a", "tripId": "a"}}', "self.tripId", "given twice"),
        ('{"any": {"@type": "x/t.In", "tripId": "a", "trip_id": "b"}}', "any.trip_id", "given twice"),
        ('{"names": {"1": "a", "01": "b"}}', "names[01]", "must be written as 1"),
        ('{"byAir": "a", "by_sea": "b"}', "by_sea", "byAir and by_sea exclude each other"),
        ('{"ratio": NaN}', "ratio", "no number"),
        ('{"ratio": 1e999}', "ratio", "no number"),
        ('{"loose": {"a": [-Infinity]}}', "loose.a[0]", "no number"),
        ('{"ratio": true}', "ratio", "a number"),
        ('{"ratio": []}', "ratio", "a number"),
        (f'{{"ratio": 1{"0" * 400}}}', "ratio", "too large"),
        ('{"share": 1e300}', "share", "too large for a float"),
        (f'{{"account": 1{"0" * 5000}}}', "", "too many digits"),
        ('{"account": "--5"}', "account", "a whole number"),
        ('{"account": 9223372036854775808}', "account", "must be from"),
        ('{"tripId": "\\ud800"}', "tripId", "surrogate"),
        ('{"\\ud800": 1}', "", "no text"),
        ('{"data": "%%"}', "data", "base64"),
        ('{"at": "2026-02-30T00:00:00Z"}', "at", "no google.protobuf.Timestamp"),
        ('{"at": 5}', "at", "a text"),
        ('{"loose": {"a": 9007199254740993}}', "loose.a", "write it as a text"),
        ('{"any": {"@type": "x/no.Such"}}', "any.@type", "contracts"),
        ('{"sure": "yes"}', "sure", "true or false"),
        ("[1]", "", "an object"),
        ("5", "", "an object"),
        ("", "", "no JSON"),
        ('{"tripId": "a"} x', "", "line 1, column 17"),
        (DEEP, ".".join(["self"] * MAX_DEPTH)[:MAX_PATH] + "...", "deeper than 64"),
        ("[" * 3000, "", "deeper than 64"),
        ('{"a":' * 100_000, "", "deeper than 64"),
    ],
)
def test_json_that_cannot_be_meant_is_refused_with_its_path(
    made: type[Message], pool: DescriptorPool, text: str, path: str, words: str
) -> None:
    with pytest.raises(InputError) as caught:
        read(text, made, pool)
    assert caught.value.path == path
    assert words in caught.value.message
    str(caught.value).encode()


def test_a_struct_that_no_json_can_hold_is_refused(made: type[Message], pool: DescriptorPool) -> None:
    for name, number in (("ratio", float("nan")), ("ratio", float("inf"))):
        carried = Struct()
        carried.fields[name].number_value = number
        with pytest.raises(InputError) as caught:
            read(carried, made, pool)
        assert caught.value.path == name
    carried = Struct()
    carried.fields["self"].struct_value.fields["tripId"].SetInParent()
    with pytest.raises(InputError, match="no value") as caught:
        read(carried, made, pool)
    assert caught.value.path == "self.tripId"


def test_both_names_of_a_field_in_a_struct_are_refused_whatever_their_order(
    made: type[Message], pool: DescriptorPool
) -> None:
    for names in (("tripId", "trip_id"), ("trip_id", "tripId")):
        carried = Struct()
        carried.update(dict.fromkeys(names, "a"))
        with pytest.raises(InputError, match="given twice"):
            read(carried, made, pool)


def test_a_double_may_be_no_number_when_it_is_written_as_a_text(made: type[Message], pool: DescriptorPool) -> None:
    assert read('{"ratio": "-Infinity"}', made, pool).ratio == float("-inf")


def test_one_limit_of_depth_holds_for_json_and_for_bytes(made: type[Message], pool: DescriptorPool) -> None:
    deepest = '{"self":' * (MAX_DEPTH - 1) + "{}" + "}" * (MAX_DEPTH - 1)
    message = read(deepest, made, pool)
    check_depth(message)
    assert "@error" not in show_json(made, message.SerializeToString(), redact=True, pool=pool)
    outer: Any = made()
    outer.self.CopyFrom(message)
    with pytest.raises(InputError, match="deeper than 64"):
        check_depth(outer)
    assert recursive(made.DESCRIPTOR)
    assert not recursive(pool.FindMessageTypeByName("t.Odd"))


def test_fields_called_like_a_part_of_every_message_are_read_and_shown() -> None:
    other = renamed(files())
    assert other is not None
    pool = build_pool(other)
    odd = message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Odd"))
    text = json.dumps({"DESCRIPTOR": "a", "Clear": "b", "SerializeToString": "c", "ListFields": "d", "Clear_": "e"})
    data = parse_json(text, odd, pool).SerializeToString()
    assert data == b"\n\x01a\x12\x01b\x1a\x01c\x22\x01d\x2a\x01e"
    assert show_json(odd, data, redact=True, pool=pool) == json.loads(text)
    assert renamed([each for each in files() if each.name != "t.proto"]) is None
