"""Finds faults in JSON that is meant to become a message, with their places, before protobuf reads it.

protobuf's own reader does not say where a fault is, takes the last of two values for one field, and rounds integers in
a Struct. Called by `jsonform`.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from google.protobuf import duration_pb2, field_mask_pb2, timestamp_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool

from amends_saga.findings import choices

MAX_DEPTH = 64
"""The deepest nesting of objects and lists."""
MAX_PATH = 80
"""The most characters of the path of what is nested too deep: the rest only says the same."""
EXACT = 2**53 - 1
"""The largest integer up to which a double represents every integer exactly."""
LARGEST_FLOAT = 3.4028234663852886e38

_INTEGER = re.compile(r"-?[0-9]{1,20}", re.ASCII)
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]*={0,2}", re.ASCII)
_NO_NUMBERS = frozenset({"NaN", "Infinity", "-Infinity"})
_TEXTS: dict[str, Any] = {
    "google.protobuf.Duration": duration_pb2.Duration,
    "google.protobuf.FieldMask": field_mask_pb2.FieldMask,
    "google.protobuf.Timestamp": timestamp_pb2.Timestamp,
}
_LOOSE = frozenset({"google.protobuf.Struct", "google.protobuf.Value", "google.protobuf.ListValue"})
_WRAPPERS = frozenset(
    f"google.protobuf.{name}Value"
    for name in ("Bool", "Bytes", "Double", "Float", "Int32", "Int64", "String", "UInt32", "UInt64")
)
_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


class InputError(Exception):
    """A message that is not accepted. `path` names the field, e.g. `lines[0].quantity`; empty for the whole message."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}" if path else message)
        self.path, self.message = path, message


class Object(dict[str, Any]):
    """A JSON object as it was written: `twice` is a name that occurs more than once."""

    __slots__ = ("twice",)

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.twice: str | None = None
        if len(self) != len(pairs):
            names = [name for name, _ in pairs]
            self.twice = next(name for name in names if names.count(name) > 1)


def too_deep(path: str) -> InputError:
    """Return the InputError for JSON that is nested too deep at `path`."""
    shown = path if len(path) <= MAX_PATH else f"{path[:MAX_PATH]}..."
    return InputError(shown, f"It is nested deeper than {MAX_DEPTH}.")


def check_plain(value: Any, path: str = "", depth: int = 0) -> None:
    """Refuse values that no JSON or no message can hold, whatever the type. Raises InputError."""
    if isinstance(value, str):
        if not _is_unicode(value):
            raise InputError(path, "It is no text: it holds half of a surrogate pair.")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise InputError(path, 'It is no number. A double that is none is written as the text "NaN" or "Infinity".')
    elif isinstance(value, Mapping):
        if depth >= MAX_DEPTH:
            raise too_deep(path)
        for name, item in value.items():
            if not isinstance(name, str) or not _is_unicode(name):
                raise InputError(path, "The name of one of its fields is no text.")
            check_plain(item, join(path, name[:80]), depth + 1)
        if isinstance(value, Object) and value.twice is not None:
            raise InputError(join(path, value.twice[:80]), "It is given twice.")
    elif isinstance(value, list | tuple):
        if depth >= MAX_DEPTH:
            raise too_deep(path)
        for i, item in enumerate(value):
            check_plain(item, f"{path}[{i}]", depth + 1)


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def join(path: str, name: str) -> str:
    """Return the path of a field."""
    return f"{path}.{name}" if path else name


def map_value(field: FieldDescriptor) -> FieldDescriptor | None:
    """Return the field of a map's values, None for a field that is not a map."""
    message = field.message_type
    return message.fields_by_name["value"] if message is not None and message.GetOptions().map_entry else None


