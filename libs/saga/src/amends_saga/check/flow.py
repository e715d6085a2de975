"""Follows values through an expression: which field is copied to which, and which fields are known to be set there.

It walks the checked tree, so that brackets, conditions and comprehensions have the same meaning as in CEL. Called by
the rules of `dataloss` and `numbers`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool

from amends_saga.analysis import Expression
from amends_saga.cel import Checked
from amends_saga.cel.environment import children, locate
from amends_saga.cel.types import Type

_PASSING = frozenset({"_+_", "string", "bytes", "value", "_[_]", "_[?_]", "or"})
"""Calls whose result still holds what they were given."""
_SCALARS = {
    FieldDescriptor.CPPTYPE_BOOL: "bool",
    FieldDescriptor.CPPTYPE_DOUBLE: "double",
    FieldDescriptor.CPPTYPE_ENUM: "int",
    FieldDescriptor.CPPTYPE_FLOAT: "double",
    FieldDescriptor.CPPTYPE_INT32: "int",
    FieldDescriptor.CPPTYPE_INT64: "int",
    FieldDescriptor.CPPTYPE_STRING: "string",
    FieldDescriptor.CPPTYPE_UINT32: "uint",
    FieldDescriptor.CPPTYPE_UINT64: "uint",
}
"""CEL's types of fields; a field of bytes has the C++ type of a string."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A value that goes into a message field (`target`), from a field (`source`) or computed (None)."""

    node: Any
    source: FieldDescriptor | None
    path: str | None
    """The way to the source, e.g. `input.lines[0].price`; None when it is computed."""
    target: FieldDescriptor | None
    """None for the whole request, and for elements of no field."""
    known: bool
    """True when the source is known to be set here."""
    certain: bool
    """True when the copy is made in every run."""
    direct: bool
    """True when the value is the field itself; False when it went through `+` and the like."""
    hidden: bool
    """True when the target, or a message around it, is redacted."""
    entry: Any = None
    """The entry of a message literal that it is the whole value of, None when there is none."""


@dataclass(frozen=True, slots=True)
class VariableUse:
    """A variable that is read, and whether its value is known to be meaningful there."""

    name: str
    node: Any
    guarded: bool
    holds: frozenset[tuple[bytes, bool]] = frozenset()
    """What is known to be true or false there, see `holding`."""


@dataclass(frozen=True, slots=True)
class Arms:
    """Several fields of one oneof that one message literal sets."""

    node: Any
    entries: tuple[Any, ...]
    name: str


@dataclass(frozen=True, slots=True)
class _At:
    """The position of the walk: what is known there, and where the value goes."""

    facts: frozenset[str]
    holds: frozenset[tuple[bytes, bool]] = frozenset()
    certain: bool = True
    copying: bool = False
    direct: bool = True
    flows: bool = False
    target: FieldDescriptor | None = None
    hidden: bool = False
    probing: bool = False
    bound: Mapping[str, FieldDescriptor | None] = field(default_factory=dict)

    def under(self, condition: Any, holds: bool) -> "_At":
        """Return the same position where a condition is known to be true, or to be false."""
        return replace(self, facts=self.facts | facts(condition, holds), holds=self.holds | holding(condition, holds))

    def aside(self) -> "_At":
        """Return the same position for a value that is only read, not copied."""
        return _At(self.facts, self.holds, self.certain, direct=self.direct, hidden=self.hidden, bound=self.bound)


