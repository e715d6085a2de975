"""The topics and event types of the contracts: which message goes where, under which key.

A topic is a package of events (`shop.payments.events.v1`). Its partitions and the key of each event are options in the
contracts, so publishers and consumers cannot disagree. Used by the outbox and the consumer.
"""

import hashlib
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import cast

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import Message

from amends.options.v1 import events_pb2

MAX_PARTITIONS = 64


class ContractError(ValueError):
    """A message is no event, or its contract contradicts itself."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A log of events in the broker."""

    name: str
    """The package of its events, e.g. shop.payments.events.v1."""
    partitions: int

    def partition_of(self, key: str) -> int:
        """Return the partition of a key, from 0; the same for every broker."""
        return zlib.crc32(key.encode()) % self.partitions


@dataclass(frozen=True)
class EventType:
    """A message of the contracts that is an event."""

    message: type[Message]
    topic: Topic
    key_field: str

    @property
    def name(self) -> str:
        """Return the full name of the message: the type of its CloudEvents."""
        return str(self.message.DESCRIPTOR.full_name)

    def key_of(self, event: Message) -> str:
        """Return the key of an event of this type."""
        return str(getattr(event, self.key_field))

    @cached_property
    def dataschema(self) -> str:
        """Name the contract that the event was written with: the SHA-256 of its file's descriptor, as a URI."""
        proto = FileDescriptorProto()
        self.message.DESCRIPTOR.file.CopyToProto(proto)
        return f"urn:sha256:{hashlib.sha256(proto.SerializeToString(deterministic=True)).hexdigest()}"


def event_type(message: type[Message]) -> EventType:
    """Read the contract of one event. Raises ContractError."""
    descriptor = message.DESCRIPTOR
    topic = topic_of(cast("FileDescriptor", descriptor.file))
    if topic is None:
        raise ContractError(f"{descriptor.full_name} is in no topic: its file has no option (amends.options.v1.topic)")
    key = descriptor.GetOptions().Extensions[events_pb2.event].key
    field = descriptor.fields_by_name.get(key)
    if field is None or field.type != field.TYPE_STRING or field.is_repeated:
        raise ContractError(
            f"{descriptor.full_name} is no event: (amends.options.v1.event).key must name a string of it"
        )
    return EventType(message, topic, key)


def event_types(messages: Iterable[type[Message]]) -> dict[str, EventType]:
    """Read the contracts of several events, by full name. Raises ContractError."""
    types = map(event_type, messages)
    return {one.name: one for one in types}


def topic_of(file: FileDescriptor) -> Topic | None:
    """Read the topic that a file declares; None when it declares none. Raises ContractError."""
    partitions = file.GetOptions().Extensions[events_pb2.topic].partitions
    return _topic(str(file.package), partitions) if partitions else None


def declared_topics(contracts: FileDescriptorSet) -> list[Topic]:
    """Return the topics that a set of contracts declares, by name. Raises ContractError when they contradict."""
    found: dict[str, Topic] = {}
    # Read again, because whoever parsed the set may not have known the options.
    for file in FileDescriptorSet.FromString(contracts.SerializeToString()).file:
        partitions = file.options.Extensions[events_pb2.topic].partitions
        if partitions:
            topic = found.setdefault(file.package, _topic(file.package, partitions))
            if topic.partitions != partitions:
                raise ContractError(
                    f"{file.name} says that {file.package} has {partitions} partitions, another file {topic.partitions}"
                )
    return sorted(found.values(), key=lambda topic: topic.name)


def _topic(name: str, partitions: int) -> Topic:
    if partitions > MAX_PARTITIONS:
        raise ContractError(f"the topic {name} must have 1 to {MAX_PARTITIONS} partitions, not {partitions}")
    return Topic(name, partitions)
