"""Merges the contracts of several participants: a message that two of them have becomes the union of both.

They may have different versions, because services are deployed one after the other. Definitions that both can read and
write are merged, by the rules of `buf breaking` for the wire, and by name, because expressions use field names.
Anything else is a contradiction. Called by the analysis of a saga.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from amends_contracts.wellknown import ALWAYS
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FeatureSet,
    FieldDescriptorProto,
)
from google.protobuf.descriptor_pool import DescriptorPool

from amends_saga.descriptors.contracts import Dialect, TypeDefinition, inside
from amends_saga.descriptors.files import assemble, build_pool, with_well_known

_F = FieldDescriptorProto
WIDER = {
    _F.TYPE_INT32: _F.TYPE_INT64,
    _F.TYPE_UINT32: _F.TYPE_UINT64,
    _F.TYPE_SINT32: _F.TYPE_SINT64,
}
"""Types whose values all fit the other type too, in the same bytes and as the same type of CEL."""


@dataclass(frozen=True, slots=True)
class NameConflict:
    """Two owners that mean different things by one name."""

    symbol: str
    """The message or enum."""
    first: str
    second: str
    says_first: str
    """How the first defines the field or value, e.g. `int64 units = 2`."""
    says_second: str


@dataclass
class Contracts:
    """The messages and enums that a saga may use, merged from several participants' contracts."""

    definitions: dict[str, TypeDefinition] = field(default_factory=dict)
    conflicts: dict[str, NameConflict] = field(default_factory=dict)
    """By name of the definition; of two that contradict each other the first is in `definitions`."""
    _views: dict[str, dict[str, TypeDefinition]] = field(default_factory=dict)

    def take(self, owner: str, view: Mapping[str, TypeDefinition]) -> None:
        """Add the definitions of one owner."""
        for name, given in view.items():
            views = self._views.setdefault(name, {})
            there = self.definitions.get(name)
            if there is None:
                self.definitions[name] = given
            elif there is not given:
                self._merge(owner, views, there, given)
            views.setdefault(owner, given)

    def _merge(
        self, owner: str, views: Mapping[str, TypeDefinition], there: TypeDefinition, given: TypeDefinition
    ) -> None:
        name = given.name
        if given.dialect == there.dialect and given.proto == there.proto:
            return
        for other, known in views.items():
            wrong = next(contradictions(known, given), None)
            if wrong is not None:
                symbol, first, second = wrong
                self.conflicts.setdefault(name, NameConflict(symbol, other, owner, first, second))
                return
        self.definitions[name] = _union(there, given)

    def own(self, owner: str, name: str) -> DescriptorProto | EnumDescriptorProto | None:
        """Return an owner's version of a message or enum, None when the owner has none."""
        found = self.find(name)
        view = self._views[found[0].name].get(owner) if found is not None else None
        return _inner(view, name) if view is not None else None

    @property
    def merged(self) -> frozenset[str]:
        """Return the definitions that owners have in different versions."""
        return frozenset(
            name
            for name, views in self._views.items()
            if len(views) > 1 and any(view != self.definitions[name] for view in views.values())
        )

    def reached(self, roots: Iterable[str]) -> dict[str, TypeDefinition]:
        """Return the definitions that messages or enums need; a nested one counts as its outermost one."""
        found: dict[str, TypeDefinition] = {}
        waiting = list(roots)
        while waiting:
            name = waiting.pop()
            while name and name not in self.definitions:
                name = name.rpartition(".")[0]
            if name and name not in found:
                found[name] = self.definitions[name]
                waiting.extend(found[name].uses)
        return found

    def find(self, name: str) -> tuple[TypeDefinition, DescriptorProto | EnumDescriptorProto] | None:
        """Return the definition that contains a message or enum, and the message itself; None without one."""
        outer = name
        while outer and outer not in self.definitions:
            outer = outer.rpartition(".")[0]
        if not outer:
            return None
        found = _inner(self.definitions[outer], name)
        return None if found is None else (self.definitions[outer], found)

    def pool(self) -> DescriptorPool:
        """Return a pool of all definitions. Raises DescriptorError when they contradict themselves."""
        return build_pool(with_well_known(assemble(self.definitions), ALWAYS).values())


