"""Messages from and to canonical protobuf JSON: clear errors for what people write, redaction of what they see.

Called by `CompiledSaga`.
"""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, cast

from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message

from amends_saga.findings import choices

M = TypeVar("M", bound=Message)
REDACTED = "[REDACTED]"
MAX_DEPTH = 64


class InputError(Exception):
    """A message that cannot be accepted. `path` names the field, e.g. `lines[0].quantity`; empty for the whole."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}" if path else message)
        self.path, self.message = path, message


def parse_json(json: Mapping[str, Any], made: type[M], pool: DescriptorPool) -> M:
    """Return the message that the JSON means. Raises InputError with the path of the first field that is wrong."""
    descriptor = cast(Descriptor, made.DESCRIPTOR)
    _check_message(json, descriptor, "", 0)
    message = made()
    try:
        json_format.ParseDict(dict(json), message, descriptor_pool=pool, max_recursion_depth=MAX_DEPTH + 10)
    except json_format.ParseError as error:
        raise InputError("", f"The JSON is no {descriptor.full_name}: {str(error).splitlines()[0][:200]}") from None
    except (ValueError, TypeError, OverflowError, AttributeError, RecursionError):
        raise InputError("", f"The JSON is no {descriptor.full_name}.") from None
    return message


def require(message: Message, paths: Iterable[str]) -> None:
    """Raise InputError for the first path of message fields that is not set, or field that is `required`."""
    unset = message.FindInitializationErrors()  # type: ignore[attr-defined]  # the stubs do not know it
    if unset:
        raise InputError(str(unset[0]), "It must be set, because its contract says `required`.")
    for path in paths:
        at: Any = message
        for part in path.split("."):
            if not at.HasField(part):
                raise InputError(path, "It must be set, because a step copies it.")
            at = getattr(at, part)


def show_json(made: type[Message], data: bytes, *, redact: bool, pool: DescriptorPool) -> dict[str, Any]:
    """Return a serialised message as canonical protobuf JSON; bytes that are none become `{"@error": ...}`.

    Fields marked `debug_redact` are shown as `[REDACTED]`, whatever their type, when `redact` is set.
    """
    try:
        message = made.FromString(data)
        hiding = _Hiding(pool)
        if redact:
            hiding.hide(message)
        shown = json_format.MessageToDict(message, preserving_proto_field_name=False, descriptor_pool=pool)
    except (DecodeError, json_format.SerializeToJsonError, KeyError, TypeError, ValueError, RecursionError):
        return {"@error": f"not shown: {len(data)} bytes"}
    if not isinstance(shown, dict):
        return {"value": shown}
    for path in hiding.hidden:
        _mark(shown, path)
    return shown


def _mark(shown: Any, path: tuple[str | int, ...]) -> None:
    for part in path[:-1]:
        if isinstance(shown, dict):
            shown = shown.setdefault(part, {})
        elif isinstance(shown, list) and isinstance(part, int) and part < len(shown):
            shown = shown[part]
        else:
            return
    if isinstance(shown, dict):
        shown[path[-1]] = REDACTED


class _Hiding:
    """Clears every redacted field of a message, so that its value is nowhere, and notes where it stood."""

    def __init__(self, pool: DescriptorPool) -> None:
        self._pool = pool
        self.hidden: list[tuple[str | int, ...]] = []

    def hide(self, message: Message, path: tuple[str | int, ...] = (), depth: int = 0) -> None:
        """Clear the redacted fields of a message and of everything in it. Raises ValueError when it is too deep."""
        if depth > MAX_DEPTH:
            raise ValueError("too deep")
        if message.DESCRIPTOR.full_name == "google.protobuf.Any":
            self._open(message, path, depth)
            return
        for field, value in message.ListFields():
            here = (*path, field.json_name)
            entry = _map_value(field)
            if field.has_options and field.GetOptions().debug_redact:
                self.hidden.append(here)
                message.ClearField(field.name)
            elif entry is not None:
                if entry.message_type is not None:
                    for key in value:
                        self.hide(value[key], (*here, _key(key)), depth + 1)
            elif field.message_type is not None:
                for i, item in enumerate(value) if field.is_repeated else ((None, value),):
                    self.hide(item, here if i is None else (*here, i), depth + 1)

    def _open(self, packed: Any, path: tuple[str | int, ...], depth: int) -> None:
        name = packed.type_url.rpartition("/")[2]
        if not name or name.startswith("google.protobuf."):
            return
        inner = message_factory.GetMessageClass(self._pool.FindMessageTypeByName(name)).FromString(packed.value)
        self.hide(inner, path, depth + 1)
        packed.value = inner.SerializeToString(deterministic=True)


def _key(key: Any) -> str:
    return str(key).lower() if isinstance(key, bool) else str(key)


def _map_value(field: FieldDescriptor) -> FieldDescriptor | None:
    message = field.message_type
    return message.fields_by_name["value"] if message is not None and message.GetOptions().map_entry else None


def _check_message(json: Any, descriptor: Descriptor, path: str, depth: int) -> None:
    """Find the field that is wrong before protobuf does, which does not say where it is."""
    if depth > MAX_DEPTH:
        raise InputError(path, f"It is nested deeper than {MAX_DEPTH}.")
    if descriptor.full_name.startswith("google.protobuf."):
        return
    if not isinstance(json, Mapping):
        raise InputError(path, f"It must be an object with the fields of {descriptor.full_name}.")
    names = {name: f for f in descriptor.fields for name in (f.json_name, f.name)}
    for key, value in json.items():
        field = names.get(key)
        if field is None:
            hint = choices(str(key), {f.json_name for f in descriptor.fields})
            raise InputError(_join(path, str(key)[:80]), f"{descriptor.full_name} has no such field. {hint}".strip())
        if value is not None:
            _check_field(value, field, _join(path, key), depth)


def _check_field(value: Any, field: FieldDescriptor, path: str, depth: int) -> None:
    entry = _map_value(field)
    if entry is not None:
        if not isinstance(value, Mapping):
            raise InputError(path, "It must be an object: it is a map.")
        for key, item in value.items():
            _check_value(item, entry, f"{path}[{str(key)[:40]}]", depth)
    elif field.is_repeated:
        if not isinstance(value, list | tuple):
            raise InputError(path, "It must be a list.")
        for i, item in enumerate(value):
            _check_value(item, field, f"{path}[{i}]", depth)
    else:
        _check_value(value, field, path, depth)


_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


def _check_value(value: Any, field: FieldDescriptor, path: str, depth: int) -> None:
    if field.message_type is not None:
        _check_message(value, field.message_type, path, depth + 1)
    elif field.cpp_type in _INTEGERS:
        _check_integer(value, path, *_INTEGERS[field.cpp_type])
    elif field.cpp_type == FieldDescriptor.CPPTYPE_BOOL and not isinstance(value, bool):
        raise InputError(path, "It must be true or false.")
    elif field.cpp_type == FieldDescriptor.CPPTYPE_STRING and not isinstance(value, str):
        raise InputError(path, "It must be a text.")
    elif field.enum_type is not None and isinstance(value, str) and value not in field.enum_type.values_by_name:
        hint = choices(value, field.enum_type.values_by_name)
        raise InputError(path, f"{field.enum_type.full_name} has no value `{value[:80]}`. {hint}".strip())


def _check_integer(value: Any, path: str, lowest: int, highest: int) -> None:
    number: int | None = None
    if isinstance(value, str) and len(value) <= 24 and value.lstrip("-").isdigit() and value.isascii():
        number = int(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, float) and value.is_integer():
        number = int(value)
    if number is None:
        raise InputError(path, "It must be a whole number.")
    if not lowest <= number <= highest:
        raise InputError(path, f"It must be from {lowest} to {highest}.")


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
