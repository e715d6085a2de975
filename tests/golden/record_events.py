"""Records golden events: `python tests/golden/record_events.py v0.2` before a release.

For each release there are its contracts of events, and of every type of event one as a service of the release would
publish it, through its outbox and in its envelope. What was recorded once is never written again: the logs that it
stands for are older than the code that reads them.
"""

import base64
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from amends_contracts import descriptor_set
from amends_events import CloudEvent, Outbox, event_type
from amends_events.envelope import attributes
from event_rules.compare import EventContracts
from event_rules.releases import CONTRACTS, GOLDEN
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message

EVENTS = "events.json"
DIGESTS = "SHA256SUMS"
MOMENT = datetime(2026, 1, 31, 10, tzinfo=UTC)
VALUES: dict[str, Any] = {
    "account_id": "01a22d41-603d-7db1-bceb-d43a90b463ba",
    "country": "AT",
    "currency": "EUR",
    "customer_id": "ada",
    "email_address": "ada@example.org",
    "locale": "de",
    "sku": "tea-assam",
}
"""What fields of these names hold; others hold their own name, or a number."""
NUMBER = 3


def contracts() -> FileDescriptorSet:
    """Return the files that declare topics, with all that they import, each after what it needs."""
    every = {file.name: file for file in descriptor_set().file}
    found = FileDescriptorSet()

    def add(name: str) -> None:
        if name not in {file.name for file in found.file}:
            for needed in every[name].dependency:
                add(needed)
            file = found.file.add()
            file.CopyFrom(every[name])
            if file.package not in known.partitions:
                file.ClearField("source_code_info")

    known = EventContracts.of(descriptor_set())
    for name, file in every.items():
        if file.package in known.partitions:
            add(name)
    return found


def sample(descriptor: Descriptor, number: int) -> Message:
    """Make a message in which every field is set; of a oneof the first, of an enum the last value."""
    message = message_factory.GetMessageClass(descriptor)()
    taken = set()
    for field in descriptor.fields:
        oneof = field.containing_oneof
        if oneof is not None and oneof.name in taken:
            continue
        if oneof is not None:
            taken.add(oneof.name)
        if field.message_type is not None:
            target = getattr(message, field.name)
            inner = sample(field.message_type, number)
            target.add().CopyFrom(inner) if field.is_repeated else target.CopyFrom(inner)
        elif field.is_repeated:
            getattr(message, field.name).append(_value(field, number))
        else:
            setattr(message, field.name, _value(field, number))
    return message


def _value(field: FieldDescriptor, number: int) -> Any:
    if field.enum_type is not None:
        return field.enum_type.values[-1].number
    if field.type == FieldDescriptor.TYPE_STRING:
        return VALUES.get(field.name, f"{field.name.replace('_', '-')}-{number}")
    if field.type == FieldDescriptor.TYPE_BYTES:
        return field.name.encode()
    return True if field.type == FieldDescriptor.TYPE_BOOL else NUMBER


def events(files: FileDescriptorSet) -> Iterator[dict[str, Any]]:
    """Yield an event of each type: topic, attributes and payload."""
    pool = DescriptorPool()
    for file in files.file:
        pool.Add(file)
    for number, name in enumerate(EventContracts.of(files).events(), 1):
        message = sample(pool.FindMessageTypeByName(name), number)
        known = event_type(type(message))
        row = Outbox("/golden", [type(message)]).row(message)
        event = CloudEvent(
            event_id=uuid5(NAMESPACE_URL, name),
            source="/golden",
            type=name,
            topic=known.topic.name,
            key=known.key_of(message),
            version=NUMBER,
            occurred_at=MOMENT,
            headers={},
            payload=row.values[-1],
        )
        payload = base64.b64encode(event.payload).decode()
        yield {"topic": event.topic, "attributes": attributes(event, known.dataschema), "payload": payload}


def main(version: str) -> None:
    """Record a release that is not recorded yet."""
    folder = GOLDEN / version
    folder.mkdir(parents=True)
    files = contracts()
    (folder / CONTRACTS).write_bytes(files.SerializeToString(deterministic=True))
    recorded = list(events(files))
    (folder / EVENTS).write_text(json.dumps(recorded, indent=1) + "\n", encoding="utf-8")
    lines = [f"{sha256(f.read_bytes()).hexdigest()}  {f.relative_to(GOLDEN)}\n" for f in sorted(GOLDEN.glob("*/*"))]
    (GOLDEN / DIGESTS).write_text("".join(lines), encoding="utf-8")
    print(f"recorded {len(recorded)} events of {version}")


if __name__ == "__main__":
    main(sys.argv[1])