def _inner(definition: TypeDefinition, name: str) -> DescriptorProto | EnumDescriptorProto | None:
    """Return a message or enum within a definition, by its full name."""
    found: DescriptorProto | EnumDescriptorProto | None = definition.proto
    for part in name[len(definition.name) :].split(".")[1:]:
        found = next((item for item in inside(found) if item.name == part), None) if found is not None else None
    return found


def contradictions(one: TypeDefinition, other: TypeDefinition) -> Iterator[tuple[str, str, str]]:
    """Yield the contradictions between two definitions: the symbol, and what each says about it."""
    if one.proto == other.proto and one.dialect == other.dialect:
        return
    yield from _contradictions(one.name, one.proto, one.dialect, other.proto, other.dialect)


def _contradictions(
    name: str, one: Any, one_dialect: Dialect, other: Any, other_dialect: Dialect
) -> Iterator[tuple[str, str, str]]:
    if type(one) is not type(other):
        what = {DescriptorProto: "a message", EnumDescriptorProto: "an enum"}
        yield name, what[type(one)], what[type(other)]
    elif isinstance(one, EnumDescriptorProto):
        yield from _enums(name, one, one_dialect, other, other_dialect)
    else:
        yield from _messages(name, one, one_dialect, other, other_dialect)


def _messages(
    name: str, one: DescriptorProto, one_dialect: Dialect, other: DescriptorProto, other_dialect: Dialect
) -> Iterator[tuple[str, str, str]]:
    for option, words in (("map_entry", "an entry of a map"), ("message_set_wire_format", "a message set")):
        mine, theirs = getattr(one.options, option), getattr(other.options, option)
        if mine != theirs:
            yield name, words if mine else f"not {words}", words if theirs else f"not {words}"
    for mine_says, theirs_say in _fields(_fields_of(one, one_dialect), _fields_of(other, other_dialect)):
        yield name, mine_says, theirs_say
    for kind in ("nested_type", "enum_type"):
        known = {item.name: item for item in getattr(other, kind)}
        for item in getattr(one, kind):
            if item.name in known:
                inner = known[item.name]
                yield from _contradictions(f"{name}.{item.name}", item, one_dialect, inner, other_dialect)


def _fields_of(message: DescriptorProto, dialect: Dialect) -> dict[int, "_FieldIdentity"]:
    return {item.number: _FieldIdentity(item, message, dialect) for item in message.field}


def _fields(mine: Mapping[int, "_FieldIdentity"], theirs: Mapping[int, "_FieldIdentity"]) -> Iterator[tuple[str, str]]:
    """Yield what each side says about a field that contradicts the other side's; fields come by their numbers."""
    my_names = {one.proto.name: one for one in mine.values()}
    their_names = {one.proto.name: one for one in theirs.values()}
    for number, one in mine.items():
        other = theirs.get(number) or their_names.get(one.proto.name)
        if other is None:
            if one.is_required:
                yield one.text, f"no `{one.proto.name}`"
        elif not one.agrees(other):
            yield one.text, other.text
    for number, other in theirs.items():
        if number in mine:
            continue
        one_named_so = my_names.get(other.proto.name)
        if one_named_so is not None:
            yield one_named_so.text, other.text
        elif other.is_required:
            yield f"no `{other.proto.name}`", other.text


