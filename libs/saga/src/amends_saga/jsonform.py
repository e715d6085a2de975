"""Converts messages from and to canonical protobuf JSON: with clear errors on input and redaction on output.

Called by `CompiledSaga`.
"""

import json as json_text
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, cast

from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.struct_pb2 import ListValue, Struct, Value

from amends_saga.jsoncheck import MAX_DEPTH, InputError, JsonChecker, Object, check_plain, join, map_value, too_deep

__all__ = [
    "REDACTED",
    "InputError",
    "JsonInput",
    "check_depth",
    "parse_json",
    "read_object",
    "recursive",
    "require",
    "show_json",
]

M = TypeVar("M", bound=Message)
JsonInput = Mapping[str, Any] | Struct | str
"""A JSON object: as Python has it, as protobuf carries it, or as its text."""
REDACTED = "[REDACTED]"


def parse_json(json: JsonInput, made: type[M], pool: DescriptorPool) -> M:
    """Return the message of the JSON. Raises InputError with the path of the first field that is wrong.

    Every field occurs once, under one of its two names; integers are exact; nothing is nested deeper than MAX_DEPTH.
    """
    descriptor = cast(Descriptor, made.DESCRIPTOR)
    data = _read(json)
    check_plain(data)
    JsonChecker(pool).message(data, descriptor, "")
    message = made()
    try:
        json_format.ParseDict(data, message, descriptor_pool=pool, max_recursion_depth=MAX_DEPTH + 10)
    except json_format.ParseError as error:
        raise InputError("", f"The JSON is no {descriptor.full_name}: {str(error).splitlines()[0][:200]}") from None
    except (ValueError, TypeError, OverflowError, AttributeError, RecursionError):
        raise InputError("", f"The JSON is no {descriptor.full_name}.") from None
    return message


def read_object(text: str) -> dict[str, Any]:
    """Return the JSON object of a text, checked for faults that no message allows. Raises InputError."""
    data = _read(text)
    if not isinstance(data, dict):
        raise InputError("", "It is no JSON object.")
    check_plain(data)
    return data


def _read(json: JsonInput) -> Any:
    """Return JSON as Python values. Raises InputError."""
    if isinstance(json, Struct):
        return _struct(json, "", 0)
    if not isinstance(json, str):
        return json
    try:
        return json_text.loads(json, object_pairs_hook=Object)
    except json_text.JSONDecodeError as error:
        raise InputError("", f"It is no JSON: {error.msg}, line {error.lineno}, column {error.colno}.") from None
    except RecursionError:
        raise too_deep("") from None
    except ValueError:  # Python refuses to read integers of thousands of digits
        raise InputError("", "It holds a number with too many digits.") from None


def _struct(struct: Struct, path: str, depth: int) -> dict[str, Any]:
    if depth >= MAX_DEPTH:
        raise too_deep(path)
    return {name: _value(value, join(path, name[:80]), depth + 1) for name, value in struct.fields.items()}


def _list(values: ListValue, path: str, depth: int) -> list[Any]:
    if depth >= MAX_DEPTH:
        raise too_deep(path)
    return [_value(value, f"{path}[{i}]", depth + 1) for i, value in enumerate(values.values)]


def _value(value: Value, path: str, depth: int) -> Any:
    match value.WhichOneof("kind"):
        case "struct_value":
            return _struct(value.struct_value, path, depth)
        case "list_value":
            return _list(value.list_value, path, depth)
        case "null_value":
            return None
        case None:
            raise InputError(path, "It has no value.")
        case kind:
            return getattr(value, kind)


def recursive(descriptor: Descriptor) -> bool:
    """Return whether a message can contain its own type, so that only a limit bounds its depth."""
    done: set[str] = set()
    open_: set[str] = set()

    def circles(at: Descriptor) -> bool:
        if at.full_name in open_:
            return True
        if at.full_name in done:
            return False
        open_.add(at.full_name)
        found = any(field.message_type is not None and circles(field.message_type) for field in at.fields)
        open_.discard(at.full_name)
        done.add(at.full_name)
        return found

    return circles(descriptor)


def check_depth(message: Message, path: str = "", depth: int = 0) -> None:
    """Refuse a message whose JSON would be nested too deep to be read or shown. Raises InputError."""
    if depth >= MAX_DEPTH:
        raise too_deep(path)
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        here, entry = join(path, field.json_name), map_value(field)
        if entry is not None:
            for key in value if entry.message_type is not None else ():
                check_depth(value[key], f"{here}[{str(key)[:40]}]", depth + 2)
        elif field.is_repeated:
            for i, item in enumerate(value):
                check_depth(item, f"{here}[{i}]", depth + 2)
        else:
            check_depth(value, here, depth + 1)


def require(message: Message, paths: Iterable[str]) -> None:
    """Refuse a message without one of the paths, or without a field that is `required`. Raises InputError."""
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
    """Return a serialised message as canonical protobuf JSON; broken bytes become `{"@error": ...}`.

    Fields marked `debug_redact` are shown as `[REDACTED]`, whatever their type, when `redact` is set.
    """
    try:
        message = made.FromString(data)
        hiding = _Hiding(pool)
        if redact:
            hiding.hide(message)
        shown = json_format.MessageToDict(message, preserving_proto_field_name=False, descriptor_pool=pool)
    except (DecodeError, json_format.SerializeToJsonError, LookupError, TypeError, ValueError, AttributeError):
        return {"@error": f"not shown: {len(data)} bytes"}
    except RecursionError:
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
    """Clears every redacted field of a message, so that its value occurs nowhere, and notes its place."""

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
            entry = map_value(field)
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
