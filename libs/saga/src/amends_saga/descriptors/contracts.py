"""The contract of one participant: its files, read so that every name in them is found.

File names have a meaning only within one participant's files. Other code sees messages and enums by their full names,
with full names for everything that they refer to. Called by the analysis of a saga and by the orchestrator.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from amends_contracts.budget import ContractBudget, DescriptorError
from amends_contracts.wellknown import ENUM, MESSAGE, SERVICE, symbols_of, well_known_file, well_known_names
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)
from google.protobuf.message import DecodeError

_TYPES = {MESSAGE: FieldDescriptorProto.TYPE_MESSAGE, ENUM: FieldDescriptorProto.TYPE_ENUM}


def parse_set(data: bytes) -> FileDescriptorSet:
    """Return the FileDescriptorSet of the bytes. Raises DescriptorError when they are not one, or too large."""
    ContractBudget().take_set(data)
    try:
        parsed = FileDescriptorSet.FromString(data)
    except DecodeError:
        raise DescriptorError("The data is no google.protobuf.FileDescriptorSet.") from None
    if not parsed.file or any(not file.name for file in parsed.file):
        raise DescriptorError("The data holds no files, or files without a name.")
    if not all(isinstance(text, str) for file in parsed.file for text in _texts(file)):
        raise DescriptorError("The data holds names that are no UTF-8.")
    return parsed


@dataclass(frozen=True, slots=True)
class Dialect:
    """A file's rules for its fields: proto2, proto3, or an edition with its features."""

    syntax: str
    edition: int
    features: bytes

    @classmethod
    def of(cls, file: FileDescriptorProto) -> "Dialect":
        """Return the dialect of a file; features of other languages are left out."""
        features = type(file.options.features)()
        features.CopyFrom(file.options.features)
        features.DiscardUnknownFields()
        syntax = "" if file.syntax == "proto2" else file.syntax
        return cls(syntax, file.edition, features.SerializeToString(deterministic=True))

    def write(self, file: FileDescriptorProto) -> None:
        """Give the file this dialect."""
        if self.syntax:
            file.syntax = self.syntax
        if self.edition:
            file.edition = self.edition  # type: ignore[assignment]
        if self.features:
            file.options.features.ParseFromString(self.features)


@dataclass(frozen=True, slots=True)
class TypeDefinition:
    """An outermost message or enum with everything inside it. All types in it are full names."""

    name: str
    package: str
    dialect: Dialect
    proto: DescriptorProto | EnumDescriptorProto
    uses: frozenset[str] = frozenset()
    """The names of the definitions that its fields are of, well-known ones too."""
    dangling: tuple[tuple[str, str], ...] = ()
    """Fields (by full name) whose type is defined nowhere, and that type. In `proto` they are bytes."""

    @property
    def outer(self) -> str:
        """Return the prefix of the full names of its parts, before its own name."""
        return f"{self.package}." if self.package else ""


