"""Rules about messages that participants have in different versions: each uses its own contract's fields.

Expressions are checked against the union of all versions. If a participant does not have a field, the field would be
lost on the way to it, or would never come from it. Called by `checker`.
"""

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto

from amends_saga import codes
from amends_saga.analysis import Expression, ExpressionRole, Model, StepModel
from amends_saga.analysis.words import at
from amends_saga.cel.environment import Checked, children, locate
from amends_saga.check.rule import Rule
from amends_saga.descriptors.merge import WIDER
from amends_saga.findings import Finding, choices


def own_fields(model: Model) -> Iterator[Finding]:
    """Report fields that the participant does not have: set in its request, or read from its response."""
    merged = model.contracts.merged
    if not merged:
        return
    for step in model.steps:
        for expression in step.expressions:
            if expression.checked is not None:
                yield from _unknown(model, step, expression, expression.checked)


def _unknown(model: Model, step: StepModel, expression: Expression, checked: Checked) -> Iterator[Finding]:
    method = step.compensation if expression.role is ExpressionRole.COMPENSATION else step.action
    receiver = method.participant.metadata.full_name if method is not None else ""
    waiting = [checked.root]
    while waiting:
        node = waiting.pop()
        waiting += children(node)
        if expression.target and node.HasField("struct_expr"):
            fields = _fields(model, receiver, node.struct_expr.message_name)
            if fields is not None:
                yield from _written(model, expression, checked, node.struct_expr, receiver, fields)
        sender = _sender(model, node)
        if sender:
            operand, name = _selection(node)
            message_name = checked.type_of(operand).name
            fields = _fields(model, sender, message_name)
            if fields is not None and name not in fields:
                yield _finding(expression, checked, node.id, name, message_name, sender, fields)


def _written(
    model: Model,
    expression: Expression,
    checked: Checked,
    literal: Any,
    receiver: str,
    fields: dict[str, FieldDescriptorProto],
) -> Iterator[Finding]:
    """Yield findings about the fields that a message literal sets."""
    for entry in literal.entries:
        name = entry.field_key
        if name not in fields:
            yield _finding(expression, checked, entry.id, name, literal.message_name, receiver, fields)
        elif _narrower(model, literal.message_name, fields[name], entry.value):
            offset = locate(checked.text, checked.offset(entry.id), name)
            kind = FieldDescriptorProto.Type.Name(fields[name].type).removeprefix("TYPE_").lower()
            message = f"`{name}` holds {kind} in the contract of {receiver}, the value may be larger."
            hint = "Make sure that it fits: else the receiver reads another number."
            yield at(expression.node, offset, len(name), codes.NARROWING, message, hint)


def _finding(
    expression: Expression,
    checked: Checked,
    node: int,
    name: str,
    message_name: str,
    owner: str,
    fields: dict[str, FieldDescriptorProto],
) -> Finding:
    offset = locate(checked.text, checked.offset(node), name)
    message = f"`{message_name}` has no field `{name}` in the contract of {owner}, which has another version of it."
    hint = choices(name, fields, "Use a field that it has, or wait until it has been deployed with the new version.")
    return at(expression.node, offset, len(name), codes.UNKNOWN_NAME, message, hint)


def _sender(model: Model, node: Any) -> str:
    """Return the participant whose response a field is selected from; empty for other values."""
    if not node.HasField("select_expr") and not (node.HasField("call_expr") and node.call_expr.function == "_?._"):
        return ""
    root = node
    while root.HasField("select_expr") or (root.HasField("call_expr") and root.call_expr.function == "_?._"):
        root = _selection(root)[0]
    step = model.index.get(root.ident_expr.name) if root.HasField("ident_expr") else None
    action = model.steps[step].action if step is not None else None
    return action.participant.metadata.full_name if action is not None else ""


def _selection(node: Any) -> tuple[Any, str]:
    """Return what a field is selected from, and the field."""
    if node.HasField("select_expr"):
        return node.select_expr.operand, node.select_expr.field
    return node.call_expr.args[0], node.call_expr.args[1].const_expr.string_value


def _fields(model: Model, owner: str, message_name: str) -> dict[str, FieldDescriptorProto] | None:
    """Return the fields of a message in its owner's version, None if that is the version of all."""
    found = model.contracts.find(message_name)
    if found is None or found[0].name not in model.contracts.merged:
        return None
    own = model.contracts.own(owner, message_name)
    return {item.name: item for item in own.field} if isinstance(own, DescriptorProto) else None


def _narrower(model: Model, message_name: str, own: FieldDescriptorProto, value: Any) -> bool:
    """Return whether a number that the union holds in 64 bits goes into a field of 32 bits here."""
    found = model.contracts.find(message_name)
    merged = found[1] if found is not None else None
    if not isinstance(merged, DescriptorProto) or own.type not in WIDER or value.HasField("const_expr"):
        return False
    return any(item.name == own.name and item.type == WIDER[own.type] for item in merged.field)


RULES: tuple[Rule, ...] = (own_fields,)
