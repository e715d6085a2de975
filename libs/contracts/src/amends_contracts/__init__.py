"""Gives access to the descriptors of every contract in protos/, for whoever works without stubs.

Called by the chassis (which methods are guarded), the CLI and tests. The stubs themselves are the
packages `amends` and `shop`, generated beside this one.
"""

from importlib.resources import files

from google.protobuf.descriptor_pb2 import FileDescriptorSet


def descriptor_set() -> FileDescriptorSet:
    """Return a FileDescriptorSet of all files in protos/ and everything they import, with comments."""
    data = (files("amends") / "descriptors.binpb").read_bytes()
    return FileDescriptorSet.FromString(data)
