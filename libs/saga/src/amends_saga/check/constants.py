"""A rule about parts of expressions that fail whatever a run brings: `1 / 0`, `[a, b][2]`, `duration('1 hour')`.

Parts without variables are evaluated while checking. Of those with variables a division by a constant zero, and the
constant index of a list or map that is written out, are looked at. Called by `checker`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cel_expr_python import cel  # type: ignore[import-untyped]

from amends_saga import codes
from amends_saga.analysis import Expression, Model
from amends_saga.analysis.words import at
from amends_saga.cel.environment import Checked, Environment, children, locate
from amends_saga.cel.syntax import part
from amends_saga.check.rule import Rule
from amends_saga.findings import Finding

_REASONS = {
    "divide by zero": "it divides by zero",
    "modulus by zero": "it divides by zero",
    "index error": "the list has no such element",
    "key not found": "the map has no such key",
    "to duration": "the text is no duration",
    "to timestamp": "the text is no time",
    "cannot convert": "the value cannot be converted",
    "conversion error": "the value cannot be converted",
    "overflow": "the number does not fit",
    "out of": "the number does not fit",
    "malformed utf-8": "the bytes are no text",
    "no matching overloads": "the values have other types than it takes",
    "optional.none": "the optional has no value",
}
_HINTS = {
    "the text is no duration": "Write a number with a unit, such as `duration('90s')` or `duration('1h30m')`.",
    "the text is no time": "Write date, time and zone, such as `timestamp('2026-01-31T12:00:00Z')`.",
    "it divides by zero": "Divide by another number.",
    "the list has no such element": "The first element has the index 0.",
}
_HINT = "Write a value that can be computed."
_CONSTANTS = ("int64_value", "uint64_value", "string_value", "bool_value", "double_value", "bytes_value")


def always_fails(model: Model) -> Iterator[Finding]:
    """Report the innermost parts of expressions that fail whenever they are evaluated."""
    for step in model.steps:
        for expression in step.expressions:
            if expression.checked is not None and model.environment is not None:
                search = _ConstantSearch(expression, expression.checked, model.environment)
                search.visit(expression.checked.root)
                yield from search.found.values()


@dataclass(frozen=True, slots=True)
class _Surveyed:
    """What is known of one part of an expression before it is evaluated."""

    free: frozenset[str] = frozenset()
    """The variables that it reads and does not bind itself."""
    computes: bool = False
    """Something in it can fail."""
    branches: bool = False
    """Something in it may be left out: what fails there does not show when the whole is evaluated."""


class _ConstantSearch:
    """Looks for the innermost parts of one expression that always fail."""

    def __init__(self, expression: Expression, checked: Checked, environment: Environment) -> None:
        self._expression, self._checked = expression, checked
        self._environment = environment.environment(expression.container)
        self._parts: dict[int, _Surveyed] = {}
        self._survey(checked.root)
        self._failures = 0
        self.found: dict[tuple[int, str], Finding] = {}
        """Findings by place and reason: a macro repeats what it is applied to."""

    def visit(self, node: Any) -> None:
        """Look at a part, from the largest ones without variables inwards: most of them do not fail."""
        part_, kind = self._parts[node.id], node.WhichOneof("kind")
        if not part_.computes:
            return
        whole = not part_.free and not part_.branches and self._checked.type_of(node).name != "optional"
        failure = self._failure(node) if whole else ""
        if whole and not failure:
            return
        before = self._failures
        for child in children(node):
            self.visit(child)
        if self._failures > before:
            return
        if part_.free:
            failure = self._with_variables(node) if kind == "call_expr" else ""
        elif not whole:
            failure = self._failure(node)
        message = kind == "struct_expr" and node.struct_expr.message_name
        if failure and not message:  # numbers that do not fit their fields have a rule of their own
            self._report(node, failure)

    def _survey(self, node: Any) -> _Surveyed:
        kind = node.WhichOneof("kind")
        if kind == "ident_expr":
            constant = node.id in self._checked.type_names
            found = _Surveyed(frozenset() if constant else frozenset({node.ident_expr.name}))
        else:
            parts = [self._survey(child) for child in children(node)]
            free = frozenset[str]().union(*(part_.free for part_ in parts))
            if kind == "comprehension_expr":
                loop = node.comprehension_expr
                inner = frozenset[str]().union(*(part_.free for part_ in parts[2:]))
                bound = {loop.iter_var, loop.iter_var2, loop.accu_var}
                free = parts[0].free | parts[1].free | (inner - bound)
            calls = kind in ("call_expr", "select_expr", "comprehension_expr")
            branching = kind == "comprehension_expr" or (
                kind == "call_expr" and node.call_expr.function in ("_||_", "_&&_", "_?_:_", "orValue", "or")
            )
            computes = calls or kind == "struct_expr" or any(part_.computes for part_ in parts)
            found = _Surveyed(free, computes, branching or any(part_.branches for part_ in parts))
        self._parts[node.id] = found
        return found

    def _with_variables(self, node: Any) -> str:
        """Return why a call fails although one of its values is not known, empty when it may succeed."""
        call = node.call_expr
        if len(call.args) != 2 or call.HasField("target") or self._parts[call.args[1].id].free:
            return ""
        if call.function in ("_/_", "_%_") and self._checked.type_of(call.args[1]).name in ("int", "uint"):
            return "it divides by zero" if self._value(call.args[1]) == 0 else ""
        if call.function == "_[_]":
            return self._index(call.args[0], self._value(call.args[1]))
        return ""

    def _index(self, of: Any, index: Any) -> str:
        """Return why a list or map has no element at a constant index, empty when it may have one."""
        if self._checked.type_of(of).name == "list" and isinstance(index, int):
            written = of.WhichOneof("kind") == "list_expr" and not of.list_expr.optional_indices
            inside = index >= 0 and (not written or index < len(of.list_expr.elements))
            return "" if inside else "the list has no such element"
        if of.WhichOneof("kind") != "struct_expr" or of.struct_expr.message_name:
            return ""
        entries = of.struct_expr.entries
        known = all(not entry.optional_entry and entry.map_key.HasField("const_expr") for entry in entries)
        missing = known and all(self._value(entry.map_key) != index for entry in entries)
        return "the map has no such key" if missing else ""

    def _failure(self, node: Any) -> str:
        """Return why a part without variables fails, empty when it does not."""
        if self._checked.type_of(node).name == "optional":  # the binding has no values for them
            return ""
        try:
            value = self._eval(node)
        except Exception:  # the binding raises any class: whether the part fails is not known
            return ""
        if value.type() != cel.Type.ERROR:
            return ""
        text = str(value.value()).lower()
        return next((words for sign, words in _REASONS.items() if sign in text), "it has no value")

    def _value(self, node: Any) -> Any:
        """Return the value of a part without variables that does not fail."""
        for kind in _CONSTANTS:
            if node.const_expr.HasField(kind):
                return getattr(node.const_expr, kind)
        return self._eval(node).plain_value()

    def _eval(self, node: Any) -> Any:
        return self._environment.deserialize(part(self._checked.proto, node)).eval(data={})

    def _report(self, node: Any, failure: str) -> None:
        self._failures += 1
        name = node.call_expr.function if node.WhichOneof("kind") == "call_expr" else ""
        if name == "matches":  # malformed patterns have a code of their own
            return
        offset = self._checked.offset(node.id)
        width = len(name) if name.isidentifier() else 1
        offset = locate(self._checked.text, offset, name) if name.isidentifier() else offset
        message = f"This part fails whenever it is evaluated: {failure}."
        hint = _HINTS.get(failure, _HINT)
        finding = at(self._expression.node, offset, width, codes.ALWAYS_FAILS, message, hint)
        self.found.setdefault((offset, failure), finding)


RULES: tuple[Rule, ...] = (always_fails,)
