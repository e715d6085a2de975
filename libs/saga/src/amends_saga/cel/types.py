"""The types of a checked expression, as values and in the form that people write.

Called by the environment and the rules about copying.
"""

from dataclasses import dataclass
from typing import Any

_PRIMITIVES = {1: "bool", 2: "int", 3: "uint", 4: "double", 5: "string", 6: "bytes"}
_WELL_KNOWN = {1: "google.protobuf.Any", 2: "google.protobuf.Timestamp", 3: "google.protobuf.Duration"}


@dataclass(frozen=True, slots=True)
class Type:
    """A CEL type. `name` is a primitive, `list`, `map`, `dyn`, `null`, `optional` or the full name of a message."""

    name: str
    parameters: "tuple[Type, ...]" = ()
    message: bool = False

    def __str__(self) -> str:
        inner = ", ".join(str(parameter) for parameter in self.parameters)
        return f"{self.name}({inner})" if inner else self.name


DYN = Type("dyn")


def read_type(proto: Any) -> Type:
    """Return the type that a `cel.expr.Type` stands for."""
    if proto.HasField("primitive"):
        return Type(_PRIMITIVES.get(proto.primitive, "unknown"))
    if proto.HasField("message_type"):
        return Type(proto.message_type, message=True)
    if proto.HasField("well_known"):
        return Type(_WELL_KNOWN.get(proto.well_known, "unknown"), message=True)
    if proto.HasField("list_type"):
        return Type("list", (read_type(proto.list_type.elem_type),))
    if proto.HasField("map_type"):
        return Type("map", (read_type(proto.map_type.key_type), read_type(proto.map_type.value_type)))
    if proto.HasField("wrapper"):
        return Type("wrapper", (Type(_PRIMITIVES.get(proto.wrapper, "unknown")),))
    if proto.HasField("abstract_type"):
        name = "optional" if proto.abstract_type.name == "optional_type" else proto.abstract_type.name
        return Type(name, tuple(read_type(item) for item in proto.abstract_type.parameter_types))
    if proto.HasField("null"):
        return Type("null")
    if proto.HasField("type"):
        return Type("type")
    return DYN
