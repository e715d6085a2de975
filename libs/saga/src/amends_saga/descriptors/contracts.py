"""Descriptor sets of several participants as one: merged where they agree, a conflict that names both where not.

Only the files that a saga's methods and input need are taken, so that a quarrel about anything else is none of its
business. Called by the analysis of a saga.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError

from amends_saga.descriptors.budget import Budget, DescriptorError
from amends_saga.descriptors.wellknown import well_known_file


def parse_set(data: bytes) -> FileDescriptorSet:
    """Return the FileDescriptorSet that `data` is. Raises DescriptorError when it is none, or holds too much."""
    Budget().take_set(data)
    try:
        parsed = FileDescriptorSet.FromString(data)
    except DecodeError:
        raise DescriptorError("The data is no google.protobuf.FileDescriptorSet.") from None
    if not parsed.file or any(not file.name for file in parsed.file):
        raise DescriptorError("The data holds no files, or files without a name.")
    if not all(isinstance(text, str) for file in parsed.file for text in _texts(file)):
        raise DescriptorError("The data holds names that are no UTF-8.")
    return parsed


@dataclass(frozen=True, eq=False)
class ContractSet:
    """The files of one participant; `owner` is how findings call it."""

    owner: str
    files: FileDescriptorSet

    @cached_property
    def by_name(self) -> dict[str, FileDescriptorProto]:
        """Files by name; of two of the same name the first."""
        return {file.name: file for file in reversed(self.files.file)}

    @cached_property
    def symbols(self) -> dict[str, str]:
        """Full names of messages, enums and services to the names of their files."""
        found: dict[str, str] = {}
        for file in self.files.file:
            prefix = f"{file.package}." if file.package else ""
            for name in _symbols(file):
                found.setdefault(prefix + name, file.name)
        return found

    def method(self, service: str, method: str) -> MethodDescriptorProto | None:
        """Return a method's descriptor, None when service or method are not there."""
        return next((found for found in self.methods(service) if found.name == method), None)

    def methods(self, service: str) -> Sequence[MethodDescriptorProto]:
        """Return the methods of a service, none when it is not there."""
        file = self.by_name.get(self.symbols.get(service, ""))
        name = service.rpartition(".")[2]
        return next((found.method for found in file.service if found.name == name), ()) if file is not None else ()


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two owners that mean different things by one name."""

    what: str
    first: str
    second: str


@dataclass
class Contracts:
    """The files that a saga needs, merged from several sets."""

    files: dict[str, FileDescriptorProto] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    symbols: dict[str, str] = field(default_factory=dict)
    conflicts: list[Conflict] = field(default_factory=list)
    missing: list[tuple[str, str]] = field(default_factory=list)
    """Owner and name of files that are imported and in none of its files."""

    def take(self, given: ContractSet, roots: Iterable[str]) -> None:
        """Add the files `roots` of a set, and everything that they import."""
        waiting, seen = sorted(roots), set[str]()
        while waiting:
            name = waiting.pop()
            if name in seen:
                continue
            seen.add(name)
            known = well_known_file(name)
            file = known if known is not None else given.by_name.get(name)
            if file is None:
                self.missing.append((given.owner, name))
                continue
            waiting.extend(file.dependency)
            if known is None:
                self._merge(file, given.owner)
            else:
                self.files.setdefault(name, known)

    def pool(self) -> DescriptorPool:
        """Return a pool of these files. Raises DescriptorError when they contradict themselves."""
        return build_pool(self.files.values())

    def _merge(self, file: FileDescriptorProto, owner: str) -> None:
        there = self.files.get(file.name)
        if there is None:
            prefix = f"{file.package}." if file.package else ""
            for symbol in _symbols(file):
                other = self.symbols.setdefault(prefix + symbol, file.name)
                if other != file.name:
                    self.conflicts.append(Conflict(f"`{prefix}{symbol}`", self.owners[other], owner))
                    return
            self.files[file.name], self.owners[file.name] = file, owner
        elif there is not file:
            if _bare(there) != _bare(file):
                self.conflicts.append(Conflict(difference(there, file), self.owners[file.name], owner))
            else:
                self.files[file.name] = _redacting(there, file)


def build_pool(files: Iterable[FileDescriptorProto]) -> DescriptorPool:
    """Return a pool of the files, whatever their order. Raises DescriptorError when they contradict themselves."""
    by_name = {file.name: file for file in files}
    pool = DescriptorPool()
    for name in in_order(by_name):
        try:
            pool.AddSerializedFile(by_name[name].SerializeToString())
        except (TypeError, ValueError, KeyError) as error:
            raise DescriptorError(f"`{name}` cannot be used: {str(error).splitlines()[0][:200]}") from None
    return pool


def in_order(files: dict[str, FileDescriptorProto]) -> Iterator[str]:
    """Yield the names so that each comes after what it imports. Raises DescriptorError for imports in a circle."""
    done, waiting = set[str](), sorted(files, reverse=True)
    open_: set[str] = set()
    while waiting:
        name = waiting[-1]
        if name in done:
            waiting.pop()
            continue
        needed = [d for d in sorted(files[name].dependency) if d in files and d not in done]
        if not needed:
            done.add(name)
            yield name
        elif name in open_:
            raise DescriptorError(f"`{name}` imports itself through other files.")
        else:
            open_.add(name)
            waiting.extend(reversed(needed))


def difference(one: FileDescriptorProto, other: FileDescriptorProto) -> str:
    """Return what differs in two files of one name, for people: the first message or enum, else the file."""
    first, second = _bare(one), _bare(other)
    prefix = f"{one.package}." if one.package else ""
    for mine, theirs in ((first.message_type, second.message_type), (first.enum_type, second.enum_type)):
        known = {item.name: item for item in theirs}
        for item in mine:
            if item.name in known and item != known[item.name]:
                return f"`{prefix}{item.name}` ({one.name})"
    return f"the file {one.name}"


def _symbols(file: FileDescriptorProto) -> Iterator[str]:
    yield from (item.name for item in file.enum_type)
    yield from (item.name for item in file.service)
    waiting = [("", message) for message in file.message_type]
    while waiting:
        prefix, message = waiting.pop()
        yield prefix + message.name
        yield from (f"{prefix}{message.name}.{item.name}" for item in message.enum_type)
        waiting.extend((f"{prefix}{message.name}.", item) for item in message.nested_type)


def _texts(file: FileDescriptorProto) -> Iterator[str]:
    """Yield every name in a file: the runtime gives those that are no UTF-8 as bytes."""
    yield from (file.name, file.package, file.syntax, *file.dependency)
    for service in file.service:
        yield service.name
        for method in service.method:
            yield from (method.name, method.input_type, method.output_type)
    enums = list(file.enum_type)
    fields = list(file.extension)
    for message in messages(file):
        yield message.name
        yield from (oneof.name for oneof in message.oneof_decl)
        yield from message.reserved_name
        enums += message.enum_type
        fields += (*message.field, *message.extension)
    for item in fields:
        yield from (item.name, item.type_name, item.extendee, item.json_name, item.default_value)
    for enum in enums:
        yield from (enum.name, *enum.reserved_name, *(value.name for value in enum.value))


def messages(file: FileDescriptorProto) -> Iterator[DescriptorProto]:
    """Yield all messages of a file, nested ones too."""
    waiting = list(file.message_type)
    while waiting:
        message = waiting.pop()
        yield message
        waiting.extend(message.nested_type)


def _bare(file: FileDescriptorProto) -> FileDescriptorProto:
    """Return a copy without what may differ: options that change no bytes, source information, spelt-out defaults."""
    bare = FileDescriptorProto()
    bare.CopyFrom(file)
    bare.ClearField("source_code_info")
    bare.ClearField("options")
    if bare.syntax == "proto2":
        bare.ClearField("syntax")
    del bare.service[:]
    for imports in ("dependency", "public_dependency", "weak_dependency", "option_dependency"):
        bare.ClearField(imports)  # what is imported shows in the types that fields have
    for message in messages(bare):
        _bare_message(message)
    for enum in bare.enum_type:
        _bare_enum(enum)
    for extension in bare.extension:
        _bare_field(extension)
    return bare


def _bare_message(message: DescriptorProto) -> None:
    entry = message.options.map_entry
    message_set = message.options.message_set_wire_format
    message.ClearField("options")
    if entry:
        message.options.map_entry = True
    if message_set:
        message.options.message_set_wire_format = True
    for item in message.field:
        _bare_field(item)
    for extension in message.extension:
        _bare_field(extension)
    for oneof in message.oneof_decl:
        oneof.ClearField("options")
    for extensions in message.extension_range:
        extensions.ClearField("options")
    for enum in message.enum_type:
        _bare_enum(enum)


def _bare_field(item: FieldDescriptorProto) -> None:
    packed = item.options.packed if item.options.HasField("packed") else None
    item.ClearField("options")
    if packed is not None:
        item.options.packed = packed
    if item.json_name == default_json_name(item.name):
        item.ClearField("json_name")


def _bare_enum(enum: EnumDescriptorProto) -> None:
    enum.ClearField("options")
    for value in enum.value:
        value.ClearField("options")


def default_json_name(name: str) -> str:
    """Return the JSON name that protobuf gives a field when the contract names none."""
    first, *rest = name.split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in rest)


def _redacting(one: FileDescriptorProto, other: FileDescriptorProto) -> FileDescriptorProto:
    """Return `one` with every field redacted that `other` redacts: what either holds secret stays secret."""
    if not any(item.options.debug_redact for message in messages(other) for item in message.field):
        return one
    merged = FileDescriptorProto()
    merged.CopyFrom(one)
    for mine, theirs in zip(messages(merged), messages(other), strict=True):
        for kept, given in zip(mine.field, theirs.field, strict=True):
            if given.options.debug_redact:
                kept.options.debug_redact = True
    return merged
