"""Recognises expressions that only copy fields into a message, and builds that message without CEL.

Most requests look like `ReserveRequest{order_id: input.order_id, lines: input.lines}`. They need no interpreter, and
their values need not be converted to CEL's own messages and back. All other expressions are left to CEL, and so is a
copy that fails: CEL's result is always the valid one, this code only finds the same result faster. Called by `Program`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from amends_saga.cel.environment import ANYTHING, Checked, Environment, selected

_WELL_KNOWN = "google.protobuf."
"""CEL has values of its own for these messages: a wrapper may be null, an Any is what it holds."""
_F = FieldDescriptor
_CONSTANTS = {
    "bool_value": (_F.TYPE_BOOL,),
    "int64_value": (
        *(_F.TYPE_INT32, _F.TYPE_SINT32, _F.TYPE_SFIXED32),
        *(_F.TYPE_INT64, _F.TYPE_SINT64, _F.TYPE_SFIXED64),
    ),
    "uint64_value": (_F.TYPE_UINT32, _F.TYPE_FIXED32, _F.TYPE_UINT64, _F.TYPE_FIXED64),
    "double_value": (_F.TYPE_DOUBLE,),
    "string_value": (_F.TYPE_STRING,),
    "bytes_value": (_F.TYPE_BYTES,),
}
"""Constants, and the fields that take them as they are."""


class Constant:
    """A constant that the expression contains."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def value(self, data: Mapping[str, Message]) -> Any:
        """Return the constant value."""
        return self._value


class Copied:
    """A field of a variable, under any number of messages."""

    def __init__(self, variable: str, fields: Sequence[str]) -> None:
        self._variable = variable
        self._fields = tuple(fields)

    def value(self, data: Mapping[str, Message]) -> Any:
        """Return the value of the field."""
        found: Any = data[self._variable]
        for field in self._fields:
            found = getattr(found, field)
        return found


class Made:
    """A message whose fields are all copied, constant, or messages of this kind."""

    def __init__(self, message: type[Message], fields: "Sequence[tuple[str, Constant | Copied | Made]]") -> None:
        self._message = message
        self._fields = tuple(fields)

    @classmethod
    def of(cls, checked: Checked, made: type[Message], environment: Environment) -> "Made | None":
        """Return how to build a message of the class `made`; None for any other expression."""
        descriptor: Any = made.DESCRIPTOR
        return _Reader(checked, environment).message(checked.root, descriptor)

    def value(self, data: Mapping[str, Message]) -> Message:
        """Return the message, a new one. Raises protobuf's error for a value that does not fit."""
        return self._message(**{name: part.value(data) for name, part in self._fields})


class _Reader:
    """Reads the tree of one expression; every method returns None for anything that is not simple."""

    def __init__(self, checked: Checked, environment: Environment) -> None:
        self._checked = checked
        self._environment = environment

    def message(self, node: Any, made: Descriptor) -> Made | None:
        if node.WhichOneof("kind") != "struct_expr" or made.full_name.startswith(_WELL_KNOWN):
            return None
        if self._checked.type_of(node).name != made.full_name:
            return None
        parts: list[tuple[str, Constant | Copied | Made]] = []
        for entry in node.struct_expr.entries:
            target = made.fields_by_name.get(entry.field_key)
            part = None if target is None or entry.optional_entry else self._part(entry.value, target)
            if part is None:
                return None
            parts.append((entry.field_key, part))
        return Made(message_factory.GetMessageClass(made), parts)

    def _part(self, node: Any, target: FieldDescriptor) -> Constant | Copied | Made | None:
        kind = node.WhichOneof("kind")
        if kind == "const_expr":
            return self._constant(node.const_expr, target)
        if kind == "struct_expr" and target.message_type is not None and not target.is_repeated:
            return self.message(node, target.message_type)
        return self._copied(node, target)

    def _constant(self, constant: Any, target: FieldDescriptor) -> Constant | None:
        for kind, types in _CONSTANTS.items():
            if constant.HasField(kind) and target.type in types and not target.is_repeated:
                return Constant(getattr(constant, kind))
        return None

    def _copied(self, node: Any, target: FieldDescriptor) -> Copied | None:
        if node.WhichOneof("kind") != "select_expr" or node.select_expr.test_only:
            return None
        of, names = selected(node)
        if of.WhichOneof("kind") != "ident_expr" or of.id in self._checked.type_names:
            return None
        variable = of.ident_expr.name
        type_ = self._environment.variables.get(variable, ANYTHING)
        if type_ == ANYTHING:
            return None
        at: Descriptor | None = self._environment.pool.FindMessageTypeByName(type_)
        source: FieldDescriptor | None = None
        for name in names:
            source = (
                at.fields_by_name.get(name) if at is not None and not at.full_name.startswith(_WELL_KNOWN) else None
            )
            if source is None:
                return None
            at = None if source.is_repeated else source.message_type
        return Copied(variable, names) if source is not None and _same(source, target) else None


def _same(source: FieldDescriptor, target: FieldDescriptor) -> bool:
    """Return whether a field takes another field's value without conversion, also in CEL."""
    if source.type != target.type or source.is_repeated != target.is_repeated:
        return False
    if source.type == FieldDescriptor.TYPE_ENUM:
        return source.enum_type is target.enum_type
    theirs, ours = source.message_type, target.message_type
    if theirs is None or ours is None:
        return True
    if theirs.GetOptions().map_entry:
        parts = [(theirs.fields_by_name[part], ours.fields_by_name.get(part)) for part in ("key", "value")]
        return ours.GetOptions().map_entry and all(part is not None and _same(key, part) for key, part in parts)
    return theirs.full_name == ours.full_name and not theirs.full_name.startswith(_WELL_KNOWN)