@dataclass(frozen=True, slots=True)
class _FieldIdentity:
    """A field with the parts of its message and file that decide its meaning."""

    proto: FieldDescriptorProto
    message: DescriptorProto
    dialect: Dialect

    @property
    def is_repeated(self) -> bool:
        return self.proto.label == _F.LABEL_REPEATED

    @property
    def is_required(self) -> bool:
        return self.proto.label == _F.LABEL_REQUIRED or self._presence() == FeatureSet.LEGACY_REQUIRED

    @property
    def is_explicit(self) -> bool:
        """Return whether it is a number, text or enum that records whether it was set."""
        if self.is_repeated or self.proto.type in (_F.TYPE_MESSAGE, _F.TYPE_GROUP) or self.oneof:
            return False
        if self.dialect.syntax == "proto3":
            return self.proto.proto3_optional
        return self.dialect.syntax == "" or self._presence() != FeatureSet.IMPLICIT

    @property
    def oneof(self) -> str:
        """Return the oneof of the field; empty for that of an `optional` field, which nobody wrote."""
        if not self.proto.HasField("oneof_index") or self.proto.proto3_optional:
            return ""
        return self.message.oneof_decl[self.proto.oneof_index].name

    @property
    def is_delimited(self) -> bool:
        if self.proto.type == _F.TYPE_GROUP:
            return True
        if self.proto.type != _F.TYPE_MESSAGE:
            return False
        own = self.proto.options.features
        found = own if own.HasField("message_encoding") else _features(self.dialect)
        return found.message_encoding == FeatureSet.DELIMITED

    @property
    def text(self) -> str:
        """Return the field in the syntax of a contract."""
        label = {_F.LABEL_REPEATED: "repeated ", _F.LABEL_REQUIRED: "required "}.get(self.proto.label, "")
        kind = self.proto.type_name.lstrip(".") or _F.Type.Name(self.proto.type).removeprefix("TYPE_").lower()
        where = f" in the oneof {self.oneof}" if self.oneof else ""
        return f"`{label}{kind} {self.proto.name} = {self.proto.number}`{where}"

    def agrees(self, other: "_FieldIdentity") -> bool:
        """Return whether each side can read what the other writes, with the same meaning."""
        mine, theirs = self.proto, other.proto
        same = mine.number == theirs.number and mine.name == theirs.name and self.oneof == other.oneof
        if not same or self.is_repeated != other.is_repeated or self.is_required != other.is_required:
            return False
        if mine.type_name or theirs.type_name:
            kinds = mine.type == theirs.type or {mine.type, theirs.type} == {_F.TYPE_MESSAGE, _F.TYPE_GROUP}
            return kinds and mine.type_name == theirs.type_name and self.is_delimited == other.is_delimited
        return WIDER.get(mine.type, mine.type) == WIDER.get(theirs.type, theirs.type)

    def _presence(self) -> int:
        own = self.proto.options.features
        return own.field_presence if own.HasField("field_presence") else _features(self.dialect).field_presence


def _features(dialect: Dialect) -> FeatureSet:
    return FeatureSet.FromString(dialect.features)


def _enums(
    name: str, one: EnumDescriptorProto, one_dialect: Dialect, other: EnumDescriptorProto, other_dialect: Dialect
) -> Iterator[tuple[str, str, str]]:
    mine, theirs = _is_closed(one, one_dialect), _is_closed(other, other_dialect)
    if mine != theirs:
        words = {True: "a closed enum", False: "an open enum"}
        yield name, words[mine], words[theirs]
    numbers: list[dict[int, set[str]]] = []
    for enum in (one, other):
        numbers.append({})
        for value in enum.value:
            numbers[-1].setdefault(value.number, set()).add(value.name)
    known = {value.name: value.number for value in other.value}
    for value in one.value:
        if known.get(value.name, value.number) != value.number:
            yield name, f"`{value.name} = {value.number}`", f"`{value.name} = {known[value.name]}`"
    for number, names in numbers[0].items():
        others = numbers[1].get(number)
        if others is not None and not names & others:
            yield name, f"`{min(names)} = {number}`", f"`{min(others)} = {number}`"


def _is_closed(enum: EnumDescriptorProto, dialect: Dialect) -> bool:
    if dialect.syntax in ("", "proto3"):
        return dialect.syntax == ""
    own = enum.options.features
    return (own if own.HasField("enum_type") else _features(dialect)).enum_type == FeatureSet.CLOSED


def _union(one: TypeDefinition, other: TypeDefinition) -> TypeDefinition:
    """Return a definition with the fields of both, which must agree."""
    proto: DescriptorProto | EnumDescriptorProto
    if isinstance(one.proto, EnumDescriptorProto) or isinstance(other.proto, EnumDescriptorProto):
        proto = _union_enum(one.proto, other.proto)
    else:
        proto = _union_message(one.proto, one.dialect, other.proto, other.dialect)
    dangling = tuple(dict.fromkeys((*one.dangling, *other.dangling)))
    return replace(one, proto=proto, uses=one.uses | other.uses, dangling=dangling)


