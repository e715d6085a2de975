"""Reads the checked syntax tree that cel-expr-python serialises, with descriptors of our own.

The wheel has no Python API for its syntax tree, but `Expression.serialize()` returns a `cel.expr.CheckedExpr`: every
node with its type, reference and position. The variables and copies of an expression are read from this tree, not from
the text.
"""

from functools import cache
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool

_SCALARS = {"string": 9, "int64": 3, "uint64": 4, "int32": 5, "bool": 8, "double": 1, "bytes": 12, "enum": 5}

# Message: (field, number, type, repeated). From google/cel-spec, proto/cel/expr/{syntax,checked}.proto.
_MESSAGES: dict[str, tuple[tuple[str, int, str, bool], ...]] = {
    "Any": (("type_url", 1, "string", False), ("value", 2, "bytes", False)),
    "Constant": (
        ("null_value", 1, "enum", False),
        ("bool_value", 2, "bool", False),
        ("int64_value", 3, "int64", False),
        ("uint64_value", 4, "uint64", False),
        ("double_value", 5, "double", False),
        ("string_value", 6, "string", False),
        ("bytes_value", 7, "bytes", False),
    ),
    "Ident": (("name", 1, "string", False),),
    "Select": (("operand", 1, "Expr", False), ("field", 2, "string", False), ("test_only", 3, "bool", False)),
    "Call": (("target", 1, "Expr", False), ("function", 2, "string", False), ("args", 3, "Expr", True)),
    "CreateList": (("elements", 1, "Expr", True), ("optional_indices", 2, "int32", True)),
    "Entry": (
        ("id", 1, "int64", False),
        ("field_key", 2, "string", False),
        ("map_key", 3, "Expr", False),
        ("value", 4, "Expr", False),
        ("optional_entry", 5, "bool", False),
    ),
    "CreateStruct": (("message_name", 1, "string", False), ("entries", 2, "Entry", True)),
    "Comprehension": (
        ("iter_var", 1, "string", False),
        ("iter_range", 2, "Expr", False),
        ("accu_var", 3, "string", False),
        ("accu_init", 4, "Expr", False),
        ("loop_condition", 5, "Expr", False),
        ("loop_step", 6, "Expr", False),
        ("result", 7, "Expr", False),
        ("iter_var2", 8, "string", False),
    ),
    "Expr": (
        ("id", 2, "int64", False),
        ("const_expr", 3, "Constant", False),
        ("ident_expr", 4, "Ident", False),
        ("select_expr", 5, "Select", False),
        ("call_expr", 6, "Call", False),
        ("list_expr", 7, "CreateList", False),
        ("struct_expr", 8, "CreateStruct", False),
        ("comprehension_expr", 9, "Comprehension", False),
    ),
    "ListType": (("elem_type", 1, "Type", False),),
    "MapType": (("key_type", 1, "Type", False), ("value_type", 2, "Type", False)),
    "AbstractType": (("name", 1, "string", False), ("parameter_types", 2, "Type", True)),
    "Empty": (),
    "Type": (
        ("dyn", 1, "Empty", False),
        ("null", 2, "enum", False),
        ("primitive", 3, "enum", False),
        ("wrapper", 4, "enum", False),
        ("well_known", 5, "enum", False),
        ("list_type", 6, "ListType", False),
        ("map_type", 7, "MapType", False),
        ("message_type", 9, "string", False),
        ("type_param", 10, "string", False),
        ("type", 11, "Type", False),
        ("error", 12, "Empty", False),
        ("abstract_type", 14, "AbstractType", False),
    ),
    "Reference": (("name", 1, "string", False), ("overload_id", 3, "string", True), ("value", 4, "Constant", False)),
    "SourceInfo": (("location", 2, "string", False), ("positions", 4, "map int32", False)),
    "CheckedExpr": (
        ("reference_map", 2, "map Reference", False),
        ("type_map", 3, "map Type", False),
        ("expr", 4, "Expr", False),
        ("source_info", 5, "SourceInfo", False),
    ),
}
TYPE_URL = "type.googleapis.com/cel.expr.CheckedExpr"


@cache
def _classes() -> dict[str, Any]:
    file = FileDescriptorProto(name="amends/cel.proto", package="amends.cel", syntax="proto2")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind, repeated in fields:
            added = message.field.add(name=field, number=number, label=3 if repeated else 1)
            if kind.startswith("map "):
                entry = message.nested_type.add(name=field.title().replace("_", "") + "Entry")
                entry.options.map_entry = True
                _type(entry.field.add(name="key", number=1, label=1), "int64")
                _type(entry.field.add(name="value", number=2, label=1), kind.removeprefix("map "))
                added.label = FieldDescriptorProto.LABEL_REPEATED
                kind = f"{name}.{entry.name}"
            _type(added, kind)
            if name == "Expr" and field != "id":
                added.oneof_index = 0
        if name == "Expr":
            message.oneof_decl.add(name="kind")
    pool = DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"amends.cel.{name}")) for name in _MESSAGES
    }


def _type(field: FieldDescriptorProto, kind: str) -> None:
    if kind in _SCALARS:
        field.type = _SCALARS[kind]  # type: ignore[assignment]
    else:
        field.type, field.type_name = FieldDescriptorProto.TYPE_MESSAGE, f".amends.cel.{kind}"


def read_checked(data: bytes) -> Any:
    """Return the CheckedExpr in the bytes of `Expression.serialize()`."""
    classes = _classes()
    return classes["CheckedExpr"].FromString(classes["Any"].FromString(data).value)


def write_checked(checked: Any) -> bytes:
    """Return the bytes that `Env.deserialize()` reads."""
    return bytes(_classes()["Any"](type_url=TYPE_URL, value=checked.SerializeToString()).SerializeToString())


def counting(checked: Any, iter_range: Any) -> bytes:
    """Return a program that returns the size of `iter_range`, a list or map within `checked`."""
    copy = _classes()["CheckedExpr"]()
    copy.CopyFrom(checked)
    new = max(copy.type_map, default=0) + 1_000_000
    is_map = iter_range.id in copy.type_map and copy.type_map[iter_range.id].HasField("map_type")
    copy.expr.Clear()
    copy.expr.id = new
    copy.expr.call_expr.function = "size"
    copy.expr.call_expr.args.add().CopyFrom(iter_range)
    copy.type_map[new].primitive = 2
    copy.reference_map[new].overload_id.append("size_map" if is_map else "size_list")
    return write_checked(copy)


def part(checked: Any, node: Any) -> bytes:
    """Return a program that returns the value of `node`, a part of `checked` that reads no variable."""
    copy = _classes()["CheckedExpr"]()
    copy.CopyFrom(checked)
    copy.expr.CopyFrom(node)
    return write_checked(copy)