@dataclass
class Flow:
    """The result of the walk through one expression."""

    checked: Checked
    pool: DescriptorPool
    copies: list[Copy] = field(default_factory=list)
    uses: list[VariableUse] = field(default_factory=list)
    arms: list[Arms] = field(default_factory=list)
    doubled: list[Any] = field(default_factory=list)
    """Entries of message literals that set a field for the second time."""
    missing: list[tuple[Any, FieldDescriptor]] = field(default_factory=list)
    """Message literals without a field that their contract calls `required`."""
    patterns: list[Any] = field(default_factory=list)
    """Constant regular expressions."""
    misfits: list[tuple[Any, FieldDescriptor]] = field(default_factory=list)
    """Elements of lists and maps whose type is not that of the field, or of the map's key or value."""
    _entries: dict[int, Any] = field(default_factory=dict)
    """Entries of message literals by the node of their value."""

    def place(self, node: Any) -> tuple[int, int]:
        """Return offset and width of a node's name in the text: CEL reports the dot before it."""
        offset = self.checked.offset(node.id)
        name = _name_of(node)
        return (locate(self.checked.text, offset, name), len(name)) if name else (offset, 1)

    def source(self, node: Any, bound: Mapping[str, FieldDescriptor | None]) -> FieldDescriptor | None:
        """Return the field that a node's value is read from directly, None when it is computed."""
        if node.HasField("select_expr"):
            return self.field_of(self._message(node.select_expr.operand), node.select_expr.field)
        if node.HasField("ident_expr"):
            return bound.get(node.ident_expr.name)
        if node.HasField("call_expr"):
            call = node.call_expr
            if call.function == "_?._" and len(call.args) == 2:
                return self.field_of(self._message(call.args[0]), call.args[1].const_expr.string_value)
            if call.function in ("_[_]", "_[?_]") and call.args:
                return self.source(call.args[0], bound)
        return None

    def field_of(self, message: str, name: str) -> FieldDescriptor | None:
        """Return a field of a message, None when there is no such message or field."""
        found = self._descriptor(message)
        return found.fields_by_name.get(name) if found is not None else None

    def _descriptor(self, message: str) -> Descriptor | None:
        try:
            return self.pool.FindMessageTypeByName(message)
        except KeyError:
            return None

    def _message(self, node: Any) -> str:
        type_ = self.checked.type_of(node)
        while type_.name == "optional" and type_.parameters:
            type_ = type_.parameters[0]
        return type_.name if type_.message else ""

    def walk(self, node: Any, at: _At) -> None:
        """Follow the value of a node."""
        kind = node.WhichOneof("kind")
        if kind == "ident_expr":
            self._ident(node, at)
        elif kind == "const_expr":
            self._leaf(node, at)
        elif kind == "select_expr":
            self._select(node, at)
        elif kind == "call_expr":
            self._call(node, at)
        elif kind == "struct_expr":
            self._struct(node, at)
        elif kind == "list_expr":
            for element in node.list_expr.elements:
                if _map_value(at.target) is None and at.target is not None and at.target.is_repeated:
                    self._element(element, at.target, at)
                self.walk(element, at)
        elif kind == "comprehension_expr":
            self._comprehension(node.comprehension_expr, at)

    def _leaf(self, node: Any, at: _At) -> None:
        if not at.copying and not at.flows:
            return
        path = path_of(node)
        self.copies.append(
            Copy(
                node=node,
                source=self.source(node, at.bound),
                path=path,
                target=at.target,
                known=path is not None and path in at.facts,
                certain=at.certain,
                direct=at.copying and at.direct,
                hidden=at.hidden,
                entry=self._entries.get(node.id),
            )
        )

    def _ident(self, node: Any, at: _At) -> None:
        name = node.ident_expr.name
        if name not in at.bound and node.id not in self.checked.type_names and not name.startswith("@"):
            known = at.probing or any(fact.split(".")[0] == name for fact in at.facts)
            self.uses.append(VariableUse(name, node, known, at.holds))
        if not name.startswith("@"):
            self._leaf(node, at)

    def _select(self, node: Any, at: _At) -> None:
        inner = at.aside()
        if node.select_expr.test_only:
            inner = replace(inner, probing=True)
        else:
            self._leaf(node, at)
        self.walk(node.select_expr.operand, replace(inner, probing=True) if at.probing else inner)

    def _call(self, node: Any, at: _At) -> None:
        call, name = node.call_expr, node.call_expr.function
        if name == "_?_:_" and len(call.args) == 3:
            condition, yes, no = call.args
            self.walk(condition, at.aside())
            for branch, taken in ((yes, True), (no, False)):
                self.walk(branch, replace(at.under(condition, taken), certain=False))
        elif name in ("_&&_", "_||_") and len(call.args) == 2:
            one, other, sign = call.args[0], call.args[1], name == "_&&_"
            self.walk(one, at.aside().under(other, sign))
            self.walk(other, at.aside().under(one, sign))
        elif name in ("_?._", "_[?_]") and call.args:
            if at.flows:  # an optional that is not set sets nothing: no copy of a default, but of a redacted value
                self._leaf(node, replace(at, copying=False))
            self.walk(call.args[0], replace(at.aside(), probing=True))
            for argument in list(call.args)[1:]:
                self.walk(argument, at.aside())
        elif name in ("optional.of", "optional.ofNonZeroValue"):
            copying = at.copying and name == "optional.of"
            for argument in call.args:
                self.walk(argument, replace(at, copying=copying))
        elif name == "orValue" and len(call.args) == 1 and call.HasField("target"):
            self.walk(call.target, replace(at, copying=False))
            self.walk(call.args[0], replace(at, certain=False))
        else:
            self._other_call(node, at)

    def _other_call(self, node: Any, at: _At) -> None:
        call, name = node.call_expr, node.call_expr.function
        lists = name == "_+_" and self.checked.type_of(node).name == "list"
        if name == "matches" and call.args and call.args[-1].const_expr.HasField("string_value"):
            self.patterns.append(call.args[-1])
        if at.copying and not lists:
            self._leaf(node, at)
        inner = at if lists else at.aside()
        if name in _PASSING and not lists:
            inner = replace(inner, flows=at.flows, target=at.target, hidden=at.hidden, direct=False)
        for child in children(node):
            self.walk(child, inner)

    def _struct(self, node: Any, at: _At) -> None:
        literal = node.struct_expr
        if not literal.message_name:
            self._map(literal, at)
            return
        grouped: dict[str, list[Any]] = {}
        seen = set[str]()
        for entry in literal.entries:
            target = self.field_of(literal.message_name, entry.field_key)
            hidden = at.hidden or (is_redacted(target))
            inside = replace(at, copying=True, flows=True, direct=True, target=target, hidden=hidden, probing=False)
            if not entry.optional_entry:
                self._entries[entry.value.id] = entry
            self.walk(entry.value, inside)
            oneof = real_oneof(target)
            if entry.field_key in seen:
                self.doubled.append(entry)
            elif oneof is not None:
                grouped.setdefault(oneof, []).append(entry)
            seen.add(entry.field_key)
        certain = {entry.field_key for entry in literal.entries if not entry.optional_entry}
        message = self._descriptor(literal.message_name)
        for required in message.fields if message is not None else ():
            if required.is_required and required.name not in certain:
                self.missing.append((node, required))
        for name, entries in grouped.items():
            if len(entries) > 1:
                self.arms.append(Arms(node, tuple(entries), name))

    def _map(self, literal: Any, at: _At) -> None:
        value = _map_value(at.target)
        for entry in literal.entries:
            if value is not None and value.containing_type is not None:
                self._element(entry.map_key, value.containing_type.fields_by_name["key"], at)
                self._element(entry.value, value, at)
            self.walk(entry.map_key, at.aside())
            self.walk(entry.value, replace(at, target=value))

    def _element(self, node: Any, target: FieldDescriptor, at: _At) -> None:
        if at.copying and at.direct and not _takes(target, self.checked.type_of(node)):
            self.misfits.append((node, target))

    def _comprehension(self, loop: Any, at: _At) -> None:
        self.walk(loop.iter_range, at.aside())
        self.walk(loop.accu_init, replace(at, direct=False))
        bound = dict(at.bound)
        bound[loop.iter_var] = self.source(loop.iter_range, at.bound)
        bound[loop.accu_var] = None
        if loop.iter_var2:
            bound[loop.iter_var2] = None
        inside = replace(at, certain=False, bound=bound)
        self.walk(loop.loop_condition, inside.aside())
        self.walk(loop.loop_step, inside)
        self.walk(loop.result, replace(inside, direct=False))


