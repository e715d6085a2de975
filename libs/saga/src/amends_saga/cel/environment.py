"""Compiles expressions against a saga's pool, and describes faults in words, at the right character.

One environment for each saga knows the type of every variable. Which variables are in scope is checked afterwards on
the syntax tree, so that the finding can say why. Called by the analysis and by `load_bundle`.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from cel_expr_python import cel  # type: ignore[import-untyped]
from cel_expr_python.ext import ext_optional  # type: ignore[import-untyped]
from google.protobuf.descriptor_pool import DescriptorPool

from amends_saga.cel.patterns import states
from amends_saga.cel.syntax import read_checked
from amends_saga.cel.types import DYN, Type, read_type

MAX_BYTES = 16 * 1024
MAX_NODES = 1_000
MAX_COMPREHENSIONS = 1
MAX_STATES = 2_000
"""The most states of all regular expressions of an expression together, see `patterns`."""
ROUNDS = 10
"""How many times a regular expression counts if it is matched with each element of a list."""
NEEDLE = 1_000
"""States that a search for a computed text counts as: both texts may be long."""
MAX_PROBLEMS = 20
"""The most mistakes that are reported for one expression."""
ANYTHING = "dyn"
"""The type of a variable whose message is not known: every use of it is accepted."""
_DOUBLING = re.compile(r"\bopt(?:Flat)?Map\b")
"""Macros that repeat their target: in a chain of them each one doubles the work of the parser."""
_ERROR = re.compile(r"ERROR: <input>:(-?\d+):(-?\d+): (.*)")
_FIELD = re.compile(r"undefined field '([^']*)' not found in struct '([^']*)'")
_NAME = re.compile(r"undeclared reference to '([^']*)'")
_FIELD_TYPE = re.compile(r"expected type of field '([^']*)' is '(.*)' but provided type is '(.*)'$")
_OVERLOAD = re.compile(r"found no matching overload for '([^']*)' applied to '(.*)'$")
OWN = {"amends.definition.v1.Input": "The saga's input", "amends.definition.v1.Run": "`saga`"}
"""The words for messages whose names nobody wrote."""
_WORD = re.compile(r"\w+")
_VALUE = re.compile(r"(\w+(?:\.\w+)*)\.(\w+)")
_NO_VALUE = "'type(*error*)' cannot be the operand"
"""What CEL says to a name behind that of an enum, if the enum has no such value."""
_WRAPPED = "'wrapper("
_BRACKETS = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[(){}\[\]]")
_CLOSING = {"(": ")", "{": "}", "[": "]"}
RESERVED = frozenset(
    {
        *("in", "true", "false", "null", "as", "break", "const", "continue", "else", "for", "function", "if", "import"),
        *("let", "loop", "package", "namespace", "return", "var", "void", "while"),
    }
)
"""Reserved words of CEL: they cannot be names."""
_OPERATORS = {"_?_:_": "? :", "!_": "!", "-_": "-", "@in": "in", "_[_]": "[ ]", "_[?_]": "[? ]"}


class ProblemKind(StrEnum):
    """The kind of a mistake in an expression."""

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
    """The message that has no such field, or the enum without such a value; empty for other names."""
    hint: str = ""
    """How to mend it, where CEL's message alone says."""


@dataclass(frozen=True)
class Checked:
    """An expression that has a type: its tree, with a type, reference and position for each node."""

    text: str
    proto: Any
    """The `cel.expr.CheckedExpr`."""
    compiled: cel.Expression
    type_names: frozenset[int]
    """Identifiers that name a type or an enum value and no variable."""
    free: Mapping[str, int]
    """Names that the expression does not bind itself, each with the offset of its first use."""
    literals: frozenset[str]
    """Full names of the messages that it makes, and of the types and enum values that it names."""
    type: Type
    comprehension: Any = None
    """The one comprehension there is, None when there is none."""
    parts: int = 0
    """How many nodes it has."""
    states: int = 0
    """About how many states its regular expressions have, and what counts like them."""

    @property
    def root(self) -> Any:
        """Return the outermost node of the tree."""
        return self.proto.expr

    def type_of(self, node: Any) -> Type:
        """Return the type of a node."""
        types = self.proto.type_map
        return read_type(types[node.id]) if node.id in types else DYN

    def offset(self, node: int) -> int:
        """Return where a node stands, in code points of the text."""
        return int(self.proto.source_info.positions.get(node, 0))


