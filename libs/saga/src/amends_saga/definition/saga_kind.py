"""Reads the spec of a Saga: input, steps, calls.

Called by `documents`.
"""

import base64
import binascii
import re

from amends_saga import codes
from amends_saga.definition.fields import MAX_ITEMS, Fields
from amends_saga.definition.nodes import Node, NodeKind
from amends_saga.definition.resources import CallSpec, Descriptors, InlineField, ResourceMetadata, Saga, Step
from amends_saga.findings import Finding, choices

MAX_STEPS = 1_000
STEP_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_FULL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
_MAP = re.compile(r"map<\s*([a-z0-9]+)\s*,\s*([A-Za-z0-9_.]+)\s*>")
SCALARS = (
    "double",
    "float",
    "int32",
    "int64",
    "uint32",
    "uint64",
    "sint32",
    "sint64",
    "fixed32",
    "fixed64",
    "sfixed32",
    "sfixed64",
    "bool",
    "string",
    "bytes",
)
ACCEPTABLE = (codes.PIVOT_ONCE.id, codes.PLAIN_STEP.id)
"""Warnings about what a plain method cannot promise: nothing in a definition mends them."""
_PARTICIPANT = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?/[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_SPEC = ("input", "deadline", "stalledAfter", "descriptors", "participants", "steps", "afterPivot", "suspend")
_STEP = ("name", "call", "request", "compensate", "after", "when", "pivot", "accept")
_AMENDMENT = ("name", "call", "request", "accept")


def saga(metadata: ResourceMetadata, spec: Node, findings: list[Finding]) -> Saga | None:
    """Return the Saga, None when too little of it could be read."""
    fields = Fields(spec, "The spec of a Saga", _SPEC, findings, required=("input", "steps"))
    input_node, steps_node = fields.node_of("input"), fields.node_of("steps")
    inputs = _input(fields, input_node) if input_node is not None else None
    deadline, stalled = fields.duration("deadline"), fields.duration("stalledAfter")
    given = descriptors(fields)
    fields.flag("suspend")
    steps = _steps(fields, "steps", steps_node, findings) if steps_node is not None else None
    offered = fields.node_of("afterPivot")
    amendments = _steps(fields, "afterPivot", offered, findings) if offered is not None else ()
    if inputs is None or steps is None or input_node is None:
        return None
    every = steps + (amendments or ())
    named = _participants(fields, fields.node_of("participants"))
    return Saga(metadata, inputs, input_node, deadline, fields.node_of("deadline"), stalled, given, every, named)


def _participants(fields: Fields, node: Node | None) -> dict[str, str]:
    """Return the Participants that the saga names, by service."""
    if node is None:
        return {}
    if node.kind is not NodeKind.MAPPING:
        hint = "Write {shop.payments.v1.PaymentService: shop/payments}."
        fields.add(codes.WRONG_TYPE, node, "`participants` must be a mapping of services to Participants.", hint)
        return {}
    found: dict[str, str] = {}
    fields.few("participants", [key for key, _ in node.pairs])
    for key, value in node.pairs[:MAX_ITEMS]:
        if not is_full_name(key.value):
            hint = "Write the full name of a service, e.g. shop.payments.v1.PaymentService."
            fields.add(codes.BAD_NAME, key, f"`{key.value[:80]}` cannot name a service.", hint)
        elif value.kind is not NodeKind.SCALAR or _PARTICIPANT.fullmatch(value.value) is None:
            hint = "Write namespace/name of a Participant, e.g. shop/payments."
            fields.add(codes.BAD_NAME, value, f"`{value.value[:130]}` cannot name a Participant.", hint)
        elif key.value in found:
            fields.add(codes.DUPLICATE_FIELD, key, f"`{key.value}` is given twice.", "Leave one of them out.")
        else:
            found[key.value] = value.value
    return found


def is_full_name(text: str) -> bool:
    """Return whether the text can be the full name of a protobuf message, enum or service."""
    return len(text) <= 500 and _FULL_NAME.fullmatch(text) is not None


def descriptors(fields: Fields) -> Descriptors | None:
    """Return the source that the field `descriptors` names; None when it is left out."""
    part = fields.part("descriptors", ("reflection", "configMapRef", "inline"))
    if part is None:
        return None
    reference = part.part("configMapRef", ("name", "key"), required=("name", "key"))
    name, key = (reference.text("name"), reference.text("key")) if reference is not None else (None, None)
    inline, node = part.text("inline"), part.node_of("inline")
    data: bytes | None = None
    if inline is not None and node is not None:
        try:
            data = base64.b64decode("".join(inline.split()), validate=True)
        except (binascii.Error, ValueError):
            hint = "Write the output of `base64` over a FileDescriptorSet."
            part.add(codes.BAD_VALUE, node, "`inline` is not base64.", hint)
    pair = (name, key) if name is not None and key is not None else None
    return Descriptors(bool(part.flag("reflection")), pair, data)


def _input(fields: Fields, node: Node) -> str | tuple[InlineField, ...] | None:
    if node.kind is NodeKind.SCALAR:
        name = fields.text("input")
        if name is not None and not is_full_name(name):
            hint = "Write the full name of a message, e.g. shop.orders.v1.PlaceOrderInput, or a mapping of fields."
            fields.add(codes.BAD_NAME, node, f"`{name[:80]}` cannot name a message.", hint)
            return None
        return name
    if node.kind is not NodeKind.MAPPING:
        hint = "Write the full name of a message, or a mapping such as {order_id: string}."
        fields.add(codes.WRONG_TYPE, node, "`input` must be a message name or a mapping, it is a list.", hint)
        return None
    found: dict[str, InlineField] = {}
    fields.few("input", [key for key, _ in node.pairs])
    for key, value in node.pairs[:MAX_ITEMS]:
        inline = _inline_field(fields, key, value)
        if inline is None:
            continue
        if key.value in found:
            fields.add(codes.DUPLICATE_FIELD, key, f"`{key.value}` is given twice.", "Leave one of them out.")
        found[key.value] = inline
    return tuple(found.values())


def _inline_field(fields: Fields, key: Node, value: Node) -> InlineField | None:
    if STEP_NAME.fullmatch(key.value) is None:
        hint = "Use lower case letters, digits and underscores, beginning with a letter."
        fields.add(codes.BAD_NAME, key, f"`{key.value[:80]}` cannot name a field.", hint)
        return None
    text = value.value.strip() if value.kind is NodeKind.SCALAR else ""
    label, _, rest = text.partition(" ")
    mapped = _MAP.fullmatch(text)
    if mapped is not None:
        return _map_field(fields, key, value, mapped)
    name, label = (rest.strip(), label) if label in ("repeated", "optional") and rest.strip() else (text, "")
    if not is_full_name(name):
        hint = "Write a type such as string, int64, repeated shop.orders.v1.Line or map<string, int32>."
        fields.add(codes.BAD_VALUE, value, f"`{key.value}` has no protobuf type.", hint)
        return None
    if "." not in name and name not in SCALARS:
        hint = choices(name, SCALARS, "Write a scalar type of protobuf, or a message by its full name.")
        fields.add(codes.BAD_VALUE, value, f"`{name[:80]}` is no scalar type of protobuf.", hint)
        return None
    return InlineField(key.value, name, label, "", value)


def _map_field(fields: Fields, key: Node, value: Node, mapped: re.Match[str]) -> InlineField | None:
    keys = tuple(name for name in SCALARS if name not in ("double", "float", "bytes"))
    for name, known in ((mapped[1], keys), (mapped[2], SCALARS)):
        if name not in known and (known is keys or "." not in name or not is_full_name(name)):
            fields.add(codes.BAD_VALUE, value, f"`{name[:80]}` cannot stand in a map here.", choices(name, known))
            return None
    return InlineField(key.value, mapped[2], "map", mapped[1], value)


def _steps(fields: Fields, name: str, node: Node, findings: list[Finding]) -> tuple[Step, ...] | None:
    if node.kind is not NodeKind.SEQUENCE:
        fields.add(codes.WRONG_TYPE, node, f"`{name}` must be a list.", "Write `- name: ...` for each step.")
        return None
    if not node.items:
        hint = "Add a step." if name == "steps" else "Add a step, or leave `afterPivot` out."
        fields.add(codes.MISSING_FIELD, node, f"`{name}` has no steps.", hint)
        return None
    if len(node.items) > MAX_STEPS:
        message = f"`{name}` has {len(node.items):,} steps, more than {MAX_STEPS:,}."
        fields.add(codes.TOO_LARGE, node.items[MAX_STEPS], message, "Split the saga into several.")
        return None
    steps = [_step(item, findings, amendment=name == "afterPivot") for item in node.items]
    return tuple(step for step in steps if step is not None)


def _step(node: Node, findings: list[Finding], *, amendment: bool) -> Step | None:
    what, known = ("An amendment", _AMENDMENT) if amendment else ("A step", _STEP)
    fields = Fields(node, what, known, findings, required=("name", "call", "request"))
    if node.kind is not NodeKind.MAPPING:
        return None
    name, name_node = fields.text("name"), fields.node_of("name")
    if name is not None and name_node is not None and STEP_NAME.fullmatch(name) is None:
        hint = "Use lower case letters, digits and underscores, beginning with a letter, at most 63."
        fields.add(codes.BAD_NAME, name_node, f"`{name[:80]}` cannot name a step.", hint)
    undo = fields.part("compensate", ("call", "request"), required=("call", "request"))
    when = fields.node_of("when")
    if when is not None and _expression(fields, "when", when) is None:
        when = None
    return Step(
        node=node,
        name=name or "",
        name_node=name_node or node,
        call=_call(fields),
        compensate=_call(undo) if undo is not None else None,
        compensate_node=fields.node_of("compensate"),
        after=fields.texts("after"),
        when=when,
        pivot=bool(fields.flag("pivot")),
        pivot_node=fields.node_of("pivot"),
        accept=_accepted(fields),
        amendment=amendment,
    )


def _accepted(fields: Fields) -> frozenset[str]:
    """Return the warnings that the author of a step accepts for it."""
    found = fields.texts("accept") or ()
    for code, node in found:
        if code not in ACCEPTABLE:
            hint = f"Only what cannot be mended in a definition can be accepted: {', '.join(ACCEPTABLE)}."
            fields.add(codes.BAD_VALUE, node, f"`{code[:40]}` cannot be accepted.", hint)
    return frozenset(code for code, _ in found)


def _call(fields: Fields) -> CallSpec | None:
    name, node, request = fields.text("call"), fields.node_of("call"), fields.node_of("request")
    expression = _expression(fields, "request", request) if request is not None else None
    if name is None or node is None:
        return None
    service, slash, method = name.removeprefix("/").partition("/")
    if not slash or not is_full_name(service) or "." in method or not is_full_name(method):
        hint = "Write package, service and method: shop.payments.v1.PaymentService/Charge."
        fields.add(codes.BAD_NAME, node, f"`{name[:120]}` does not name a method.", hint)
        return None
    return CallSpec(node, service, method, expression) if expression is not None else None


def _expression(fields: Fields, name: str, node: Node) -> Node | None:
    if node.kind is NodeKind.SCALAR:
        return node
    hint = f'Put the expression in quotes: {name}: "..."'
    fields.add(codes.WRONG_TYPE, node, f"`{name}` must be an expression, it is {node.kind.value}.", hint)
    return None
