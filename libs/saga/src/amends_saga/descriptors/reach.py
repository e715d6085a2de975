"""Reduces merged contracts to the messages that a saga reaches; only these are pinned and digested.

A change of a contract that does not affect a saga must not make a new version of it. Called by the compiler.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)

from amends_saga.descriptors.contracts import TypeDefinition, inside, nested_messages, outermost
from amends_saga.descriptors.files import assemble

MAX_CHAIN = 350
"""How far messages may lead to messages; Python's own limit is near 480."""
_Index = dict[str, tuple[str, DescriptorProto | EnumDescriptorProto]]
"""Messages and enums by full name, each with the name of the outermost one that it is in."""


def reachable_files(definitions: Mapping[str, TypeDefinition], roots: Iterable[str]) -> list[FileDescriptorProto]:
    """Return files with only the messages and enums that the messages `roots` need, sorted by name.

    Well-known files are left out: `load_bundle` takes them from its own runtime. Services and comments are left out,
    and options too, except those that change bytes or what is shown. Raises DescriptorError as `assemble` does.
    """
    index = _index((name, definition.proto) for name, definition in definitions.items())
    wanted = _closure(index, roots)
    outer = {index[name][0] for name in wanted}
    return assemble({name: _cut(definitions[name], wanted) for name in sorted(outer)})


def is_deep(files: Sequence[FileDescriptorProto], roots: Iterable[str]) -> bool:
    """Return whether a chain of messages from one of `roots` is longer than MAX_CHAIN.

    Protobuf's runtime recurses along this chain when it makes the classes of messages: it follows each message's fields
    in order, and enters each message once.
    """
    index = _index(
        (f"{file.package}.{item.name}" if file.package else item.name, item)
        for file in files
        for item in outermost(file)
    )
    return len(index) > MAX_CHAIN and any(_leads_deep(index, root) for root in set(roots) if root in index)


def _leads_deep(index: _Index, root: str) -> bool:
    seen, way = {root}, [_uses(index, root)]
    while way:
        if len(way) > MAX_CHAIN:
            return True
        found = next((name for name in way[-1] if name not in seen), None)
        if found is None:
            way.pop()
        else:
            seen.add(found)
            way.append(_uses(index, found))
    return False


def _index(items: Iterable[tuple[str, DescriptorProto | EnumDescriptorProto]]) -> _Index:
    found: _Index = {}
    for name, definition in items:
        waiting = [(name, definition)]
        while waiting:
            full, item = waiting.pop()
            found[full] = (name, item)
            waiting += [(f"{full}.{inner.name}", inner) for inner in inside(item)]
    return found


def _uses(index: _Index, name: str) -> Iterator[str]:
    """Yield the messages and enums of a message's fields, in the order of the fields."""
    item = index[name][1]
    if isinstance(item, DescriptorProto):
        used = (field.type_name.lstrip(".") for field in item.field if field.type_name)
        yield from (type_name for type_name in used if type_name in index)


def _closure(index: _Index, roots: Iterable[str]) -> set[str]:
    wanted, waiting = set[str](), [name for name in roots if name in index]
    while waiting:
        name = waiting.pop()
        if name in wanted:
            continue
        wanted.add(name)
        waiting.extend(_uses(index, name))
    return wanted


def _cut(definition: TypeDefinition, wanted: set[str]) -> TypeDefinition:
    proto: DescriptorProto | EnumDescriptorProto | None
    if isinstance(definition.proto, EnumDescriptorProto):
        return replace(definition, proto=_enum(definition.proto))
    proto = _message(definition.proto, definition.outer, wanted)
    assert proto is not None
    named = {field.type_name.lstrip(".") for message in nested_messages(proto) for field in message.field} - {""}
    return replace(definition, proto=proto, uses=frozenset(_outer(name, definition.uses) for name in named))


def _outer(name: str, uses: frozenset[str]) -> str:
    while name not in uses:
        name = name.rpartition(".")[0]
    return name


def _message(message: DescriptorProto, prefix: str, wanted: set[str]) -> DescriptorProto | None:
    full = prefix + message.name
    kept = DescriptorProto(name=message.name)
    for nested in sorted(message.nested_type, key=lambda m: m.name):
        inner = _message(nested, f"{full}.", wanted)
        if inner is not None:
            kept.nested_type.add().CopyFrom(inner)
    for enum in sorted(message.enum_type, key=lambda e: e.name):
        if f"{full}.{enum.name}" in wanted:
            kept.enum_type.add().CopyFrom(_enum(enum))
    if full not in wanted:
        return kept if kept.nested_type or kept.enum_type else None
    kept.field.extend(_field(item) for item in sorted(message.field, key=lambda f: f.number))
    for oneof in message.oneof_decl:
        kept.oneof_decl.add(name=oneof.name)
    for extensions in message.extension_range:
        kept.extension_range.add(start=extensions.start, end=extensions.end)
    if message.options.map_entry:
        kept.options.map_entry = True
    if message.options.message_set_wire_format:
        kept.options.message_set_wire_format = True
    if message.options.HasField("features"):
        kept.options.features.CopyFrom(message.options.features)
        kept.options.features.DiscardUnknownFields()
    return kept


def _field(item: FieldDescriptorProto) -> FieldDescriptorProto:
    kept = FieldDescriptorProto()
    kept.CopyFrom(item)
    kept.ClearField("options")
    kept.ClearField("json_name")
    if item.json_name and item.json_name != default_json_name(item.name):
        kept.json_name = item.json_name
    if item.options.HasField("packed"):
        kept.options.packed = item.options.packed
    if item.options.debug_redact:
        kept.options.debug_redact = True
    if item.options.HasField("features"):
        kept.options.features.CopyFrom(item.options.features)
        kept.options.features.DiscardUnknownFields()
    return kept


def _enum(enum: EnumDescriptorProto) -> EnumDescriptorProto:
    kept = EnumDescriptorProto(name=enum.name)
    for value in enum.value:
        kept.value.add(name=value.name, number=value.number)
    if enum.options.allow_alias:
        kept.options.allow_alias = True
    if enum.options.HasField("features"):
        kept.options.features.CopyFrom(enum.options.features)
        kept.options.features.DiscardUnknownFields()
    return kept


def default_json_name(name: str) -> str:
    """Return the JSON name that protobuf gives a field when the contract names none."""
    first, *rest = name.split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in rest)
