"""Compiles expressions against a saga's pool, and says what is wrong with them in words and at the right character.

One environment per saga knows the type of every variable; what is in scope where is checked afterwards, on the syntax
tree, so that the finding can say why. Called by the analysis and by `load_bundle`.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from cel_expr_python import cel  # type: ignore[import-untyped]
from cel_expr_python.ext import ext_optional  # type: ignore[import-untyped]
from google.protobuf.descriptor_pool import DescriptorPool

from amends_saga.cel.syntax import read_checked
from amends_saga.cel.types import DYN, Type, read_type

MAX_BYTES = 1_024
MAX_NODES = 1_000
MAX_COMPREHENSIONS = 1
ANYTHING = "dyn"
"""The type of a variable whose message is not known: every use of it is accepted."""
_ERROR = re.compile(r"ERROR: <input>:(-?\d+):(-?\d+): (.*)")
_FIELD = re.compile(r"undefined field '([^']*)' not found in struct '([^']*)'")
_NAME = re.compile(r"undeclared reference to '([^']*)'")
_FIELD_TYPE = re.compile(r"expected type of field '([^']*)' is '(.*)' but provided type is '(.*)'$")
_OVERLOAD = re.compile(r"found no matching overload for '([^']*)' applied to '(.*)'$")
_OPERATORS = {"_?_:_": "? :", "!_": "!", "-_": "-", "@in": "in", "_[_]": "[ ]", "_[?_]": "[? ]"}


class ProblemKind(StrEnum):
    """What sort of mistake an expression holds."""

    SYNTAX = "syntax"
    UNKNOWN_NAME = "unknown name"
    TYPE = "type"
    TOO_COMPLEX = "too complex"


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: where in the expression's text (code points from 0), and what."""

    kind: ProblemKind
    offset: int
    width: int
    message: str
    name: str = ""
    """The name that is unknown, for a suggestion."""
    struct: str = ""
    """The message that has no such field; empty for other names."""


@dataclass(frozen=True)
class Checked:
    """An expression that has a type: its tree, and for each node type, reference and position."""

    text: str
    proto: Any
    """The `cel.expr.CheckedExpr`."""
    compiled: cel.Expression
    types: Mapping[int, Type]
    constants: Mapping[int, Any]
    """For identifiers that are constants (enum values), their value."""
    type_names: frozenset[int]
    """Identifiers that name a type or an enum value and no variable."""
    positions: Mapping[int, int]
    free: Mapping[str, int]
    """Names that the expression does not bind itself, each with the offset of its first use."""
    type: Type
    comprehension: Any = None
    """The one comprehension there is, None when there is none."""

    @property
    def root(self) -> Any:
        """The outermost node."""
        return self.proto.expr

    def offset(self, node: int) -> int:
        """Return where a node stands, in code points of the text."""
        return self.positions.get(node, 0)


@dataclass
class Environment:
    """A pool and its variables: names to full message names."""

    pool: DescriptorPool
    variables: Mapping[str, str]
    _environments: dict[str, cel.Env] = field(default_factory=dict)
    _known: dict[tuple[str, str], Checked | list[Problem]] = field(default_factory=dict)

    def compile(self, text: str, container: str) -> Checked | list[Problem]:
        """Return the expression with its types, or everything that is wrong with it; never raises.

        `container` is the protobuf package whose messages need no prefix.
        """
        key = (text, container)
        if key not in self._known:
            self._known[key] = self._compile(text, container)
        return self._known[key]

    def environment(self, container: str) -> cel.Env:
        """Return cel-expr-python's environment for a container."""
        if container not in self._environments:
            self._environments[container] = cel.NewEnv(
                descriptor_pool=self.pool,
                variables={
                    name: cel.Type.DYN if type_ == ANYTHING else cel.Type(type_)
                    for name, type_ in self.variables.items()
                },
                extensions=[ext_optional.ExtOptional()],
                container=container,
            )
        return self._environments[container]

    def _compile(self, text: str, container: str) -> Checked | list[Problem]:
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            return [Problem(ProblemKind.SYNTAX, 0, 1, "The expression holds half of a character.")]
        if size > MAX_BYTES:
            message = f"The expression has {size:,} bytes, more than {MAX_BYTES:,}."
            return [Problem(ProblemKind.TOO_COMPLEX, 0, 1, message)]
        try:
            compiled = self.environment(container).compile(text)
            proto = read_checked(compiled.serialize())
        except Exception as error:  # the binding raises RuntimeError, TypeError or ValueError, as it likes
            return _problems(text, str(error))
        return _checked(text, proto, compiled)


def children(node: Any) -> Iterator[Any]:
    """Yield the nodes directly below a node."""
    kind = node.WhichOneof("kind")
    if kind == "select_expr":
        yield node.select_expr.operand
    elif kind == "call_expr":
        if node.call_expr.HasField("target"):
            yield node.call_expr.target
        yield from node.call_expr.args
    elif kind == "list_expr":
        yield from node.list_expr.elements
    elif kind == "struct_expr":
        for entry in node.struct_expr.entries:
            if entry.HasField("map_key"):
                yield entry.map_key
            yield entry.value
    elif kind == "comprehension_expr":
        inner = node.comprehension_expr
        yield from (inner.iter_range, inner.accu_init, inner.loop_condition, inner.loop_step, inner.result)


