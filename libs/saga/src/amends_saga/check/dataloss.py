"""Rules about data that CEL would lose silently: unset fields, oneofs, skipped steps, redaction.

Each rule is a pure function over the model; called by `checker`.
"""

from collections.abc import Iterator
from enum import Enum
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

from cel_expr_python import cel  # type: ignore[import-untyped]
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool

from amends_saga import codes
from amends_saga.analysis import Expression, ExpressionRole, Model, StepModel
from amends_saga.analysis.words import at
from amends_saga.cel.environment import locate
from amends_saga.cel.presence import write_out
from amends_saga.check.flow import (
    Arms,
    Copy,
    Flow,
    facts,
    follow,
    holding,
    is_redacted,
    path_of,
    prefixes,
    real_oneof,
    written_type,
)
from amends_saga.check.rule import Rule
from amends_saga.findings import Finding

_WRAPPERS = frozenset(
    f"google.protobuf.{name}Value"
    for name in ("Bool", "Int32", "Int64", "UInt32", "UInt64", "Float", "Double", "String", "Bytes")
)
"""Messages that CEL reads as null when they are unset: a copy of null is unset too, and fails in any other field."""
_ALWAYS = prefixes("saga.started_at")
"""Paths that are set in every run."""


_FLOWS: "WeakKeyDictionary[Model, list[tuple[StepModel, Expression, Flow]]]" = WeakKeyDictionary()
"""What `flows` found for each model: several rules ask for it."""


def flows(model: Model) -> Iterator[tuple[StepModel, Expression, Flow]]:
    """Yield how values flow through each expression that has a type."""
    if model.environment is None:
        return iter(())
    found = _FLOWS.get(model)
    if found is None:
        found = _FLOWS[model] = list(_flows(model, model.environment.pool))
    return iter(found)


def _flows(model: Model, pool: DescriptorPool) -> Iterator[tuple[StepModel, Expression, Flow]]:
    for step in model.steps:
        condition = _condition(step)
        known = _ALWAYS | facts(condition, True) if condition is not None else _ALWAYS
        for expression in step.expressions:
            under = _ALWAYS if expression.role is ExpressionRole.WHEN else known
            flow = follow(expression, pool, under, certain=condition is None)
            if flow is not None:
                yield step, expression, flow


class Means(Enum):
    """The meaning of a copy of a field that may be unset."""

    KEPT = "nothing is lost"
    REQUIRED = "an input without it is refused at the start"
    CERTAIN = "the expression fails when it is unset"
    OPTIONAL = "the target is left unset too"
    LOST = "a default would be set"


def meaning(model: Model, flow: Flow, copy: Copy) -> Means:
    """Return what a copy of an unset field means.

    If a message of the input is copied in every run, a run without it is refused at the start. If it is copied under a
    condition, or belongs to a response, the expression fails when it is unset. If a scalar records whether it was set,
    and its target does too, the copy keeps that. Fields that the contract calls `optional`, arms of a oneof, and
    well-known types of the input get no meaning here: their absence means something, so the author must write what to
    do.
    """
    source, target = copy.source, copy.target
    if copy.known or not copy.direct or source is None or not _is_lost(copy) or _has_default(source):
        return Means.KEPT
    if copy.entry is not None and target is not None and _keeps_presence(source, target):
        return Means.OPTIONAL
    root = (copy.path or "").partition(".")[0].partition("[")[0]
    if root == "input":
        if not _can_be_required(flow, copy.node):
            return Means.LOST
        return Means.REQUIRED if copy.certain else Means.CERTAIN
    return Means.CERTAIN if root and source.containing_oneof is None else Means.LOST


def required_input(model: Model) -> tuple[str, ...]:
    """Return the paths of input fields that must be set at the start, e.g. `order.total`, sorted."""
    found = set[str]()
    for _, _, flow in flows(model):
        for copy in flow.copies:
            if copy.path is not None and meaning(model, flow, copy) is Means.REQUIRED:
                found.add(copy.path.partition(".")[2])
    return tuple(sorted(found))