def follow(expression: Expression, pool: DescriptorPool, given: frozenset[str], *, certain: bool) -> Flow | None:
    """Return how values flow through an expression, None when it has no type.

    `given` are paths that are known to be set beforehand; `certain` tells that the expression runs in every run.
    """
    checked = expression.checked
    if checked is None:
        return None
    flow = Flow(checked, pool)
    makes = bool(expression.target)
    flow.walk(checked.root, _At(given, certain=certain, copying=makes, flows=makes))
    return flow


def is_redacted(target: FieldDescriptor | None) -> bool:
    """Return whether the contract hides a field from people."""
    return target is not None and target.has_options and target.GetOptions().debug_redact


def path_of(node: Any) -> str | None:
    """Return the path of a value as text, e.g. `input.total`; None when it is computed."""
    if node.HasField("ident_expr"):
        return str(node.ident_expr.name)
    if node.HasField("select_expr"):
        outer = path_of(node.select_expr.operand)
        return None if outer is None else f"{outer}.{node.select_expr.field}"
    if node.HasField("call_expr") and len(node.call_expr.args) == 2:
        outer, constant = path_of(node.call_expr.args[0]), node.call_expr.args[1].const_expr
        if outer is not None and node.call_expr.function == "_?._":
            return f"{outer}.{constant.string_value}"
        if outer is not None and node.call_expr.function in ("_[_]", "_[?_]") and constant.HasField("int64_value"):
            return f"{outer}[{constant.int64_value}]"
    return None


