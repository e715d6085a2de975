"""Cuts merged contracts down to the messages that a saga reaches: what is pinned with a run, and digested.

A change of a contract that a saga does not touch must not make a new version of it. Called by the compiler.
"""

from collections.abc import Iterable, Iterator, Sequence

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)

from amends_saga.descriptors.contracts import default_json_name, messages
from amends_saga.descriptors.wellknown import well_known_file

MAX_CHAIN = 250
"""How far messages may lead to messages; Python's own limit is near 480."""
_Index = dict[str, tuple[str, DescriptorProto | EnumDescriptorProto]]
"""Full names of messages and enums to the names of their files, and what they are."""


def reachable_files(files: dict[str, FileDescriptorProto], roots: Iterable[str]) -> list[FileDescriptorProto]:
    """Return files with only the messages and enums that the messages `roots` need, sorted by name.

    Well-known files are left out: `load_bundle` takes them from its own runtime. No services, comments or options but
    those that change bytes or what is shown.
    """
    index = _index(files)
    wanted = _closure(index, roots)
    by_file: dict[str, set[str]] = {}
    for name in wanted:
        by_file.setdefault(index[name][0], set()).add(name)
    cut = []
    for name in sorted(by_file):
        if well_known_file(name) is None:
            cut.append(_cut(files[name], by_file[name], index))
    return cut


def _index(files: dict[str, FileDescriptorProto]) -> _Index:
    found: _Index = {}
    for file in files.values():
        prefix = f"{file.package}." if file.package else ""
        found.update((prefix + enum.name, (file.name, enum)) for enum in file.enum_type)
        waiting = [(prefix, message) for message in file.message_type]
        while waiting:
            prefix_, message = waiting.pop()
            full = prefix_ + message.name
            found[full] = (file.name, message)
            found.update((f"{full}.{enum.name}", (file.name, enum)) for enum in message.enum_type)
            waiting.extend((f"{full}.", item) for item in message.nested_type)
    return found


def is_deep(files: Sequence[FileDescriptorProto], roots: Iterable[str]) -> bool:
    """Tell whether messages lead to messages further than MAX_CHAIN, from one of `roots` on.

    Protobuf's runtime recurses along this way when it makes the classes of messages: it follows each message's fields
    in their order, and goes into each message once.
    """
    index = _index({file.name: file for file in files})
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


def _uses(index: _Index, name: str) -> Iterator[str]:
    """Yield the messages and enums that a message's fields have, in the order of the fields."""
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


def _cut(
    file: FileDescriptorProto,
    wanted: set[str],
    index: _Index,
) -> FileDescriptorProto:
    cut = FileDescriptorProto(name=file.name)
    if file.HasField("package"):
        cut.package = file.package
    if file.HasField("syntax"):
        cut.syntax = file.syntax
    if file.HasField("edition"):
        cut.edition = file.edition
    if file.options.HasField("features"):
        cut.options.features.CopyFrom(file.options.features)
        cut.options.features.DiscardUnknownFields()
    prefix = f"{file.package}." if file.package else ""
    for enum in sorted(file.enum_type, key=lambda e: e.name):
        if prefix + enum.name in wanted:
            cut.enum_type.add().CopyFrom(_enum(enum))
    for message in sorted(file.message_type, key=lambda m: m.name):
        kept = _message(message, prefix, wanted)
        if kept is not None:
            cut.message_type.add().CopyFrom(kept)
    used = (f.type_name.lstrip(".") for m in messages(cut) for f in m.field if f.type_name)
    cut.dependency.extend(sorted({index[name][0] for name in used if name in index} - {file.name}))
    return cut


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
