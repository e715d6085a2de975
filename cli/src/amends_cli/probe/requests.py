"""Requests for the probe: from a file with `${unique}` in it, or generated from the method's descriptor.

Each question needs an operation of its own, so every request is made anew for a unique text.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message_factory import GetMessageClass

from amends_cli.failure import usage

UNIQUE = "${unique}"
MAXIMUM_DEPTH = 6
MOST = 1_000_000_000
"""Numbers stay below this, so that they fit into 32 bits."""

Make = Callable[[str], bytes]
"""Makes a request, serialised, of a unique text."""


def from_file(path: Path, of: Descriptor) -> Make:
    """Make requests from canonical protobuf JSON. Raises CliError, also for one without `${unique}`."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise usage(f"{path} cannot be read: {error.strerror}") from None

    def make(unique: str) -> bytes:
        message = GetMessageClass(of)()
        try:
            json_format.ParseDict(json.loads(text.replace(UNIQUE, unique)), message)
        except json.JSONDecodeError as error:
            raise usage(f"{path}:{error.lineno}:{error.colno}: not JSON: {error.msg}") from None
        except json_format.ParseError as error:
            raise usage(f"{path} is no {of.full_name}: {error}") from None
        return type(message).SerializeToString(message, deterministic=True)

    make("probe")
    return make


def is_unique(path: Path) -> bool:
    """Return whether the file says where the unique text goes."""
    return UNIQUE in path.read_text(encoding="utf-8")


def generated(of: Descriptor) -> Make:
    """Make requests in which every text is the unique one, every number 1, every list has one element.

    Where no text tells two operations apart, whole numbers are made of the unique text too.
    """

    def make(unique: str, *, number: int = 1) -> bytes:
        message = GetMessageClass(of)()
        _fill(message, of, Values(unique, number), 0)
        return type(message).SerializeToString(message, deterministic=True)

    if differ(make):
        return make
    return lambda unique: make(unique, number=1 + crc32(unique.encode()) % MOST)


def differ(make: Make) -> bool:
    """Return whether the requests of two operations differ."""
    return make("one") != make("another")


class Values(NamedTuple):
    """The values with which a generated request is filled."""

    text: str
    number: int


def _fill(message: Any, of: Descriptor, values: Values, depth: int) -> None:
    taken: set[str] = set()
    for field in of.fields:
        group = field.containing_oneof
        if group is not None and group.name in taken:
            continue
        if group is not None:
            taken.add(group.name)
        if field.message_type is not None and depth >= MAXIMUM_DEPTH:
            continue
        _set(message, field, values, depth)


def _set(message: Any, field: FieldDescriptor, values: Values, depth: int) -> None:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return
    if field.message_type is not None:
        child = getattr(message, field.name).add() if field.is_repeated else getattr(message, field.name)
        type(child).SetInParent(child) if not field.is_repeated else None
        _fill(child, field.message_type, values, depth + 1)
        return
    value = _scalar(field, values)
    if field.is_repeated:
        getattr(message, field.name).append(value)
    else:
        setattr(message, field.name, value)


def _scalar(field: FieldDescriptor, values: Values) -> Any:
    if field.enum_type is not None:
        return field.enum_type.values[min(1, len(field.enum_type.values) - 1)].number
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            return values.text.encode() if field.type == FieldDescriptor.TYPE_BYTES else values.text
        case FieldDescriptor.CPPTYPE_BOOL:
            return True
        case FieldDescriptor.CPPTYPE_FLOAT | FieldDescriptor.CPPTYPE_DOUBLE:
            return 1
        case _:
            return values.number
