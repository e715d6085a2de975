"""What the contracts say of the events of a choreography: their topic, their key, and how to read them.

Called by the checker, and by the monitor, which reads keys out of events whose types it knows only from here.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from amends_contracts.wellknown import well_known_file
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from amends.options.v1 import events_pb2
from amends_saga.descriptors.files import build_pool, with_well_known


@dataclass(frozen=True, slots=True)
class EventContract:
    """One message of the contracts."""

    name: str
    """Its full name."""
    topic: str
    """The package of its file; empty when the file declares no topic."""
    partitions: int
    key: str
    """The field that is its key; empty when it declares none."""
    fields: Mapping[str, FieldDescriptorProto]

    @property
    def is_event(self) -> bool:
        """Return whether the message is an event of a topic."""
        return bool(self.topic and self.key)


EventContracts = Mapping[str, EventContract]
"""The messages of all files, outermost ones only: nothing else can be an event."""


def read_contracts(files: FileDescriptorSet) -> EventContracts:
    """Return what the files say of each of their messages."""
    return {one.name: one for file in files.file for one in _of_file(file)}


def _of_file(file: FileDescriptorProto) -> Iterable[EventContract]:
    partitions = file.options.Extensions[events_pb2.topic].partitions
    for message in file.message_type:
        yield EventContract(
            f"{file.package}.{message.name}".lstrip("."),
            file.package if partitions else "",
            partitions,
            message.options.Extensions[events_pb2.event].key,
            {one.name: one for one in message.field},
        )


def enum_values(files: FileDescriptorSet, name: str) -> list[str]:
    """Return the names of an enum's values; `name` is its full name. Empty when there is no such enum."""
    for file in files.file:
        prefix = f"{file.package}." if file.package else ""
        for enum in file.enum_type:
            if f"{prefix}{enum.name}" == name:
                return [value.name for value in enum.value]
        for message in file.message_type:
            found = _nested(message, f"{prefix}{message.name}", name)
            if found:
                return found
    return []


def _nested(message: DescriptorProto, prefix: str, name: str) -> list[str]:
    for enum in message.enum_type:
        if f"{prefix}.{enum.name}" == name:
            return [value.name for value in enum.value]
    return next((found for one in message.nested_type if (found := _nested(one, f"{prefix}.{one.name}", name))), [])


def needed_files(files: FileDescriptorSet, events: Iterable[str]) -> FileDescriptorSet:
    """Return the files that define these events, and what they import, without comments.

    Those that everybody has, google.protobuf's own, are left out.
    """
    by_name = {file.name: file for file in files.file}
    homes = {one.name: file.name for file in files.file for one in _of_file(file)}
    wanted: dict[str, None] = {}
    waiting = sorted({homes[event] for event in events if event in homes})
    while waiting:
        name = waiting.pop()
        if name in by_name and name not in wanted and well_known_file(name) is None:
            wanted[name] = None
            waiting += by_name[name].dependency
    needed = FileDescriptorSet()
    for name in sorted(wanted):
        needed.file.add().CopyFrom(by_name[name])
        needed.file[-1].ClearField("source_code_info")
    return needed


def message_types(files: FileDescriptorSet, names: Iterable[str]) -> dict[str, type[Message]]:
    """Return classes for messages, apart from those of the same name that this process has. Raises DescriptorError."""
    pool = build_pool(with_well_known(files.file, ()).values())
    return {name: GetMessageClass(pool.FindMessageTypeByName(name)) for name in names}