@dataclass(frozen=True, eq=False)
class ContractSet:
    """The files of one participant."""

    files: FileDescriptorSet

    @cached_property
    def _by_name(self) -> dict[str, FileDescriptorProto]:
        """Return files by name; of two files with the same name, the first."""
        return {file.name: file for file in reversed(self.files.file)}

    @cached_property
    def symbols(self) -> dict[str, list[tuple[str, str]]]:
        """Return full names of messages, enums and services, each with its kind and its defining files.

        A name has more than one file if the sets of several participants were merged into one.
        """
        found: dict[str, list[tuple[str, str]]] = {}
        for file in self._by_name.values():
            if well_known_file(file.name) is None:
                for name, what in symbols_of(file):
                    if name not in well_known_names():
                        found.setdefault(name, []).append((what, file.name))
        return found

    @cached_property
    def _definitions(self) -> dict[tuple[str, str], TypeDefinition]:
        return {}

    @cached_property
    def _views(self) -> dict[str, Mapping[str, TypeDefinition]]:
        return {}

    @cached_property
    def _imports(self) -> dict[str, tuple[str, ...]]:
        return {}

    def has_service(self, service: str) -> bool:
        """Return whether the contract defines a service."""
        return any(what == SERVICE for what, _ in self.symbols.get(service, ()))

    def method(self, service: str, method: str) -> MethodDescriptorProto | None:
        """Return a method's descriptor, None when service or method do not exist."""
        return next((found for found in self.methods(service) if found.name == method), None)

    def methods(self, service: str) -> Sequence[MethodDescriptorProto]:
        """Return the methods of a service, none when it does not exist."""
        file = self._by_name.get(self._home(service, SERVICE))
        name = service.rpartition(".")[2]
        return next((found.method for found in file.service if found.name == name), ()) if file is not None else ()

    def message_of(self, service: str, type_name: str) -> str | None:
        """Return the full name of a message that a service's method names, None when it is not defined."""
        return self._resolve(service, type_name)

    def dangling(self, service: str, message: str) -> Iterator[tuple[str, str]]:
        """Yield the fields of a method's messages whose type is not defined, each with that type."""
        view = self.view(service)
        seen = set[str]()
        waiting = [message]
        while waiting:
            name = waiting.pop()
            while name and name not in view:
                name = name.rpartition(".")[0]
            if name and name not in seen:
                seen.add(name)
                yield from view[name].dangling
                waiting.extend(view[name].uses)

    def view(self, symbol: str) -> Mapping[str, TypeDefinition]:
        """Return all definitions that the file of a symbol sees, by name.

        These are its own, those of its imports, and those they refer to, even where an import is missing. Well-known
        definitions are left out: our own runtime has them.
        """
        home = self.symbols[symbol][0][1]
        if home not in self._views:
            view: dict[str, TypeDefinition] = {}
            for name in self._closure(home):
                file = self._by_name[name]
                for item in outermost(file):
                    full = _prefix(file) + item.name
                    if full not in view and full not in well_known_names():
                        view[full] = self._definition(file, item)
            waiting = [name for definition in view.values() for name in definition.uses if name not in view]
            while waiting:
                name = waiting.pop()
                if name not in view and name in self.symbols:
                    file = self._by_name[self.symbols[name][0][1]]
                    view[name] = self._definition(file, _item(file, name))
                    waiting.extend(view[name].uses)
            self._views[home] = view
        return self._views[home]

    def _home(self, symbol: str, what: str) -> str:
        return next((file for found, file in self.symbols.get(symbol, ()) if found == what), "")

    def _closure(self, home: str) -> tuple[str, ...]:
        """Return a file and all of its imports that exist, without well-known files."""
        if home not in self._imports:
            seen: dict[str, None] = {}
            waiting = [home]
            while waiting:
                name = waiting.pop()
                if name in seen or name not in self._by_name or well_known_file(name) is not None:
                    continue
                seen[name] = None
                waiting.extend(reversed(self._by_name[name].dependency))
            self._imports[home] = tuple(seen)
        return self._imports[home]

    def _definition(self, file: FileDescriptorProto, item: DescriptorProto | EnumDescriptorProto) -> TypeDefinition:
        name = _prefix(file) + item.name
        key = (file.name, name)
        if key not in self._definitions:
            if isinstance(item, EnumDescriptorProto):
                made = TypeDefinition(name, file.package, Dialect.of(file), item)
            else:
                reader = _Names(self)
                proto = reader.read(name, item)
                made = TypeDefinition(
                    name, file.package, Dialect.of(file), proto, frozenset(reader.uses), tuple(reader.dangling)
                )
            self._definitions[key] = made
        return self._definitions[key]

    def _resolve(self, scope: str, type_name: str) -> str | None:
        """Return the full name of a type by protobuf's rules: from the innermost scope outwards."""
        if type_name.startswith("."):
            full = type_name[1:]
            return full if full in self.symbols or full in well_known_names() else None
        while True:
            full = f"{scope}.{type_name}" if scope else type_name
            if full in self.symbols or full in well_known_names():
                return full
            if not scope:
                return None
            scope = scope.rpartition(".")[0]


