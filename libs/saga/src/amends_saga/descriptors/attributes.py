"""Renames fields whose names are attributes of every message in Python, such as `Clear` or `DESCRIPTOR`.

protobuf's own JSON code expects the attribute, gets the field, and fails. For JSON such fields get another name; their
numbers and JSON names stay, so that bytes and JSON are the same. Called by `compiled`.
"""

from collections.abc import Iterable

from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto
from google.protobuf.empty_pb2 import Empty

_ATTRIBUTES = frozenset(dir(Empty()))


def renamed(files: Iterable[FileDescriptorProto]) -> list[FileDescriptorProto] | None:
    """Return the files with such fields renamed; None when there are none."""
    files = list(files)
    if not any(_clashes(message) for file in files for message in file.message_type):
        return None
    copies = [FileDescriptorProto.FromString(file.SerializeToString()) for file in files]
    for file in copies:
        for message in file.message_type:
            _rename(message)
    return copies


def _clashes(message: DescriptorProto) -> bool:
    return any(field.name in _ATTRIBUTES for field in message.field) or any(map(_clashes, message.nested_type))


def _rename(message: DescriptorProto) -> None:
    taken = {field.name for field in message.field}
    for field in message.field:
        if field.name in _ATTRIBUTES:
            field.json_name = field.json_name or field.name
            while field.name in taken:
                field.name += "_"
            taken.add(field.name)
    for nested in message.nested_type:
        _rename(nested)
