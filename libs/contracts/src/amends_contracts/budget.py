"""Limits the content of a contract, counted on its bytes before any library reads them.

A few bytes of a FileDescriptorSet can cost a library much: an empty message takes two bytes and a hundred in memory,
and the time of CEL's pool grows with the square of a message's reserved ranges. So this module walks over the bytes
once, without building anything, and stops as soon as a limit is passed. Called by `parse_set` and by server reflection.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache

from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet

MAX_BYTES = 8 * 1024 * 1024
MAX_ENTRIES = 500_000
"""Values of all kinds that a contract may have, those in options and comments too."""
MAX_OUTERMOST = 30_000
"""Values that stand directly in one file."""
MAX_NAME = 255
"""Bytes of one name: a long one is written out again for everything that is in it."""
MAX_DEPTH = 8
"""Messages in messages in messages."""
TOTALS: Mapping[str, tuple[int, str]] = {
    "google.protobuf.FileDescriptorProto": (2_000, "files"),
    "google.protobuf.DescriptorProto": (20_000, "messages"),
    "google.protobuf.FieldDescriptorProto": (60_000, "fields"),
    "google.protobuf.EnumDescriptorProto": (10_000, "enums"),
    "google.protobuf.EnumValueDescriptorProto": (60_000, "enum values"),
    "google.protobuf.ServiceDescriptorProto": (2_000, "services"),
    "google.protobuf.MethodDescriptorProto": (10_000, "methods"),
    "google.protobuf.OneofDescriptorProto": (20_000, "oneofs"),
    "google.protobuf.UninterpretedOption": (1_000, "options that nobody has interpreted"),
    "google.protobuf.FileDescriptorProto.dependency": (20_000, "imports"),
}
"""How many of each a contract may have, over all of its files."""
EACH: Mapping[str, tuple[int, str]] = {
    "google.protobuf.DescriptorProto.reserved_range": (1_000, "reserved ranges"),
    "google.protobuf.DescriptorProto.extension_range": (1_000, "extension ranges"),
    "google.protobuf.DescriptorProto.reserved_name": (1_000, "reserved names"),
    "google.protobuf.ServiceDescriptorProto.method": (1_000, "methods"),
    "google.protobuf.EnumDescriptorProto.reserved_range": (1_000, "reserved ranges"),
    "google.protobuf.EnumDescriptorProto.reserved_name": (1_000, "reserved names"),
}
"""How many of each one message, enum or service may have: libraries compare every range with every other."""
_NAMES = frozenset(
    f"google.protobuf.{name}"
    for name in (
        *("FileDescriptorProto.name", "FileDescriptorProto.package", "FileDescriptorProto.dependency"),
        *("DescriptorProto.name", "DescriptorProto.reserved_name", "FieldDescriptorProto.name"),
        *("FieldDescriptorProto.json_name", "OneofDescriptorProto.name", "EnumDescriptorProto.name"),
        *("EnumDescriptorProto.reserved_name", "EnumValueDescriptorProto.name", "ServiceDescriptorProto.name"),
        "MethodDescriptorProto.name",
    )
)
_LEAVES = frozenset(
    f"google.protobuf.{name}"
    for name in (
        "SourceCodeInfo.Location",
        "DescriptorProto.ReservedRange",
        "EnumDescriptorProto.EnumReservedRange",
    )
)
"""Messages that are counted and not looked into: there is nothing in them that could be many."""
_Part = tuple[int, int, Descriptor, int]
"""Where a message begins and ends, what it is, and how deep it is nested in messages of its own kind."""
_VARINT, _FIXED64, _BYTES, _GROUP, _END, _FIXED32 = range(6)


class DescriptorError(Exception):
    """Descriptors that cannot be used. The text is a sentence for people."""


class BudgetError(DescriptorError):
    """A contract that is too large; the text says what there is too much of, and the limit."""


@dataclass(slots=True)
class ContractBudget:
    """The counts of one contract, over all of its files."""

    entries: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def take_set(self, data: bytes) -> None:
        """Count a FileDescriptorSet. Raises BudgetError for the first limit that it passes."""
        within_bytes(len(data))
        waiting = [(0, len(data), FileDescriptorSet.DESCRIPTOR, 0)]
        while waiting:
            start, end, kind, depth = waiting.pop()
            waiting.extend(self._message(data, start, end, kind, depth))

    def _message(self, data: bytes, start: int, end: int, kind: Descriptor, depth: int) -> list[_Part]:
        """Count the content of one message; return its inner messages, which are not counted yet."""
        inner: list[_Part] = []
        own: Counter[str] = Counter()
        known = _fields(kind)
        allowed = MAX_ENTRIES - self.entries
        seen = 0
        for number, value, stop in _values(data, start, end):
            seen += 1
            if seen > allowed:
                raise BudgetError(f"The contract has more than {MAX_ENTRIES:,} values.")
            found = known.get(number)
            if found is None:
                continue
            if found.each is not None:
                own[found.name] += 1
                _within(own[found.name], found.each, "One message, enum or service")
            if found.is_name and stop - value > MAX_NAME:
                raise BudgetError(f"The contract has a name of {stop - value:,} bytes, more than {MAX_NAME}.")
            for counted in found.counted:
                self._count(counted)
            if found.message is not None:
                nested = depth + 1 if found.message is kind else depth
                if nested > MAX_DEPTH:
                    raise BudgetError(f"The contract has messages that are nested deeper than {MAX_DEPTH}.")
                inner.append((value, stop, found.message, nested))
        self.entries += seen
        return inner

    def _count(self, name: str) -> None:
        self.counts[name] += 1
        _within(self.counts[name], TOTALS[name], "The contract")


def within_bytes(size: int) -> None:
    """Raise BudgetError when a contract of so many bytes is too large."""
    if size > MAX_BYTES:
        raise BudgetError(f"The contract has {size:,} bytes, more than {MAX_BYTES:,}.")


@dataclass(frozen=True, slots=True)
class _FieldCount:
    """The way in which a field is counted."""

    name: str
    message: Descriptor | None
    """The message in it that is looked into; None for other values, and for places in a source."""
    counted: tuple[str, ...]
    """What it counts as, over the whole contract."""
    each: tuple[int, str] | None
    """How often one message may have it."""
    is_name: bool


def _within(count: int, limit: tuple[int, str], who: str) -> None:
    if count > limit[0]:
        raise BudgetError(f"{who} has more than {limit[0]:,} {limit[1]}.")


@cache
def _fields(kind: Descriptor) -> dict[int, _FieldCount]:
    """Return how a message's fields are counted, by their numbers."""
    found = {}
    for item in kind.fields:
        names = (item.full_name, item.message_type.full_name if item.message_type is not None else "")
        counted = tuple(name for name in names if name in TOTALS)
        message = item.message_type if item.message_type is not None and names[1] not in _LEAVES else None
        found[item.number] = _FieldCount(names[0], message, counted, EACH.get(names[0]), names[0] in _NAMES)
    return found


