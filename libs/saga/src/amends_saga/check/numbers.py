"""Rules about numbers: CEL counts in 64 bits, protobuf fields may have fewer.

CEL checks int64 to int32 only when the expression runs; double to float becomes infinite without an error. Called by
`checker`.
"""

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from amends_saga import codes
from amends_saga.analysis import Model
from amends_saga.analysis.words import at
from amends_saga.check.dataloss import flows
from amends_saga.check.flow import Copy
from amends_saga.check.rule import Rule
from amends_saga.findings import Finding

_RANGES: dict[int, tuple[float, float, str]] = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1, "int32"),
    FieldDescriptor.CPPTYPE_ENUM: (-(2**31), 2**31 - 1, "enum"),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1, "uint32"),
    FieldDescriptor.CPPTYPE_FLOAT: (-3.4028234e38, 3.4028236e38, "float"),
}
_WRAPPERS = {
    "google.protobuf.Int32Value": FieldDescriptor.CPPTYPE_INT32,
    "google.protobuf.UInt32Value": FieldDescriptor.CPPTYPE_UINT32,
    "google.protobuf.FloatValue": FieldDescriptor.CPPTYPE_FLOAT,
}
_SMALL = frozenset(
    {
        "size",
        "getFullYear",
        "getMonth",
        "getDate",
        "getDayOfMonth",
        "getDayOfWeek",
        "getDayOfYear",
        "getHours",
        "getMinutes",
        "getSeconds",
        "getMilliseconds",
    }
)
_FITTING = {
    FieldDescriptor.CPPTYPE_INT32: (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_ENUM),
    FieldDescriptor.CPPTYPE_ENUM: (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_ENUM),
    FieldDescriptor.CPPTYPE_UINT32: (FieldDescriptor.CPPTYPE_UINT32,),
    FieldDescriptor.CPPTYPE_FLOAT: (FieldDescriptor.CPPTYPE_FLOAT,),
}


def narrowing(model: Model) -> Iterator[Finding]:
    """Report values of 64 bits that go into fields of 32 bits without a check."""
    for _, expression, flow in flows(model):
        for copy in flow.copies:
            kind = _narrow(copy)
            if kind is None or _literal(copy) is not None or copy.node.id in flow.checked.type_names:
                continue
            call = copy.node.call_expr.function if copy.node.HasField("call_expr") else ""
            if (
                call in _SMALL
                or _is_remainder(copy.node, kind)
                or (copy.source is not None and _kind(copy.source) in _FITTING[kind])
            ):
                continue
            assert copy.target is not None
            offset, width = flow.place(copy.node)
            message = f"`{copy.target.name}` holds {_RANGES[kind][2]}, the value may be larger."
            then = "it becomes infinite" if kind == FieldDescriptor.CPPTYPE_FLOAT else "the expression fails"
            hint = f"Make sure that it fits: else {then}."
            yield at(expression.node, offset, width, codes.NARROWING, message, hint)


def literal_range(model: Model) -> Iterator[Finding]:
    """Report constant numbers that do not fit their fields."""
    for _, expression, flow in flows(model):
        for copy in flow.copies:
            kind, value = _narrow(copy), _literal(copy)
            if kind is None or value is None or not copy.direct:
                continue
            lowest, highest, name = _RANGES[kind]
            if lowest <= value <= highest:
                continue
            assert copy.target is not None
            offset, width = flow.place(copy.node)
            message = f"{value} does not fit `{copy.target.name}`, which holds {name}."
            hint = f"Write a number from {lowest} to {highest}."
            yield at(expression.node, offset, width, codes.LITERAL_RANGE, message, hint)


def _is_remainder(node: Any, kind: int) -> bool:
    """Return whether a number is less than a constant that fits: `int(nanos % 1000000000)`."""
    while node.HasField("call_expr") and node.call_expr.function in ("int", "uint") and node.call_expr.args:
        node = node.call_expr.args[0]
    if not node.HasField("call_expr") or node.call_expr.function != "_%_":
        return False
    divisor = node.call_expr.args[1].const_expr
    return max(divisor.int64_value, divisor.uint64_value) - 1 in range(int(_RANGES[kind][1]) + 1)


def _kind(source: FieldDescriptor) -> int:
    message = source.message_type
    if message is None:
        return source.cpp_type
    if message.GetOptions().map_entry:
        return _kind(message.fields_by_name["value"])
    return _WRAPPERS.get(message.full_name, source.cpp_type)


def _narrow(copy: Copy) -> int | None:
    """Return the kind of the target if it is a 32-bit number that the value goes directly into."""
    if copy.target is None or not copy.direct:
        return None
    kind = _kind(copy.target)
    return kind if kind in _RANGES else None


def _literal(copy: Copy) -> float | None:
    node = copy.node
    sign = 1
    if node.HasField("call_expr") and node.call_expr.function == "-_" and node.call_expr.args:
        node, sign = node.call_expr.args[0], -1
    if not node.HasField("const_expr"):
        return None
    constant = node.const_expr
    for name in ("int64_value", "uint64_value", "double_value"):
        if constant.HasField(name):
            return sign * getattr(constant, name)  # type: ignore[no-any-return]
    return 0


RULES: tuple[Rule, ...] = (narrowing, literal_range)
