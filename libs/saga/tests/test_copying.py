"""A request that is made without CEL is the one that CEL makes, to the byte, whatever the fields and their values."""

import random
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from amends_saga.cel import Checked, Environment, Program
from amends_saga.plan import ExpressionError
from google.protobuf import descriptor_pb2, message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from grpc_tools import protoc
from hypothesis import given, settings
from hypothesis import strategies as st

SCALARS = [
    *("bool", "string", "bytes", "float", "double", "int32", "sint32", "sfixed32", "int64", "sint64", "sfixed64"),
    *("uint32", "fixed32", "uint64", "fixed64"),
]
WELL_KNOWN = ["Any", "Duration", "FieldMask", "StringValue", "Struct", "Timestamp"]
KINDS = {
    **{name: name for name in SCALARS},
    **{name.lower(): f"google.protobuf.{name}" for name in WELL_KNOWN},
    "colour": "Colour",
    "inner": "Inner",
}
PLAIN = {*SCALARS, "colour", "inner"}
PROTO = """
syntax = "{package}";
package {package};
import "google/protobuf/any.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/field_mask.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
enum Colour {{ NONE = 0; RED = 1; BLUE = 2; }}
message Inner {{
  {word} string text = 1;
  {word} int32 number = 2;
  {word} Inner again = 3;
  {word} google.protobuf.Timestamp when = 4;
}}
message Source {{ {fields} }}
message Target {{ {fields} }}
"""
ONLY_PROTO2 = 'optional string a_default = 901 [default = "given"]; required string a_needed = 902;'


def fields(word: str) -> str:
    """Each type alone, optional, in a list, in a map and in a oneof."""
    lines, one = [], []
    for number, (name, type_) in enumerate(KINDS.items(), 1):
        one.append(f"{type_} one_{name} = {number};")
        lines += [
            f"{word} {type_} a_{name} = {number + 100};",
            f"optional {type_} opt_{name} = {number + 200};",
            f"repeated {type_} list_{name} = {number + 300};",
            f"map<string, {type_}> map_{name} = {number + 400};",
        ]
    return "\n".join([*lines, f"oneof one {{ {' '.join(one)} }}"])


def a_pool(folder: Path) -> DescriptorPool:
    for package, word, more in (("proto2", "optional", ONLY_PROTO2), ("proto3", "", "")):
        text = PROTO.format(package=package, word=word, fields=fields(word) + more)
        Path(folder, f"{package}.proto").write_text(text)
    included = files("grpc_tools") / "_proto"
    out = folder / "set"
    said = protoc.main(
        ["", f"-I{folder}", f"-I{included}", "--include_imports", f"-o{out}", "proto2.proto", "proto3.proto"]
    )
    assert said == 0
    pool = DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


with TemporaryDirectory() as scratch:
    POOL = a_pool(Path(scratch))
ENVIRONMENTS = {
    package: Environment(POOL, {"input": f"{package}.Source", "step": f"{package}.Target"})
    for package in ("proto2", "proto3")
}


def made_class(name: str) -> type[Message]:
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(name))


def program(package: str, text: str) -> Program | None:
    """None for an expression that the checker does not take."""
    environment = ENVIRONMENTS[package]
    checked = environment.compile(text, package)
    if not isinstance(checked, Checked):
        return None
    return Program.of("the request", checked, environment, package, made_class(f"{package}.Target"))


def fill(message: Any, rng: random.Random, depth: int = 0) -> None:
    """Sets about a third of the fields, to values at the ends of their ranges too."""
    for field in message.DESCRIPTOR.fields:
        if rng.random() > 0.35 or depth > 3:
            continue
        if field.is_repeated:
            for _ in range(rng.randrange(3)):
                add(message, field, rng, depth)
        elif field.message_type is not None:
            child = getattr(message, field.name)
            child.SetInParent()
            fill(child, rng, depth + 1)
        else:
            setattr(message, field.name, value(field, rng))


def add(message: Any, field: FieldDescriptor, rng: random.Random, depth: int) -> None:
    target = getattr(message, field.name)
    if field.message_type is None:
        target.append(value(field, rng))
    elif not field.message_type.GetOptions().map_entry:
        fill(target.add(), rng, depth + 1)
    else:
        held = field.message_type.fields_by_name["value"]
        key_field = field.message_type.fields_by_name["key"]
        key = value(key_field, rng)
        if held.message_type is None:
            target[key] = value(held, rng)
        else:
            fill(target[key], rng, depth + 1)


def value(field: FieldDescriptor, rng: random.Random) -> Any:
    """A value that any field of its sort may have."""
    bits = 31 if field.cpp_type in (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_UINT32) else 63
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_BOOL:
            return rng.choice((False, True))
        case FieldDescriptor.CPPTYPE_STRING:
            return rng.choice(("", "ä", "x" * 300) if field.type == FieldDescriptor.TYPE_STRING else (b"", b"\xff\x00"))
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return rng.choice((0.0, -0.0, 1.5, float("inf"), float("nan")))
        case FieldDescriptor.CPPTYPE_ENUM:
            return rng.randrange(3)
        case FieldDescriptor.CPPTYPE_UINT32 | FieldDescriptor.CPPTYPE_UINT64:
            return rng.choice((0, 1, 2 ** (bits + 1) - 1))
    return rng.choice((0, 1, -1, 2**bits - 1, -(2**bits)))