def _values(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield field number, start and end of each value of a message.

    For numbers the end is the start. The walk ends at bytes that are not a message: parsing them later reports the
    error.
    """
    while at < end:
        tag = data[at]
        if tag < 128:
            at += 1
        else:
            tag, at = _varint(data, at, end)
        wire = tag & 7
        if wire == _BYTES:
            size, at = _varint(data, at, end)
            if at + size > end:
                return
            yield tag >> 3, at, at + size
            at += size
        elif wire == _VARINT:
            _, at = _varint(data, at, end)
            yield tag >> 3, at, at
        elif wire in (_FIXED64, _FIXED32):
            at += 8 if wire == _FIXED64 else 4
            yield tag >> 3, at, at
        elif wire in (_GROUP, _END):
            yield 0, at, at  # what is in a group is counted as if it stood here
        else:
            return


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Return a number and where it ends; the position after the message when there is none."""
    if at < end and data[at] < 128:
        return data[at], at + 1
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    return 0, end + 1


def imports_of(data: bytes) -> tuple[str, list[str]]:
    """Return the name of a serialised FileDescriptorProto and its imports; the name is empty when it has none.

    Only the outermost values are read, so that this is quick for any bytes. Raises BudgetError.
    """
    name, imports = "", list[str]()
    for count, (number, start, end) in enumerate(_values(data, 0, len(data))):
        if count >= MAX_OUTERMOST:
            raise BudgetError(f"A file of the contract has more than {MAX_OUTERMOST:,} messages, services and imports.")
        if number == 1:
            name = data[start:end].decode(errors="replace")
        elif number == 3:
            imports.append(data[start:end].decode(errors="replace"))
    return name, imports


def join_files(files: Iterable[bytes]) -> bytes:
    """Return the FileDescriptorSet of serialised files."""
    return b"".join(b"\n" + _length(len(data)) + data for data in files)


def _length(size: int) -> bytes:
    written = bytearray()
    while size > 127:
        written.append(size & 127 | 128)
        size >>= 7
    written.append(size)
    return bytes(written)