class _Names:
    """Replaces the types of a message's fields by full names, and notes which types there are."""

    def __init__(self, contract: ContractSet) -> None:
        self._contract = contract
        self.uses: set[str] = set()
        self.dangling: list[tuple[str, str]] = []

    def read(self, name: str, message: DescriptorProto) -> DescriptorProto:
        """Return the message, a copy if one of its names had to be replaced by a full name."""
        wrong = self._look(name, message)
        if not wrong:
            return message
        copy = DescriptorProto()
        copy.CopyFrom(message)
        for path, found, what in wrong:
            scope = copy
            for inner in path[:-1]:
                scope = scope.nested_type[inner]
            field = scope.field[path[-1]]
            if found:
                field.type_name, field.type = f".{found}", _TYPES.get(what, field.type)
            else:  # nothing may use it, see `dangling`: it only keeps its number
                for known in ("type_name", "options", "default_value"):
                    field.ClearField(known)
                field.type = FieldDescriptorProto.TYPE_BYTES
        _name_entries(name, copy)
        return copy

    def _look(self, name: str, message: DescriptorProto) -> list[tuple[tuple[int, ...], str, str]]:
        """Return the fields to change: the path of each by indices, its type's full name (or none), and its kind."""
        wrong: list[tuple[tuple[int, ...], str, str]] = []
        waiting: list[tuple[str, DescriptorProto, tuple[int, ...]]] = [(name, message, ())]
        known, resolve = self._contract.symbols, self._contract._resolve
        while waiting:
            scope, found, path = waiting.pop()
            for index, field in enumerate(found.field):
                given = field.type_name
                if not given:
                    continue
                full = resolve(scope, given)
                if full is None:
                    self.dangling.append((f"{scope}.{field.name}", given.lstrip(".")))
                    wrong.append(((*path, index), "", ""))
                    continue
                self.uses.add(_outermost(full, known))
                if given[0] != "." or not field.HasField("type"):
                    wrong.append(((*path, index), full, _what(full, known)))
            waiting += [(f"{scope}.{m.name}", m, (*path, i)) for i, m in enumerate(found.nested_type)]
        return wrong


def _name_entries(name: str, message: DescriptorProto) -> None:
    """Rename the entries of maps to the names that protobuf requires; Node's proto-loader uses field names."""
    waiting = [(name, message)]
    while waiting:
        full, scope = waiting.pop()
        entries = {f".{full}.{inner.name}": inner for inner in scope.nested_type if inner.options.map_entry}
        for field in scope.field:
            entry = entries.get(field.type_name)
            if entry is not None:
                entry.name = "".join(part[:1].upper() + part[1:] for part in field.name.split("_")) + "Entry"
                field.type_name = f".{full}.{entry.name}"
        waiting += [(f"{full}.{inner.name}", inner) for inner in scope.nested_type]


def _what(full: str, known: Mapping[str, list[tuple[str, str]]]) -> str:
    return known[full][0][0] if full in known else well_known_names()[full][0]


def _outermost(full: str, known: Mapping[str, list[tuple[str, str]]]) -> str:
    """Return the name of the definition that contains a message or enum."""
    outer = full.rpartition(".")[0]
    while outer in known or outer in well_known_names():
        full, outer = outer, outer.rpartition(".")[0]
    return full


def _item(file: FileDescriptorProto, name: str) -> DescriptorProto | EnumDescriptorProto:
    last = name[len(_prefix(file)) :]
    return next(item for item in outermost(file) if item.name == last)


def _prefix(file: FileDescriptorProto) -> str:
    return f"{file.package}." if file.package else ""


def _texts(file: FileDescriptorProto) -> Iterator[str]:
    """Yield every name in a file: the runtime returns names that are not UTF-8 as bytes."""
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


def outermost(file: FileDescriptorProto) -> Iterator[DescriptorProto | EnumDescriptorProto]:
    """Yield the messages and enums of a file that no other message contains."""
    yield from file.message_type
    yield from file.enum_type


def inside(item: DescriptorProto | EnumDescriptorProto) -> Iterator[DescriptorProto | EnumDescriptorProto]:
    """Yield the messages and enums that a message contains directly."""
    if isinstance(item, DescriptorProto):
        yield from item.nested_type
        yield from item.enum_type


def messages(file: FileDescriptorProto) -> Iterator[DescriptorProto]:
    """Yield all messages of a file, including nested ones."""
    for message in file.message_type:
        yield from nested_messages(message)


def nested_messages(message: DescriptorProto) -> Iterator[DescriptorProto]:
    """Yield a message and all messages inside it."""
    waiting = [message]
    while waiting:
        found = waiting.pop()
        yield found
        waiting.extend(found.nested_type)
