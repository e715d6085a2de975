"""An example of a message as canonical protobuf JSON, for people who have to write one. Called by the API."""

from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

DEEPEST = 3
TEXT = "..."
"""Stands where a person has to write something."""
WELL_KNOWN = "google.protobuf."


def example(of: Descriptor, depth: int = DEEPEST) -> dict[str, Any]:
    """Return a value for each field of a message, by its JSON name: `...` for a text, 0 for a number.

    Maps, well-known types and what lies deeper than `depth` are left out; of a oneof the first is shown.
    """
    shown: dict[str, Any] = {}
    for field in of.fields:
        group = field.containing_oneof
        if group is not None and group.fields[0].number != field.number:
            continue
        value = _value(field, depth)
        if value is not None:
            shown[field.json_name] = value
    return shown


def _value(field: FieldDescriptor, depth: int) -> Any:
    if field.message_type is not None:
        if depth == 0 or field.message_type.full_name.startswith(WELL_KNOWN):
            return None
        if field.message_type.GetOptions().map_entry:
            return None
        value: Any = example(field.message_type, depth - 1)
    elif field.enum_type is not None:
        value = field.enum_type.values[0].name
    else:
        value = _scalar(field)
    return [value] if field.is_repeated else value


def _scalar(field: FieldDescriptor) -> str | int | bool:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            return "" if field.type == FieldDescriptor.TYPE_BYTES else TEXT
        case FieldDescriptor.CPPTYPE_BOOL:
            return False
        case FieldDescriptor.CPPTYPE_INT64 | FieldDescriptor.CPPTYPE_UINT64:
            return "0"
        case _:
            return 0
