"""The messages of every saga's pool beside the participants': the one behind `saga`, and an inline input.

Called by the analysis of a saga.
"""

from collections.abc import Mapping, Sequence

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto

from amends_saga.definition.resources import InlineField
from amends_saga.descriptors.contracts import Dialect, TypeDefinition

DEFINITION_PACKAGE = "amends.definition.v1"
RUN_MESSAGE = f"{DEFINITION_PACKAGE}.Run"
INPUT_MESSAGE = f"{DEFINITION_PACKAGE}.Input"
_DIALECT = Dialect("proto3", 0, b"")

_TYPES = {
    name: FieldDescriptorProto.Type.Value(f"TYPE_{name.upper()}")
    for name in (
        *("double", "float", "int32", "int64", "uint32", "uint64", "sint32", "sint64"),
        *("fixed32", "fixed64", "sfixed32", "sfixed64", "bool", "string", "bytes"),
    )
}


def own_definitions(
    fields: Sequence[InlineField] | None, named: Mapping[str, tuple[str, bool]]
) -> list[TypeDefinition]:
    """Return the message `Run`, and `Input` when there are fields (None: the input is a contract's message).

    `named` returns the definition that contains a field's type, and whether that is an enum.
    """
    run = DescriptorProto(name="Run")
    for number, name in ((1, "run_id"), (2, "name"), (4, "idempotency_key")):
        run.field.add(name=name, number=number, label=1, type=_TYPES["string"])
    run.field.add(name="started_at", number=3, label=1, type=11, type_name=".google.protobuf.Timestamp")
    made = [TypeDefinition(RUN_MESSAGE, DEFINITION_PACKAGE, _DIALECT, run, frozenset({"google.protobuf.Timestamp"}))]
    if fields is not None:
        enums = frozenset(name for name, (_, is_enum) in named.items() if is_enum)
        message = DescriptorProto(name="Input")
        for number, item in enumerate(fields, 1):
            _add(message, number, item, enums)
        uses = {named[item.type][0] for item in fields if item.type in named}
        if any(item.label == "map" for item in fields):
            uses.add(INPUT_MESSAGE)
        made.append(TypeDefinition(INPUT_MESSAGE, DEFINITION_PACKAGE, _DIALECT, message, frozenset(uses)))
    return made


def _add(message: DescriptorProto, number: int, item: InlineField, enums: frozenset[str]) -> None:
    added = message.field.add(name=item.name, number=number, label=3 if item.label in ("repeated", "map") else 1)
    if item.label == "map":
        name = "".join(part[:1].upper() + part[1:] for part in item.name.split("_")) + "Entry"
        entry = message.nested_type.add(name=name)
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, label=1, type=_TYPES[item.key])
        _type(entry.field.add(name="value", number=2, label=1), item.type, enums)
        added.type, added.type_name = FieldDescriptorProto.TYPE_MESSAGE, f".{INPUT_MESSAGE}.{name}"
        return
    _type(added, item.type, enums)
    if item.label == "optional":
        added.proto3_optional = True
        added.oneof_index = len(message.oneof_decl)
        message.oneof_decl.add(name=f"_{item.name}")


def _type(target: FieldDescriptorProto, name: str, enums: frozenset[str]) -> None:
    if name in _TYPES:
        target.type = _TYPES[name]
        return
    target.type = FieldDescriptorProto.TYPE_ENUM if name in enums else FieldDescriptorProto.TYPE_MESSAGE
    target.type_name = f".{name}"