def written_out(model: Model) -> dict[tuple[int, ExpressionRole], str]:
    """Return the explicit texts of expressions with implicit copies, by step and role."""
    found = {}
    for step, expression, flow in flows(model):
        certain, optional = _changes(model, flow)
        if certain or optional:
            text = write_out(flow.checked, certain, optional)
            if text is not None:
                found[step.index, expression.role] = text
    return found


def _changes(model: Model, flow: Flow) -> tuple[list[Any], list[tuple[Any, Any]]]:
    certain: dict[int, Any] = {}
    optional: dict[int, tuple[Any, Any]] = {}
    for copy in flow.copies:
        means = meaning(model, flow, copy)
        if means is Means.CERTAIN:
            certain[copy.node.id] = copy.node
        elif means is Means.OPTIONAL:
            optional[copy.node.id] = (copy.entry, copy.node)
    return list(certain.values()), list(optional.values())


def presence_lost(model: Model) -> Iterator[Finding]:
    """Report copies of fields that may be unset, if they are neither optional nor guarded nor certain."""
    given = frozenset(path for rest in required_input(model) for path in prefixes(f"input.{rest}"))
    for _, expression, flow in flows(model):
        unclear = write_out(flow.checked, *_changes(model, flow)) is None
        for copy in flow.copies:
            means = meaning(model, flow, copy)
            if means is not Means.LOST and not (unclear and means in (Means.CERTAIN, Means.OPTIONAL)):
                continue
            if copy.path in given:
                continue
            offset, width = flow.place(copy.node)
            shown = copy.path or f"the field `{copy.source.name if copy.source is not None else ''}`"
            message = f"`{shown}` may be unset, and a copy of it would be set to {_default(copy)}."
            yield at(expression.node, offset, width, codes.PRESENCE_LOST, message, _optional_hint(copy))


def oneof_lost(model: Model) -> Iterator[Finding]:
    """Report message literals that set two arms of a oneof."""
    for _, expression, flow in flows(model):
        for arms in flow.arms:
            if _same_oneof(flow, arms):
                continue
            names = [entry.field_key for entry in arms.entries]
            offset = locate(flow.checked.text, flow.checked.offset(arms.entries[-1].id), names[-1])
            listed = " and ".join(f"`{name}`" for name in names)
            message = f"{listed} are arms of the oneof `{arms.name}`: only the last that is set is kept."
            copies = ", ".join(f"?{name}: x.?{name}" for name in names)
            hint = f"Set one of them, or copy a oneof as a whole: {copies}."
            yield at(expression.node, offset, len(names[-1]), codes.ONEOF_LOST, message, hint)


def field_twice(model: Model) -> Iterator[Finding]:
    """Report message literals that set a field twice."""
    for _, expression, flow in flows(model):
        for entry in flow.doubled:
            name = entry.field_key
            offset = locate(flow.checked.text, flow.checked.offset(entry.id), name)
            message = f"`{name}` is set twice: only the last one counts."
            hint = "Leave one of them out."
            yield at(expression.node, offset, len(name), codes.DUPLICATE_FIELD, message, hint)


def _guard_hint(name: str, *, may_be_skipped: bool) -> str:
    """Return how the response of a skipped step is used; a pivot takes no `when`, and a `when` does not help itself."""
    hint = f"Guard it: `has({name}.field) ? ... : ...`, or `{name}.?field`"
    return f"{hint}, or with the same `when` here." if may_be_skipped else f"{hint}."


def skipped_step(model: Model) -> Iterator[Finding]:
    """Report responses of steps that may have been skipped, if they are used without a guard."""
    conditional = {step.name: step for step in model.steps if step.step.when is not None}
    if not conditional:
        return
    for step, expression, flow in flows(model):
        told = set[str]()
        for use in flow.uses:
            skipped = conditional.get(use.name)
            if skipped is None or use.guarded or skipped.index == step.index or use.name in told:
                continue
            mine = None if expression.role is ExpressionRole.WHEN else _condition(step)
            if _implies(use.holds | (holding(mine, True) if mine is not None else frozenset()), skipped):
                continue
            told.add(use.name)
            offset, width = flow.place(use.node)
            message = f"`{use.name}` may have been skipped by its condition; its response is empty then."
            hint = _guard_hint(
                use.name, may_be_skipped=expression.role is not ExpressionRole.WHEN and step.index != model.pivot
            )
            yield at(expression.node, offset, width, codes.SKIPPED_STEP, message, hint)


