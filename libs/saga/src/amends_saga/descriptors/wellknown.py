"""The well-known types as our own runtime has them, whatever a participant's descriptor set brings along.

Called when contracts are merged.
"""

from functools import cache
from importlib import import_module

from google.protobuf.descriptor_pb2 import FileDescriptorProto

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
    """Return our runtime's file of that name, e.g. `google/protobuf/any.proto`; None when it is not one of them."""
    stem = name.removeprefix("google/protobuf/").removesuffix(".proto")
    if stem not in _MODULES or name != f"google/protobuf/{stem}.proto":
        return None
    module = import_module(f"google.protobuf.{stem}_pb2")
    return FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb)