@dataclass
class Environment:
    """A pool and its variables: names to full message names."""

    pool: DescriptorPool
    variables: Mapping[str, str]
    _environments: dict[str, cel.Env] = field(default_factory=dict)
    _known: dict[tuple[str, str], Checked | list[Problem]] = field(default_factory=dict)

    def compile(self, text: str, container: str) -> Checked | list[Problem]:
        """Return the typed expression, or all of its mistakes; never raises.

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
        optional_maps = list(_DOUBLING.finditer(text))
        if len(optional_maps) > MAX_COMPREHENSIONS:
            at = optional_maps[MAX_COMPREHENSIONS].start()
            return [Problem(ProblemKind.TOO_COMPLEX, at, 6, "The expression has more than one optMap or optFlatMap.")]
        try:
            compiled = self.environment(container).compile(text)
            proto = read_checked(compiled.serialize())
        except Exception as error:  # the binding raises RuntimeError, TypeError or ValueError
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


def selected(node: Any) -> tuple[Any, tuple[str, ...]]:
    """Return the node that fields are selected from, and the names of these fields; empty for other nodes."""
    names: list[str] = []
    while node.WhichOneof("kind") == "select_expr":
        names.append(node.select_expr.field)
        node = node.select_expr.operand
    return node, tuple(reversed(names))


@dataclass
class _Survey:
    """The result of one walk over the tree."""

    loops: list[Any] = field(default_factory=list)
    free: dict[str, int] = field(default_factory=dict)
    type_names: set[int] = field(default_factory=set)
    literals: set[str] = field(default_factory=set)
    count: int = 0
    states: int = 0
    needles: int = 0
    computed: list[Any] = field(default_factory=list)
    """Regular expressions that are not written out."""

    def walk(self, proto: Any) -> None:
        """Visit every node."""
        waiting = [(proto.expr, frozenset[str]())]
        while waiting:
            node, bound = waiting.pop()
            self.count += 1
            kind = node.WhichOneof("kind")
            if kind == "ident_expr":
                self._ident(proto, node, bound)
            elif kind == "comprehension_expr":
                self.loops.append(node)
                inner = node.comprehension_expr
                now = bound | {inner.iter_var, inner.iter_var2, inner.accu_var}
                waiting += [(inner.iter_range, bound), (inner.accu_init, bound)]
                waiting += [(part, now) for part in (inner.loop_condition, inner.loop_step, inner.result)]
            elif kind != "const_expr":
                if kind == "struct_expr":
                    self.literals.add(node.struct_expr.message_name)
                elif kind == "call_expr" and node.call_expr.args:
                    self._searches(node.call_expr.function, node.call_expr.args[-1], ROUNDS if bound else 1)
                waiting += [(child, bound) for child in children(node)]

    def _searches(self, function: str, node: Any, rounds: int) -> None:
        """Count the cost of a search for `node`."""
        written = node.const_expr.HasField("string_value")
        if function == "contains" and not written:
            self.needles += 1
        elif function == "matches" and written:
            self.states += rounds * states(node.const_expr.string_value)
        elif function == "matches":
            self.computed.append(node)

    def _ident(self, proto: Any, node: Any, bound: frozenset[str]) -> None:
        name, id_ = node.ident_expr.name, node.id
        if name in bound:
            return
        constant = id_ in proto.reference_map and proto.reference_map[id_].HasField("value")
        if constant or (id_ in proto.type_map and proto.type_map[id_].HasField("type")):
            self.type_names.add(id_)
            self.literals |= {name, name.rpartition(".")[0]}
            return
        offset = proto.source_info.positions.get(id_, 0)
        self.free[name] = min(self.free.get(name, offset), offset)


def _checked(text: str, proto: Any, compiled: cel.Expression) -> Checked | list[Problem]:
    survey = _Survey()
    survey.walk(proto)
    if len(survey.loops) > MAX_COMPREHENSIONS:
        at = max((proto.source_info.positions.get(node.id, 0) for node in survey.loops), default=0)
        message = (
            f"The expression has {len(survey.loops)} comprehensions (map, filter, all, exists, optMap), "
            "it may have one."
        )
        hint = "Filter and map at once with `list.map(x, condition, value)`, or let the participant compute this."
        return [Problem(ProblemKind.TOO_COMPLEX, at, 1, message, hint=hint)]
    if survey.count > MAX_NODES:
        return [Problem(ProblemKind.TOO_COMPLEX, 0, 1, f"The expression has more than {MAX_NODES:,} parts.")]
    costly = _patterns(proto, survey)
    if costly:
        return costly
    root = proto.expr.id
    return Checked(
        text=text,
        proto=proto,
        compiled=compiled,
        type_names=frozenset(survey.type_names),
        free=survey.free,
        literals=frozenset(survey.literals),
        type=read_type(proto.type_map[root]) if root in proto.type_map else DYN,
        comprehension=survey.loops[0].comprehension_expr if survey.loops else None,
        parts=survey.count,
        states=survey.states + NEEDLE * survey.needles,
    )


def _patterns(proto: Any, survey: _Survey) -> list[Problem]:
    """Return findings about the cost of regular expressions."""
    if survey.computed:
        message = "A regular expression must be written out: what a run brings may cost anything."
        places = [proto.source_info.positions.get(node.id, 0) for node in survey.computed]
        return [Problem(ProblemKind.TOO_COMPLEX, at, 1, message) for at in places]
    if survey.states > MAX_STATES:
        message = f"The regular expressions have about {survey.states:,} states, more than {MAX_STATES:,}."
        return [Problem(ProblemKind.TOO_COMPLEX, 0, 1, message)]
    return []


def _problems(text: str, error: str) -> list[Problem]:
    found = [
        _problem(text, int(m[1]), int(m[2]), m[3].removesuffix(" [INVALID_ARGUMENT]")) for m in _ERROR.finditer(error)
    ]
    if found and found[0].kind is ProblemKind.SYNTAX:
        return found[:1]  # later errors of the parser follow from the first
    if found:  # a type `*error*` is that of a part that has been reported
        own = [problem for problem in found if "'*error*'" not in problem.message]
        return list(dict.fromkeys(own or found))[:MAX_PROBLEMS]
    if "recursion" in error:
        return [Problem(ProblemKind.TOO_COMPLEX, 0, 1, "The expression is nested deeper than 32.")]
    return [Problem(ProblemKind.SYNTAX, 0, 1, f"The expression cannot be compiled: {error.splitlines()[0][:200]}.")]


def _problem(text: str, line: int, column: int, message: str) -> Problem:
    if line < 1:
        return Problem(ProblemKind.TOO_COMPLEX, 0, 1, "The expression is nested deeper than 32.")
    offset = sum(len(part) + 1 for part in text.split("\n")[: line - 1]) + column - 1
    if message.startswith(("Syntax error", "reserved identifier")):
        return _syntax_problem(text, offset, message)
    if match := _FIELD.search(message):
        at = locate(text, offset, match[1])
        owner = OWN.get(match[2], f"`{match[2]}`")
        words = f"{owner} has no field `{match[1]}`."
        return Problem(ProblemKind.UNKNOWN_NAME, at, len(match[1]), words, match[1], match[2])
    if match := _NAME.search(message):
        root = match[1].split(".")[0]
        at = locate(text, offset, root)
        return Problem(ProblemKind.UNKNOWN_NAME, at, len(root), f"Nothing is called `{match[1]}` here.", match[1])
    if match := _FIELD_TYPE.search(message):
        words = f"Field `{match[1]}` is of type {match[2]}, the value of type {match[3]}."
        return Problem(ProblemKind.TYPE, locate(text, offset, match[1]), len(match[1]), words)
    if message.startswith("has() argument"):
        hint = "Write `has(message.field)`: only a field can be unset."
        return Problem(ProblemKind.TYPE, offset, 1, "`has()` asks for a field of a message.", hint=hint)
    if _WRAPPED in message:
        words = "CEL reads a wrapper such as google.protobuf.StringValue as the value in it."
        return Problem(ProblemKind.TYPE, offset, 1, words, hint="Leave the field out: it is the value already.")
    if _NO_VALUE in message and (match := _around(text, offset)) is not None:
        name = match[2]
        words = f"`{match[1]}` has no value `{name}`."
        return Problem(ProblemKind.UNKNOWN_NAME, match.start(2), len(name), words, name, match[1])
    if match := _OVERLOAD.search(message):
        name = _OPERATORS.get(match[1], match[1].strip("_"))
        return Problem(ProblemKind.TYPE, offset, 1, f"`{name}` cannot be applied to {match[2]}.")
    return Problem(ProblemKind.TYPE, offset, 1, f"{message[:1].upper()}{message[1:300].rstrip('.')}.")


def _syntax_problem(text: str, offset: int, message: str) -> Problem:
    if "<EOF>" in message and offset >= len(text.rstrip()):
        closing = _unclosed(text)
        words = f"`{closing}` is missing at the end." if closing else "The expression ends too early."
        return Problem(ProblemKind.SYNTAX, max(0, len(text.rstrip()) - 1), 1, words)
    word = _WORD.match(text, offset)
    if word is not None and word[0] in RESERVED:
        words = f"`{word[0]}` is a word of CEL."
        return Problem(ProblemKind.SYNTAX, offset, len(word[0]), words, word[0])
    short = re.sub(r" expecting \{.*", "", message).removeprefix("Syntax error: ")[:200]
    return Problem(ProblemKind.SYNTAX, offset, 1, f"The expression cannot be parsed: {short}.")


def _around(text: str, offset: int) -> re.Match[str] | None:
    """Return the name with its enum around an offset."""
    return next((match for match in _VALUE.finditer(text) if match.start() <= offset < match.end()), None)


def _unclosed(text: str) -> str:
    """Return the bracket that is missing at the end of an expression, empty when none is."""
    waiting: list[str] = []
    for found in _BRACKETS.finditer(text):
        if found[0] in _CLOSING:
            waiting.append(_CLOSING[found[0]])
        elif waiting and found[0] == waiting[-1]:
            waiting.pop()
    return waiting[-1] if waiting else ""


def locate(text: str, offset: int, name: str) -> int:
    """Return where `name` stands nearest to `offset`: CEL reports the dot or colon beside it."""
    best: int | None = None
    start = text.find(name) if name else -1
    while start >= 0:
        end = start + len(name)
        whole = not _in_word(text[start - 1 : start]) and not _in_word(text[end : end + 1])
        if whole and (best is None or abs(start - offset) < abs(best - offset)):
            best = start
        start = text.find(name, start + 1)
    return offset if best is None else best


def _in_word(character: str) -> bool:
    return character.isalnum() or character == "_"
