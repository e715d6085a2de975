"""The well-known types of our own runtime; those in a participant's descriptor set are ignored.

Called when contracts are read and merged.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module

from google.protobuf.descriptor_pb2 import FileDescriptorProto

MESSAGE, ENUM, SERVICE = "message", "enum", "service"
"""The kinds of names that a file defines."""
_MODULES = (
    "any",
    "api",
    "descriptor",
    "duration",
    "empty",
    "field_mask",
    "source_context",
    "struct",
    "timestamp",
    "type",
    "wrappers",
)

ALWAYS = tuple(
    f"google/protobuf/{name}.proto" for name in ("any", "duration", "empty", "struct", "timestamp", "wrappers")
)
"""The files that CEL itself has literals for: they are in every pool."""


@cache
def well_known_file(name: str) -> FileDescriptorProto | None:
    """Return our runtime's file of that name, e.g. `google/protobuf/any.proto`; None for any other name."""
    stem = name.removeprefix("google/protobuf/").removesuffix(".proto")
    if stem not in _MODULES or name != f"google/protobuf/{stem}.proto":
        return None
    module = import_module(f"google.protobuf.{stem}_pb2")
    return FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb)


@cache
def well_known_names() -> Mapping[str, tuple[str, str]]:
    """Return the full names of all well-known messages and enums, each with its kind and file."""
    found: dict[str, tuple[str, str]] = {}
    for stem in _MODULES:
        file = well_known_file(f"google/protobuf/{stem}.proto")
        assert file is not None
        found.update((name, (what, file.name)) for name, what in symbols_of(file))
    return found


def symbols_of(file: FileDescriptorProto) -> Iterator[tuple[str, str]]:
    """Yield the full name and the kind of everything that a file defines, including nested definitions."""
    outer = f"{file.package}." if file.package else ""
    yield from ((outer + item.name, ENUM) for item in file.enum_type)
    yield from ((outer + item.name, SERVICE) for item in file.service)
    waiting = [(outer, message) for message in file.message_type]
    while waiting:
        prefix, message = waiting.pop()
        full = prefix + message.name
        yield full, MESSAGE
        yield from ((f"{full}.{item.name}", ENUM) for item in message.enum_type)
        waiting.extend((f"{full}.", item) for item in message.nested_type)