def redaction_lost(model: Model) -> Iterator[Finding]:
    """Report redacted values that are copied to a field without redaction."""
    for _, expression, flow in flows(model):
        for copy in flow.copies:
            if copy.hidden or copy.target is None or not _is_redacted(flow, copy.node):
                continue
            offset, width = flow.place(copy.node)
            message = f"`{copy.path or 'The value'}` is redacted, `{copy.target.name}` is not and would be shown."
            hint = f"Mark `{copy.target.full_name}` with [debug_redact = true]."
            yield at(expression.node, offset, width, codes.REDACTION_LOST, message, hint)


def required_missing(model: Model) -> Iterator[Finding]:
    """Report message literals without a field that their contract calls `required`."""
    for _, expression, flow in flows(model):
        for node, field in flow.missing:
            message = f"`{node.struct_expr.message_name}` cannot be sent without `{field.name}`, which is required."
            offset = flow.checked.offset(node.id)
            yield at(expression.node, offset, 1, codes.REQUIRED_MISSING, message, f"Set `{field.name}: ...`.")


def any_copied(model: Model) -> Iterator[Finding]:
    """Report an Any that is copied without the message that holds it."""
    for _, expression, flow in flows(model):
        for copy in flow.copies:
            message = copy.source.message_type if copy.source is not None else None
            if message is None or message.full_name != "google.protobuf.Any":
                continue
            offset, width = flow.place(copy.node)
            text = f"`{copy.path or 'The value'}` is an Any: one whose type this saga does not know cannot be copied."
            hint = "Copy the message that holds it, or make sure that its type is among the saga's messages."
            yield at(expression.node, offset, width, codes.ANY_COPIED, text, hint)


def bad_pattern(model: Model) -> Iterator[Finding]:
    """Report constant regular expressions that are malformed."""
    for _, expression, flow in flows(model):
        for node in flow.patterns:
            reason = _pattern_error(node.const_expr.string_value)
            if reason is not None:
                offset = flow.checked.offset(node.id)
                message = f"The regular expression is malformed: {reason}."
                yield at(expression.node, offset, 1, codes.BAD_PATTERN, message, "Write it as RE2 has it.")


def _condition(step: StepModel) -> Any:
    expression = step.expression(ExpressionRole.WHEN)
    return expression.checked.root if expression is not None and expression.checked is not None else None


def _is_lost(copy: Copy) -> bool:
    source = copy.source
    if source is None or source.is_repeated or not source.has_presence:
        return False
    if source.message_type is not None and source.message_type.full_name in _WRAPPERS:
        return False
    return not source.is_required and not copy.node.HasField("ident_expr") and _reads(copy.node)


def _reads(node: Any) -> bool:
    return bool(node.HasField("select_expr"))


def _can_be_required(flow: Flow, node: Any) -> bool:
    while node.HasField("select_expr"):
        source = flow.source(node, {})
        if source is None or not source.has_presence or source.containing_oneof is not None:
            return False
        if source.message_type is not None and source.message_type.full_name.startswith("google.protobuf."):
            return False
        node = node.select_expr.operand
    return bool(node.HasField("ident_expr"))


def _default(copy: Copy) -> str:
    source = copy.source
    if source is None or source.message_type is not None:
        name = source.message_type.full_name if source is not None and source.message_type is not None else ""
        known = {"google.protobuf.Timestamp": "the year 1970", "google.protobuf.Duration": "zero seconds"}
        return known.get(name, "an empty message")
    return f"`{source.default_value!r}`" if source.default_value not in (b"", "") else "an empty value"


def _optional_hint(copy: Copy) -> str:
    outer, _, name = (copy.path or "").rpartition(".")
    if not outer or copy.source is None:
        return "Guard it with `has(...)`, or give another value with `.orValue(...)`."
    value = f"{outer}.?{name}"
    instead = f"{value}.value()" if copy.source.message_type is not None else f"{value}.orValue({_zero(copy.source)})"
    then = "which undoes the run when it is unset" if copy.source.message_type is not None else "or another value there"
    if copy.entry is None or (copy.target is not None and copy.target.is_required):
        return f"Write `{instead}`, {then}."
    return f"Write `?{copy.entry.field_key}: {value}` to leave it unset as well, or `{instead}`, {then}."