def a_message(name: str, rng: random.Random) -> Message:
    """May lack what is required, and may hold fields that nobody knows."""
    made: Any = made_class(name)()
    fill(made, rng)
    if rng.random() < 0.3:
        made.MergeFromString(b"\xba\x3e\x03new")  # field 999
    return made  # type: ignore[no-any-return]


def answers(make: Callable[[], bytes | None]) -> bytes | str | None:
    try:
        return make()
    except ExpressionError as error:
        return str(error)


def check_same(made: Program, data: dict[str, Message]) -> bool:
    """Whether it was made without CEL; the answer is CEL's in any case."""
    by_cel = answers(lambda: made._by_cel(data))
    at_once = made._at_once(data)
    assert at_once is None or at_once == by_cel, made.checked.text
    assert answers(lambda: made.message(data)) == by_cel
    return at_once is not None


def each_field(package: str) -> list[str]:
    return [field.name for field in POOL.FindMessageTypeByName(f"{package}.Source").fields]


@pytest.mark.parametrize("package", ["proto2", "proto3"])
def test_every_single_field_is_copied_as_cel_copies_it_and_the_plain_ones_without_it(package: str) -> None:
    rng = random.Random(7)
    needed = "a_needed: 'x', " if package == "proto2" else ""
    without: set[str] = set()
    for field in each_field(package):
        made = program(package, f"Target{{{needed if field != 'a_needed' else ''}{field}: input.{field}}}")
        assert made is not None, field
        for _ in range(40):
            data = {"input": a_message(f"{package}.Source", rng), "step": a_message(f"{package}.Target", rng)}
            if check_same(made, data):
                without.add(field)
    assert without == {
        field for field in each_field(package) if field.partition("_")[2] in PLAIN | {"default", "needed"}
    }


EXPRESSIONS = [
    "Target{}",
    "Target{a_string: 'x', a_bool: true, a_int32: 7, a_int64: -7, a_uint32: 7u, a_uint64: 7u, a_double: 1.5}",
    "Target{a_float: 0.1, a_bytes: b'x', list_string: ['x'], map_string: {'a': 'b'}}",
    "Target{a_int32: 3000000000}",
    "Target{a_inner: Inner{text: input.a_string, again: Inner{number: input.a_int32, again: input.a_inner.again}}}",
    "Target{a_inner: input.a_inner.again, list_inner: input.list_inner, map_inner: input.map_inner}",
    "Target{a_string: input.a_inner.again.again.text, a_int32: step.a_inner.number}",
    "Target{one_string: input.one_string, one_int32: input.one_int32}",
    "Target{one_int32: input.one_int32, one_string: input.a_string}",
    "Target{a_string: input.a_string, a_string: step.a_string}",
    "Target{a_int64: input.a_int32, a_int32: input.a_int64}",
    "Target{a_sint64: input.a_int64, a_uint32: input.a_uint64}",
    "Target{a_double: input.a_float, a_float: input.a_double}",
    "Target{a_colour: input.a_colour, list_colour: step.list_colour}",
    "Target{a_colour: Colour.BLUE}",
    "Target{a_int32: input.a_colour, a_colour: input.a_int32}",
    "Target{a_stringvalue: 'x'}",
    "Target{a_stringvalue: input.a_string, a_any: input.a_inner}",
    "Target{a_timestamp: input.a_inner.when}",
    "Target{a_inner: Inner{when: input.a_timestamp}}",
    "Target{?a_string: input.?opt_string}",
    "Target{a_bool: has(input.a_inner)}",
    "Target{a_string: input.map_string['x']}",
    "Target{a_string: input.list_string[0]}",
    "Target{a_string: input.a_any.text}",
    "step",
    "input",
    "true ? Target{a_string: input.a_string} : step",
]


@settings(max_examples=60, deadline=None)
@given(st.integers(), st.sampled_from(["proto2", "proto3"]))
def test_expressions_of_every_sort_give_what_cel_gives(seed: int, package: str) -> None:
    rng = random.Random(seed)
    for text in EXPRESSIONS:
        made = program(package, text)
        assert made is not None, text
        check_same(made, {"input": a_message(f"{package}.Source", rng), "step": a_message(f"{package}.Target", rng)})


@settings(max_examples=200, deadline=None)
@given(st.integers(), st.sampled_from(["proto2", "proto3"]))
def test_any_fields_of_any_messages_give_what_cel_gives(seed: int, package: str) -> None:
    rng = random.Random(seed)
    names = [name for name in each_field(package) if not name.startswith("one_")]
    copied = {rng.choice(names): rng.choice(["input", "step"]) for _ in range(rng.randrange(1, 6))}
    made = program(package, f"Target{{{', '.join(f'{field}: {source}.{field}' for field, source in copied.items())}}}")
    assert made is not None
    check_same(made, {"input": a_message(f"{package}.Source", rng), "step": a_message(f"{package}.Target", rng)})


@pytest.mark.parametrize(
    ("copies", "size", "said"),
    [
        (1, 1_100_000, "the request is larger than 1,024 KiB"),
        (35, 2_000_000, "the request would touch more than 65,536 KiB"),
    ],
)
def test_what_is_too_large_is_refused_before_it_takes_memory(copies: int, size: int, said: str) -> None:
    made = program("proto3", f"Target{{{', '.join(['a_string: input.a_string'] * copies)}}}")
    assert made is not None
    with pytest.raises(ExpressionError, match=said):
        made.message({"input": made_class("proto3.Source")(a_string="x" * size)})
