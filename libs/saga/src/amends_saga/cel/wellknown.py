"""Converts requests that are well-known types: CEL returns plain values for them, gRPC needs messages.

Called by the rule about result types and by the runtime.
"""

from datetime import datetime, timedelta
from typing import Any

from google.protobuf.message import Message

from amends_saga.cel.types import Type

_PRIMITIVES = {
    "google.protobuf.BoolValue": "bool",
    "google.protobuf.Int32Value": "int",
    "google.protobuf.Int64Value": "int",
    "google.protobuf.UInt32Value": "uint",
    "google.protobuf.UInt64Value": "uint",
    "google.protobuf.FloatValue": "double",
    "google.protobuf.DoubleValue": "double",
    "google.protobuf.StringValue": "string",
    "google.protobuf.BytesValue": "bytes",
}


def fits(target: str, type_: Type) -> bool:
    """Return whether an expression of a type makes exactly the message `target`."""
    if target in _PRIMITIVES:
        primitive = Type(_PRIMITIVES[target])
        return type_ in (primitive, Type("wrapper", (primitive,)))
    if target == "google.protobuf.Struct":
        return type_.name == "map" and type_.parameters[:1] == (Type("string"),)
    if target == "google.protobuf.ListValue":
        return type_.name == "list"
    return type_.message and type_.name == target


def to_message(value: Any, made: type[Message]) -> Message | None:
    """Return the message for CEL's value of a well-known type, None when there is none.

    Raises ValueError or TypeError when the value does not fit.
    """
    if isinstance(value, Message):
        return value
    message: Any = made()
    name = type(message).DESCRIPTOR.full_name
    if name in _PRIMITIVES:
        message.value = value
    elif isinstance(value, datetime) and name == "google.protobuf.Timestamp":
        message.FromDatetime(value)
    elif isinstance(value, timedelta) and name == "google.protobuf.Duration":
        message.FromTimedelta(value)
    elif isinstance(value, dict) and name == "google.protobuf.Struct":
        message.update(value)
    elif isinstance(value, list) and name == "google.protobuf.ListValue":
        message.extend(value)
    else:
        return None
    return message  # type: ignore[no-any-return]