def _zero(source: FieldDescriptor) -> str:
    """Return the default of a scalar in CEL's syntax."""
    if source.enum_type is not None:
        return "0"
    written = {
        FieldDescriptor.CPPTYPE_STRING: "b''" if source.type == FieldDescriptor.TYPE_BYTES else "''",
        FieldDescriptor.CPPTYPE_BOOL: "false",
        FieldDescriptor.CPPTYPE_UINT32: "0u",
        FieldDescriptor.CPPTYPE_UINT64: "0u",
        FieldDescriptor.CPPTYPE_FLOAT: "0.0",
        FieldDescriptor.CPPTYPE_DOUBLE: "0.0",
    }
    return written.get(source.cpp_type, "0")


def _has_default(source: FieldDescriptor) -> bool:
    """Return whether the contract defines the meaning of the unset field."""
    return source.message_type is None and source.has_default_value and source.containing_oneof is None


def _keeps_presence(source: FieldDescriptor, target: FieldDescriptor) -> bool:
    """Return whether both are scalars that record whether they were set, and none is an arm of a oneof."""
    return (
        source.message_type is None
        and target.message_type is None
        and target.has_presence
        and not target.is_required
        and real_oneof(source) is None
        and real_oneof(target) is None
    )


def _same_oneof(flow: Flow, arms: Arms) -> bool:
    """Return whether the arms copy the arms of another oneof, each as optional: then at most one is set."""
    seen = set[tuple[str | None, str | None]]()
    names = set[str]()
    for entry in arms.entries:
        value = entry.value
        if not entry.optional_entry or not value.HasField("call_expr") or value.call_expr.function != "_?._":
            return False
        source = flow.source(value, {})
        name = value.call_expr.args[1].const_expr.string_value
        outer = path_of(value.call_expr.args[0])
        if outer is None or name in names:
            return False
        names.add(name)
        seen.add((outer, real_oneof(source)))
    return len(seen) == 1 and None not in next(iter(seen))


def _implies(holds: frozenset[tuple[bytes, bool]], skipped: StepModel) -> bool:
    """Return whether a step has not been skipped where these conditions hold: they contain all parts of its own."""
    theirs = _condition(skipped)
    return theirs is not None and holding(theirs, True) <= holds


def _is_redacted(flow: Flow, node: Any) -> bool:
    while True:
        source: FieldDescriptor | None = flow.source(node, {})
        if is_redacted(source):
            return True
        if node.HasField("select_expr"):
            node = node.select_expr.operand
        elif node.HasField("call_expr") and node.call_expr.function in ("_?._", "_[_]", "_[?_]"):
            node = node.call_expr.args[0]
        else:
            return False


@cache
def _matcher() -> cel.Expression:
    return cel.NewEnv(variables={"pattern": cel.Type.STRING}).compile("''.matches(pattern)")


def _pattern_error(pattern: str) -> str | None:
    try:
        value = _matcher().eval(data={"pattern": pattern})
    except Exception as error:  # the binding raises any class
        return str(error)[:120]
    if value.type() != cel.Type.ERROR:
        return None
    return str(value.value()).partition("expression: ")[2].partition(" [")[0][:120] or "RE2 refuses it"


def element_type(model: Model) -> Iterator[Finding]:
    """Report elements of lists and maps of several types that do not fit: CEL calls such a list one of anything."""
    for _, expression, flow in flows(model):
        for node, field in flow.misfits:
            offset, width = flow.place(node)
            message = f"The element is of type {flow.checked.type_of(node)}, not {written_type(field)}."
            hint = "Give it a value of that type; convert numbers with int(), uint(), double() or string()."
            yield at(expression.node, offset, width, codes.EXPRESSION_TYPE, message, hint)


RULES: tuple[Rule, ...] = (
    element_type,
    presence_lost,
    oneof_lost,
    field_twice,
    skipped_step,
    redaction_lost,
    any_copied,
    required_missing,
    bad_pattern,
)