def _union_enum(one: Any, other: Any) -> EnumDescriptorProto:
    made = EnumDescriptorProto()
    made.CopyFrom(one)
    known = {value.name for value in one.value}
    for value in other.value:
        if value.name not in known:
            made.value.add(name=value.name, number=value.number)
    if len({value.number for value in made.value}) < len(made.value):
        made.options.allow_alias = True
    return made


def _union_message(
    one: DescriptorProto, one_dialect: Dialect, other: DescriptorProto, other_dialect: Dialect
) -> DescriptorProto:
    made = DescriptorProto()
    made.CopyFrom(one)
    theirs = {item.number: _FieldIdentity(item, other, other_dialect) for item in other.field}
    mine = {item.number: _FieldIdentity(item, one, one_dialect) for item in one.field}
    for kind in ("field", "oneof_decl", "extension_range", "reserved_range", "reserved_name", "extension"):
        made.ClearField(kind)
    oneofs: dict[str, int] = {}
    for found in (*mine.values(), *theirs.values()):
        if found.oneof:
            oneofs.setdefault(found.oneof, len(oneofs))
    for name in oneofs:
        made.oneof_decl.add(name=name)
    for number in sorted(mine.keys() | theirs.keys()):
        _add_field(made, mine.get(number), theirs.get(number), one_dialect, oneofs)
    for start, end in sorted({(found.start, found.end) for found in (*one.extension_range, *other.extension_range)}):
        made.extension_range.add(start=start, end=end)
    inner = {item.name: item for item in made.nested_type}
    for message in other.nested_type:
        if message.name in inner:
            merged = _union_message(inner[message.name], one_dialect, message, other_dialect)
            inner[message.name].CopyFrom(merged)
        else:
            alone = DescriptorProto(name=message.name, options=message.options)
            made.nested_type.add().CopyFrom(_union_message(alone, one_dialect, message, other_dialect))
    enums = {item.name: item for item in made.enum_type}
    for enum in other.enum_type:
        if enum.name in enums:
            enums[enum.name].CopyFrom(_union_enum(enums[enum.name], enum))
        else:
            made.enum_type.add().CopyFrom(enum)
    return made


def _add_field(
    made: DescriptorProto,
    mine: _FieldIdentity | None,
    theirs: _FieldIdentity | None,
    dialect: Dialect,
    oneofs: Mapping[str, int],
) -> None:
    """Add a field that either side has, in the dialect of the first."""
    sides = [side for side in (mine, theirs) if side is not None]
    given = sides[0]
    added = made.field.add()
    added.CopyFrom(given.proto)
    added.ClearField("oneof_index")
    added.ClearField("proto3_optional")
    if given.oneof:
        added.oneof_index = oneofs[given.oneof]
    if any(side.proto.options.debug_redact for side in sides):
        added.options.debug_redact = True
    if len({side.proto.type for side in sides}) > 1 and not added.type_name:
        added.type = WIDER.get(added.type, added.type)
    explicit = any(side.is_explicit for side in sides)
    if given.dialect != dialect:
        _translate(added, given, dialect)
    if dialect.syntax == "proto3" and explicit:
        added.proto3_optional = True
        added.oneof_index = len(made.oneof_decl)
        made.oneof_decl.add(name=f"_{added.name}")
    elif dialect.syntax == "editions" and explicit and not given.is_required:
        added.options.features.field_presence = FeatureSet.EXPLICIT


def _translate(added: FieldDescriptorProto, given: _FieldIdentity, dialect: Dialect) -> None:
    """Write a field of another dialect so that it has the same meaning in this one."""
    added.options.ClearField("features")
    if dialect.syntax == "proto3":
        added.ClearField("default_value")
    if dialect.syntax == "editions":
        added.options.ClearField("packed")
        if not given.is_repeated and not given.is_explicit and not added.type_name and not given.oneof:
            added.options.features.field_presence = FeatureSet.IMPLICIT
