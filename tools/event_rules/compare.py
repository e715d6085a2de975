"""Compares the events of two sets of contracts: what was written with the old one must be read with the new one.

Pure. Events are found by their options; fields are followed into the messages and enums that they use.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorSet,
)

from amends.options.v1 import events_pb2

_REQUIRED = re.compile(r"\b(required|mandatory|must (be|have|not be))\b", re.IGNORECASE)


class EventRule(StrEnum):
    """What a contract may not do to events that are in a log."""

    EVENT_GONE = "EVENT_GONE"
    """A type of event is not declared any more."""
    KEY_CHANGED = "KEY_CHANGED"
    """An event has another key, or its topic another number of partitions: its order is lost."""
    FIELD_FORGOTTEN = "FIELD_FORGOTTEN"
    """A field is gone, and its number and name are not reserved."""
    FIELD_REUSED = "FIELD_REUSED"
    """A number or a name means something else than it did."""
    FIELD_REQUIRED = "FIELD_REQUIRED"
    """An old field has to be there now, which old events do not know."""
    GREW_UNSAID = "GREW_UNSAID"
    """An enum or a oneof has grown, and nothing says what those take it for who do not know the new part."""


@dataclass(frozen=True, slots=True)
class BrokenRule:
    """One place where a contract breaks a rule."""

    rule: EventRule
    where: str
    """The full name of the event, message, field, enum or oneof."""
    text: str


@dataclass(frozen=True, slots=True)
class EventContracts:
    """A set of contracts, by full names."""

    messages: dict[str, DescriptorProto]
    enums: dict[str, EnumDescriptorProto]
    partitions: dict[str, int]
    """Of each topic."""
    comments: dict[str, str]
    """What stands before each field of the files whose comments the set has."""

    @classmethod
    def of(cls, files: FileDescriptorSet) -> "EventContracts":
        """Read a set. It is parsed again: whoever parsed it may not have known the options."""
        found = cls({}, {}, {}, {})
        for file in FileDescriptorSet.FromString(files.SerializeToString()).file:
            if partitions := file.options.Extensions[events_pb2.topic].partitions:
                found.partitions[file.package] = partitions
            said = {tuple(one.path): one.leading_comments for one in file.source_code_info.location}
            for number, message in enumerate(file.message_type):
                found._add(file.package, message, (4, number), said)
            found.enums.update({f"{file.package}.{one.name}": one for one in file.enum_type})
        return found

    def _add(
        self, scope: str, message: DescriptorProto, path: tuple[int, ...], said: dict[tuple[int, ...], str]
    ) -> None:
        name = f"{scope}.{message.name}"
        self.messages[name] = message
        self.enums.update({f"{name}.{one.name}": one for one in message.enum_type})
        for number, field in enumerate(message.field if said else ()):
            self.comments[f"{name}.{field.name}"] = said.get((*path, 2, number), "")
        for number, inner in enumerate(message.nested_type):
            self._add(name, inner, (*path, 3, number), said)

    def events(self) -> dict[str, str]:
        """Return the field that is the key of each event."""
        keys = {name: one.options.Extensions[events_pb2.event].key for name, one in self.messages.items()}
        return {name: key for name, key in keys.items() if key and name.rpartition(".")[0] in self.partitions}


def compare(old: EventContracts, new: EventContracts) -> list[BrokenRule]:
    """Return where `new` breaks a rule for events that were written with `old`, each place once."""
    return list(dict.fromkeys(_Comparison(old, new).run()))


class _Comparison:
    def __init__(self, old: EventContracts, new: EventContracts) -> None:
        self._old = old
        self._new = new
        self._seen: set[tuple[str, str]] = set()

    def run(self) -> Iterator[BrokenRule]:
        known = self._new.events()
        for name, key in self._old.events().items():
            topic = name.rpartition(".")[0]
            if name not in known:
                yield BrokenRule(EventRule.EVENT_GONE, name, "is no event any more, and may be in a log")
                continue
            if known[name] != key:
                yield BrokenRule(EventRule.KEY_CHANGED, name, f"has the key {known[name]}, and had {key}")
            if self._old.partitions[topic] != self._new.partitions[topic]:
                was, now = self._old.partitions[topic], self._new.partitions[topic]
                yield BrokenRule(EventRule.KEY_CHANGED, topic, f"has {now} partitions, and had {was}")
            yield from self._message(name, name)

    def _message(self, was: str, now: str) -> Iterator[BrokenRule]:
        if (was, now) in self._seen or was not in self._old.messages or now not in self._new.messages:
            return
        self._seen.add((was, now))
        old, new = self._old.messages[was], self._new.messages[now]
        numbers = {field.number: field for field in new.field}
        names = {field.name: field for field in new.field}
        for field in old.field:
            if field.number in numbers:
                yield from self._field(was, now, field, numbers[field.number])
            elif field.name in names:
                number = names[field.name].number
                yield _reused(f"{now}.{field.name}", f"has the number {number}, and had {field.number}")
            elif not (_reserves(new, field.number) and field.name in new.reserved_name):
                yield BrokenRule(
                    EventRule.FIELD_FORGOTTEN,
                    f"{now}.{field.name}",
                    f"is gone: reserve its number {field.number} and its name, or leave it and let it be deprecated",
                )
        for field in new.field:
            if _reserves(old, field.number) or field.name in old.reserved_name:
                yield _reused(f"{now}.{field.name}", f"uses the number {field.number} or the name, which were reserved")
        yield from self._oneofs(now, old, new)

    def _field(self, was: str, now: str, old: FieldDescriptorProto, new: FieldDescriptorProto) -> Iterator[BrokenRule]:
        where = f"{now}.{new.name}"
        if old.name != new.name:
            yield _reused(where, f"has the number {old.number}, which {old.name} had")
            return
        before, after = _shape(self._old.messages[was], old), _shape(self._new.messages[now], new)
        if before != after:
            yield _reused(where, f"is {after}, and was {before}")
            return
        said = self._old.comments.get(f"{was}.{old.name}")
        if said is not None and _asks(self._new.comments.get(where, "")) and not _asks(said):
            yield BrokenRule(EventRule.FIELD_REQUIRED, where, "says that it is required, and did not")
        old_type, new_type = old.type_name.removeprefix("."), new.type_name.removeprefix(".")
        if new.type == FieldDescriptorProto.TYPE_MESSAGE:
            yield from self._message(old_type, new_type)
        elif new.type == FieldDescriptorProto.TYPE_ENUM:
            yield from self._enum(old_type, new_type)

    def _enum(self, was: str, now: str) -> Iterator[BrokenRule]:
        if (was, now) in self._seen or was not in self._old.enums or now not in self._new.enums:
            return
        self._seen.add((was, now))
        old, new = self._old.enums[was], self._new.enums[now]
        before = {one.number: one.name for one in old.value}
        after = {one.number: one.name for one in new.value}
        for number, name in before.items():
            if number in after and after[number] != name:
                yield _reused(f"{now}.{after[number]}", f"has the number {number}, which {name} had")
            elif number not in after and name not in new.reserved_name:
                yield BrokenRule(EventRule.FIELD_FORGOTTEN, f"{now}.{name}", "is gone: reserve its number and its name")
        added = [after[number] for number in after.keys() - before.keys()]
        if added and not new.options.Extensions[events_pb2.unknown_value]:
            yield _unsaid(now, added, "(amends.options.v1.unknown_value)")

    def _oneofs(self, now: str, old: DescriptorProto, new: DescriptorProto) -> Iterator[BrokenRule]:
        before, known = _choices(old), {field.name for field in old.field}
        for name, fields in _choices(new).items():
            added = sorted(fields - known) if name in before else []
            options = next(one for one in new.oneof_decl if one.name == name).options
            if added and not options.Extensions[events_pb2.unknown_choice]:
                yield _unsaid(f"{now}.{name}", added, "(amends.options.v1.unknown_choice)")


def _reused(where: str, text: str) -> BrokenRule:
    return BrokenRule(EventRule.FIELD_REUSED, where, text)


def _unsaid(where: str, added: list[str], option: str) -> BrokenRule:
    return BrokenRule(
        EventRule.GREW_UNSAID,
        where,
        f"has grown by {', '.join(sorted(added))}: say with {option} what older readers do",
    )


def _asks(comment: str) -> bool:
    return _REQUIRED.search(comment) is not None


def _reserves(message: DescriptorProto, number: int) -> bool:
    return any(one.start <= number < one.end for one in message.reserved_range)


def _shape(message: DescriptorProto, field: FieldDescriptorProto) -> str:
    """Return what a field is on the wire and in code, in words; messages and enums are compared by what is in them."""
    words = []
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        words.append("repeated")
    elif field.label == FieldDescriptorProto.LABEL_REQUIRED:
        words.append("required")
    elif field.proto3_optional:
        words.append("optional")
    elif field.HasField("oneof_index"):
        words.append(f"in the oneof {message.oneof_decl[field.oneof_index].name}:")
    words.append(FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower())
    return " ".join(words)


def _choices(message: DescriptorProto) -> dict[str, set[str]]:
    """Return the fields of each oneof, without those that `optional` makes."""
    found: dict[str, set[str]] = {}
    for field in message.field:
        if field.HasField("oneof_index") and not field.proto3_optional:
            found.setdefault(message.oneof_decl[field.oneof_index].name, set()).add(field.name)
    return found