def _survey(root: Any, type_names: set[int], positions: Mapping[int, int]) -> tuple[list[Any], dict[str, int], int]:
    """Return the comprehensions, the names that are not bound with their first offset, and the number of nodes."""
    loops: list[Any] = []
    free: dict[str, int] = {}
    count = 0
    waiting = [(root, frozenset[str]())]
    while waiting:
        node, bound = waiting.pop()
        count += 1
        kind = node.WhichOneof("kind")
        if kind == "ident_expr":
            name = node.ident_expr.name
            if name not in bound and node.id not in type_names:
                offset = positions.get(node.id, 0)
                free[name] = min(free.get(name, offset), offset)
        elif kind == "comprehension_expr":
            loops.append(node)
            inner = node.comprehension_expr
            now = bound | {inner.iter_var, inner.iter_var2, inner.accu_var}
            waiting += [(inner.iter_range, bound), (inner.accu_init, bound)]
            waiting += [(part, now) for part in (inner.loop_condition, inner.loop_step, inner.result)]
        elif kind != "const_expr":
            waiting += [(child, bound) for child in children(node)]
    return loops, free, count


def _checked(text: str, proto: Any, compiled: cel.Expression) -> Checked | list[Problem]:
    positions = {entry.key: entry.value for entry in proto.source_info.positions}
    constants, names = {}, set[int]()
    types = {entry.key: read_type(entry.value) for entry in proto.type_map}
    for entry in proto.reference_map:
        value = entry.value.value
        if entry.value.HasField("value"):
            constants[entry.key] = value.int64_value if value.HasField("int64_value") else None
            names.add(entry.key)
        elif types.get(entry.key, DYN).name == "type":
            names.add(entry.key)
    loops, free, count = _survey(proto.expr, names, positions)
    if len(loops) > MAX_COMPREHENSIONS:
        at = max((positions.get(node.id, 0) for node in loops), default=0)
        message = f"The expression has {len(loops)} comprehensions (map, filter, all, exists, optMap), it may have one."
        return [Problem(ProblemKind.TOO_COMPLEX, at, 1, message)]
    if count > MAX_NODES:
        return [Problem(ProblemKind.TOO_COMPLEX, 0, 1, f"The expression has more than {MAX_NODES:,} parts.")]
    return Checked(
        text=text,
        proto=proto,
        compiled=compiled,
        types=types,
        constants=constants,
        type_names=frozenset(names),
        positions=positions,
        free=free,
        type=types.get(proto.expr.id, DYN),
        comprehension=loops[0].comprehension_expr if loops else None,
    )


def _problems(text: str, error: str) -> list[Problem]:
    found = [
        _problem(text, int(m[1]), int(m[2]), m[3].removesuffix(" [INVALID_ARGUMENT]")) for m in _ERROR.finditer(error)
    ]
    if found:
        return list(dict.fromkeys(found))
    if "recursion" in error:
        return [Problem(ProblemKind.TOO_COMPLEX, 0, 1, "The expression is nested deeper than 32.")]
    return [Problem(ProblemKind.SYNTAX, 0, 1, f"The expression cannot be compiled: {error.splitlines()[0][:200]}.")]


def _problem(text: str, line: int, column: int, message: str) -> Problem:
    if line < 1:
        return Problem(ProblemKind.TOO_COMPLEX, 0, 1, "The expression is nested deeper than 32.")
    offset = sum(len(part) + 1 for part in text.split("\n")[: line - 1]) + column - 1
    if message.startswith(("Syntax error", "reserved identifier")):
        short = re.sub(r" expecting \{.*", "", message).removeprefix("Syntax error: ")[:200]
        return Problem(ProblemKind.SYNTAX, offset, 1, f"The expression cannot be parsed: {short}.")
    if match := _FIELD.search(message):
        at = locate(text, offset, match[1])
        words = f"`{match[2]}` has no field `{match[1]}`."
        return Problem(ProblemKind.UNKNOWN_NAME, at, len(match[1]), words, match[1], match[2])
    if match := _NAME.search(message):
        root = match[1].split(".")[0]
        at = locate(text, offset, root)
        return Problem(ProblemKind.UNKNOWN_NAME, at, len(root), f"Nothing is called `{match[1]}` here.", match[1])
    if match := _FIELD_TYPE.search(message):
        words = f"Field `{match[1]}` is of type {match[2]}, the value of type {match[3]}."
        return Problem(ProblemKind.TYPE, locate(text, offset, match[1]), len(match[1]), words)
    if match := _OVERLOAD.search(message):
        name = _OPERATORS.get(match[1], match[1].strip("_"))
        return Problem(ProblemKind.TYPE, offset, 1, f"`{name}` cannot be applied to {match[2]}.")
    return Problem(ProblemKind.TYPE, offset, 1, f"{message[:1].upper()}{message[1:300].rstrip('.')}.")


def locate(text: str, offset: int, name: str) -> int:
    """Return where `name` stands nearest to `offset`: CEL points at the dot or colon beside it."""
    best: int | None = None
    for match in re.finditer(rf"(?<![\w]){re.escape(name)}(?![\w])", text):
        if best is None or abs(match.start() - offset) < abs(best - offset):
            best = match.start()
    return offset if best is None else best
