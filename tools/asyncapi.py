"""Writes docs/reference/events.asyncapi.yaml: every topic and event of the contracts, as AsyncAPI 3.

Run by `make asyncapi`; a test compares the file with what this would write. Everything in it is read from protos/, the
descriptions too. https://www.asyncapi.com/docs/reference/specification/v3.0.0
"""

import copy
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from amends_contracts import descriptor_set
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)

from amends.options.v1 import events_pb2

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "events.asyncapi.yaml"
HEAD = "# Made by `make asyncapi` from protos/.\n"
MESSAGE_TYPE, FIELD = 4, 2  # the numbers of these fields in FileDescriptorProto and DescriptorProto
INTEGERS = {"TYPE_INT32", "TYPE_UINT32", "TYPE_SINT32", "TYPE_FIXED32", "TYPE_SFIXED32"}
LONG = {"TYPE_INT64", "TYPE_UINT64", "TYPE_SINT64", "TYPE_FIXED64", "TYPE_SFIXED64"}
SCALARS = {
    **{key: {"type": "integer"} for key in INTEGERS},
    **{key: {"type": "string", "format": "int64"} for key in LONG},  # as protobuf's JSON has them
    "TYPE_STRING": {"type": "string"},
    "TYPE_BOOL": {"type": "boolean"},
    "TYPE_BYTES": {"type": "string", "format": "byte"},
    "TYPE_DOUBLE": {"type": "number"},
    "TYPE_FLOAT": {"type": "number"},
}
HEADERS = {
    "type": "object",
    "description": "CloudEvents 1.0 in binary mode, with the prefix `ce-` in NATS and `ce_` in Kafka.",
    "required": ["specversion", "id", "source", "type", "subject", "time", "dataschema", "sequence"],
    "properties": {
        "specversion": {"const": "1.0"},
        "id": {"type": "string", "format": "uuid", "description": "Names the event; a repetition has the same."},
        "source": {"type": "string", "description": "Who published it."},
        "type": {"type": "string", "description": "The full name of the message."},
        "subject": {"type": "string", "description": "The key: what it happened to."},
        "time": {"type": "string", "format": "date-time", "description": "When it happened."},
        "dataschema": {"type": "string", "description": "The SHA-256 of the contract that it was written with."},
        "partitionkey": {"type": "string", "description": "The key."},
        "sequence": {"type": "string", "description": "The version that the key's row has after it."},
        "traceparent": {"type": "string", "description": "The trace that it belongs to."},
        "correlationid": {"type": "string", "description": "What all events of one matter have in common."},
        "causationid": {"type": "string", "description": "The event that it follows from."},
        "actor": {"type": "string", "description": "Who wanted it."},
    },
}


def document() -> str:
    """Return the whole page."""
    files = list(descriptor_set().file)
    messages = {f".{file.package}.{one.name}": (file, number) for file, number, one in _messages(files)}
    topics = [file for file in files if file.options.Extensions[events_pb2.topic].partitions]
    events = [(file, number, one) for file, number, one in _messages(topics) if _key(one)]
    enums = _enums(files)
    used = _used(messages, (f".{file.package}.{one.name}" for file, _, one in events))
    api = {
        "asyncapi": "3.0.0",
        "info": {"title": "Events of Amends and its shop", "version": "0.1.0", "license": {"name": "Apache-2.0"}},
        "defaultContentType": "application/protobuf",
        "channels": {file.package: _channel(file, events) for file in topics},
        "operations": {
            f"{file.package.replace('.', '-')}-publish": {
                "action": "send",
                "channel": {"$ref": f"#/channels/{file.package}"},
            }
            for file in topics
        },
        "components": {
            "messages": {f"{file.package}.{one.name}": _message(file, number, one) for file, number, one in events},
            "messageTraits": {"cloudevent": {"headers": HEADERS}},
            "schemas": {name.removeprefix("."): _schema(*messages[name], enums) for name in sorted(used)},
        },
    }
    return HEAD + yaml.safe_dump(api, sort_keys=False, allow_unicode=True, width=120)


def _messages(files: Iterable[FileDescriptorProto]) -> Iterator[tuple[FileDescriptorProto, int, DescriptorProto]]:
    for file in files:
        for number, message in enumerate(file.message_type):
            yield file, number, message


def _enums(files: Iterable[FileDescriptorProto]) -> dict[str, dict[str, Any]]:
    return {f".{file.package}.{one.name}": _enum(one) for file in files for one in file.enum_type}


def _enum(enum: EnumDescriptorProto) -> dict[str, Any]:
    shown: dict[str, Any] = {"type": "string", "enum": [value.name for value in enum.value]}
    unknown = enum.options.Extensions[events_pb2.unknown_value]
    return {**shown, "x-unknown-value": unknown} if unknown else shown


def _key(message: DescriptorProto) -> str:
    return str(message.options.Extensions[events_pb2.event].key)


def _used(messages: dict[str, tuple[FileDescriptorProto, int]], names: Iterable[str]) -> set[str]:
    """Return the messages that these have as fields, and themselves."""
    found: set[str] = set()
    pending = list(names)
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            file, number = messages[name]
            pending += [field.type_name for field in file.message_type[number].field if _is_message(field)]
    return found


def _is_message(field: FieldDescriptorProto) -> bool:
    return field.type == FieldDescriptorProto.TYPE_MESSAGE


def _channel(file: FileDescriptorProto, events: Iterable[tuple[FileDescriptorProto, int, DescriptorProto]]) -> Any:
    own = [one for of, _, one in events if of is file]
    return {
        "address": file.package,
        "description": _syntax_comment(file),
        "messages": {one.name: {"$ref": f"#/components/messages/{file.package}.{one.name}"} for one in own},
        "x-partitions": file.options.Extensions[events_pb2.topic].partitions,
    }


def _message(file: FileDescriptorProto, number: int, message: DescriptorProto) -> Any:
    return {
        "name": f"{file.package}.{message.name}",
        "summary": _comment(file, [MESSAGE_TYPE, number]),
        "traits": [{"$ref": "#/components/messageTraits/cloudevent"}],
        "payload": {"$ref": f"#/components/schemas/{file.package}.{message.name}"},
        "x-key": _key(message),
    }


def _schema(file: FileDescriptorProto, number: int, enums: Mapping[str, dict[str, Any]]) -> Any:
    message = file.message_type[number]
    return {
        "type": "object",
        "description": _comment(file, [MESSAGE_TYPE, number]),
        "properties": {
            field.json_name: {
                **_field(field, enums),
                "description": _comment(file, [MESSAGE_TYPE, number, FIELD, index]),
            }
            for index, field in enumerate(message.field)
        },
    }


def _field(field: FieldDescriptorProto, enums: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    if _is_message(field):
        one: dict[str, Any] = {"$ref": f"#/components/schemas/{field.type_name.removeprefix('.')}"}
    elif field.type == FieldDescriptorProto.TYPE_ENUM:
        one = copy.deepcopy(enums[field.type_name])  # yaml would write the same object as an alias
    else:
        one = dict(SCALARS[FieldDescriptorProto.Type.Name(field.type)])
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return {"type": "array", "items": one}
    return {"allOf": [one]} if "$ref" in one else one


def _syntax_comment(file: FileDescriptorProto) -> str:
    """Return what the file says of itself, above its syntax."""
    return _comment(file, [12])


def _comment(file: FileDescriptorProto, path: list[int]) -> str:
    for location in file.source_code_info.location:
        if list(location.path) == path:
            return " ".join(location.leading_comments.split())
    return ""


if __name__ == "__main__":
    PAGE.write_text(document(), encoding="utf-8")