class JsonChecker:
    """Compares JSON with the descriptor of the message that it should become. Every method raises InputError."""

    def __init__(self, pool: DescriptorPool) -> None:
        """Set the pool that contains the types in google.protobuf.Any."""
        self._pool = pool

    def message(self, json: Any, descriptor: Descriptor, path: str) -> None:
        """Check an object against a message, or the JSON form of one of protobuf's own."""
        name = descriptor.full_name
        if name in _LOOSE:
            _check_loose(json, path)
        elif name in _WRAPPERS:
            self._value(json, descriptor.fields_by_name["value"], path)
        elif name in _TEXTS:
            _check_text_form(json, _TEXTS[name], path)
        elif not isinstance(json, Mapping):
            raise InputError(path, f"It must be an object with the fields of {name}.")
        elif name == "google.protobuf.Any":
            self._any(json, path)
        else:
            self._fields(json, descriptor, path)

    def _fields(self, json: Mapping[str, Any], descriptor: Descriptor, path: str) -> None:
        names = {name: f for f in descriptor.fields for name in (f.json_name, f.name)}
        given: dict[Any, str] = {}
        for key, value in json.items():
            field = names.get(key)
            if field is None:
                hint = choices(str(key), {f.json_name for f in descriptor.fields})
                message = f"{descriptor.full_name} has no such field. {hint}".strip()
                raise InputError(join(path, str(key)[:80]), message)
            if field.number in given:
                raise InputError(join(path, key), f"It is given twice, as {given[field.number]} and {key}.")
            given[field.number] = key
            if value is None:
                continue
            choice = field.containing_oneof
            if choice is not None and given.setdefault(choice.name, key) != key:
                raise InputError(join(path, key), f"{given[choice.name]} and {key} exclude each other.")
            self._field(value, field, join(path, key))

    def _any(self, json: Mapping[str, Any], path: str) -> None:
        url = json.get("@type")
        try:
            inner = self._pool.FindMessageTypeByName(str(url).rpartition("/")[2])
        except KeyError:
            raise InputError(join(path, "@type"), "It must name a message that the contracts have.") from None
        rest = {name: value for name, value in json.items() if name != "@type"}
        name = inner.full_name
        if name in _LOOSE or name in _WRAPPERS or name in _TEXTS or name == "google.protobuf.Any":
            if set(rest) != {"value"}:
                raise InputError(path, f"A {name} stands in the field `value`.")
            self.message(rest["value"], inner, join(path, "value"))
        else:
            self.message(rest, inner, path)

    def _field(self, value: Any, field: FieldDescriptor, path: str) -> None:
        entry = map_value(field)
        if entry is not None:
            if not isinstance(value, Mapping):
                raise InputError(path, "It must be an object: it is a map.")
            assert entry.containing_type is not None
            kind = entry.containing_type.fields_by_name["key"]
            for key, item in value.items():
                here = f"{path}[{str(key)[:40]}]"
                _check_map_key(key, kind, here)
                self._value(item, entry, here)
        elif field.is_repeated:
            if not isinstance(value, list | tuple):
                raise InputError(path, "It must be a list.")
            for i, item in enumerate(value):
                self._value(item, field, f"{path}[{i}]")
        else:
            self._value(value, field, path)

    def _value(self, value: Any, field: FieldDescriptor, path: str) -> None:
        if field.message_type is not None:
            self.message(value, field.message_type, path)
        elif field.enum_type is not None:
            _check_enum(value, field.enum_type, path)
        else:
            _check_scalar(value, field, path)


def _check_scalar(value: Any, field: FieldDescriptor, path: str) -> None:
    kind = field.cpp_type
    if kind in _INTEGERS:
        _check_integer(value, path, *_INTEGERS[kind])
    elif kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        _check_float(value, path, single=kind == FieldDescriptor.CPPTYPE_FLOAT)
    elif kind == FieldDescriptor.CPPTYPE_BOOL and not isinstance(value, bool):
        raise InputError(path, "It must be true or false.")
    elif kind == FieldDescriptor.CPPTYPE_STRING and not isinstance(value, str):
        raise InputError(path, "It must be a text.")
    elif field.type == FieldDescriptor.TYPE_BYTES and not _BASE64.fullmatch(value):
        raise InputError(path, "It must be bytes in base64.")


def _check_integer(value: Any, path: str, lowest: int, highest: int) -> None:
    number: int | None = None
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        number = int(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, float) and value.is_integer():
        number = int(value)
        if abs(number) > EXACT:
            raise InputError(path, f"A number beyond {EXACT} is not exact here: write it as a text, in quotes.")
    if number is None:
        raise InputError(path, "It must be a whole number.")
    if not lowest <= number <= highest:
        raise InputError(path, f"It must be from {lowest} to {highest}.")


def _check_float(value: Any, path: str, *, single: bool) -> None:
    if isinstance(value, str) and value in _NO_NUMBERS:
        return
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise InputError(path, "It must be a number.")
    try:
        number = float(value)
    except ValueError:
        raise InputError(path, "It must be a number.") from None
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or (single and abs(number) > LARGEST_FLOAT):
        raise InputError(path, f"It is too large for a {'float' if single else 'double'}.")


def _check_enum(value: Any, enum: EnumDescriptor, path: str) -> None:
    if isinstance(value, str):
        if value not in enum.values_by_name:
            hint = choices(value, enum.values_by_name)
            raise InputError(path, f"{enum.full_name} has no value `{value[:80]}`. {hint}".strip())
    elif value is not None:
        _check_integer(value, path, -(2**31), 2**31 - 1)


def _check_map_key(key: str, kind: FieldDescriptor, path: str) -> None:
    """Refuse keys that can be written in several ways: two of them would be one entry."""
    if kind.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        if key not in ("true", "false"):
            raise InputError(path, "The key must be true or false.")
    elif kind.cpp_type in _INTEGERS:
        _check_integer(key, path, *_INTEGERS[kind.cpp_type])
        if str(int(key)) != key:
            raise InputError(path, f"The key must be written as {int(key)}.")


def _check_loose(value: Any, path: str) -> None:
    """Check values of a google.protobuf.Struct, which holds every number as a double."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > EXACT:
        raise InputError(path, f"A number beyond {EXACT} is not exact here: write it as a text, in quotes.")
    if isinstance(value, Mapping):
        for name, item in value.items():
            _check_loose(item, join(path, name))
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            _check_loose(item, f"{path}[{i}]")


def _check_text_form(value: Any, made: Any, path: str) -> None:
    """Check values of protobuf's own messages that are written as a text."""
    if not isinstance(value, str):
        raise InputError(path, f"It must be a text, as a {made.DESCRIPTOR.full_name} is written.")
    try:
        made().FromJsonString(value)
    except (ValueError, OverflowError):
        raise InputError(path, f"It is no {made.DESCRIPTOR.full_name}.") from None