def facts(condition: Any, holds: bool) -> frozenset[str]:
    """Return the paths that are known to be set when a condition is true, or when it is false."""
    if condition.HasField("select_expr"):
        return _prefixes(path_of(condition)) if condition.select_expr.test_only and holds else frozenset()
    if not condition.HasField("call_expr"):
        return frozenset()
    call = condition.call_expr
    if call.function == "!_" and call.args:
        return facts(call.args[0], not holds)
    if call.function in ("_&&_", "_||_") and len(call.args) == 2:
        one, other = facts(call.args[0], holds), facts(call.args[1], holds)
        return one | other if (call.function == "_&&_") == holds else one & other
    if call.function == "hasValue" and holds and call.HasField("target"):
        return _prefixes(path_of(call.target))
    return frozenset()


def holding(condition: Any, holds: bool) -> frozenset[tuple[bytes, bool]]:
    """Return what is known when a condition is true, or when it is false: fingerprints of its parts, true or false.

    `!x`, `x == false` and `x != true` are the part `x` that is false; on which side a constant stands does not matter.
    """
    while condition.HasField("call_expr"):
        call = condition.call_expr
        if call.function == "!_" and call.args:
            condition, holds = call.args[0], not holds
        elif call.function in ("_==_", "_!=_") and any(_is_bool(argument) for argument in call.args):
            value, other = call.args if _is_bool(call.args[0]) else reversed(call.args)
            condition, holds = other, holds == (value.const_expr.bool_value == (call.function == "_==_"))
        else:
            break
    if not condition.HasField("call_expr"):
        return frozenset({(fingerprint(condition), holds)})
    call = condition.call_expr
    if call.function in ("_&&_", "_||_") and (call.function == "_&&_") == holds:
        return frozenset().union(*(holding(argument, holds) for argument in call.args))
    if call.function not in ("_==_", "_!=_"):
        return frozenset({(fingerprint(condition), holds)})
    equal = type(condition)()
    equal.CopyFrom(condition)
    equal.call_expr.function = "_==_"
    if call.args[0].HasField("const_expr"):
        equal.call_expr.args.reverse()
    return frozenset({(fingerprint(equal), holds == (call.function == "_==_"))})


def _is_bool(node: Any) -> bool:
    return bool(node.HasField("const_expr") and node.const_expr.HasField("bool_value"))


def prefixes(path: str) -> frozenset[str]:
    """Return a path and all shorter paths that lead to it."""
    return _prefixes(path)


def _prefixes(path: str | None) -> frozenset[str]:
    if path is None:
        return frozenset()
    parts = path.split(".")
    return frozenset(".".join(parts[: i + 1]) for i in range(len(parts)))


def real_oneof(target: FieldDescriptor | None) -> str | None:
    """Return the name of the oneof of a field; None for `optional` fields, whose oneof nobody wrote."""
    oneof = target.containing_oneof if target is not None else None
    if oneof is None or target is None or (len(oneof.fields) == 1 and oneof.name == f"_{target.name}"):
        return None
    return str(oneof.name)


def _map_value(target: FieldDescriptor | None) -> FieldDescriptor | None:
    message = target.message_type if target is not None else None
    return message.fields_by_name["value"] if message is not None and message.GetOptions().map_entry else None


def written_type(target: FieldDescriptor) -> str:
    """Return what CEL calls the type of a field's elements."""
    if target.message_type is not None:
        return target.message_type.full_name
    return "bytes" if target.type == FieldDescriptor.TYPE_BYTES else _SCALARS[target.cpp_type]


def _takes(target: FieldDescriptor, type_: Type) -> bool:
    """Return whether an element of a type may be one of a field's; True where only a run can tell."""
    if not type_.message and type_.name not in (*_SCALARS.values(), "bytes", "list", "map"):
        return True
    message = target.message_type
    if message is not None and message.full_name.startswith("google.protobuf."):
        return True
    return type_.name == written_type(target)


def _name_of(node: Any) -> str:
    if node.HasField("select_expr"):
        return str(node.select_expr.field)
    if node.HasField("ident_expr"):
        return str(node.ident_expr.name)
    if node.HasField("call_expr") and node.call_expr.function == "_?._":
        return str(node.call_expr.args[1].const_expr.string_value)
    return ""


def fingerprint(node: Any) -> bytes:
    """Return bytes that are equal for expressions that read the same, whatever their spaces and brackets."""
    copy = type(node)()
    copy.CopyFrom(node)
    waiting = [copy]
    while waiting:
        found = waiting.pop()
        found.ClearField("id")
        if found.HasField("struct_expr"):
            for entry in found.struct_expr.entries:
                entry.ClearField("id")
        waiting.extend(children(found))
    return bytes(copy.SerializeToString(deterministic=True))
