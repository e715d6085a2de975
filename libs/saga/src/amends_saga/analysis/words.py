"""Turns CEL's messages about an expression into findings: at the right place in the YAML, with a suggestion.

Called by the analysis.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from amends_saga import codes
from amends_saga.analysis.model import Method
from amends_saga.cel import Environment, Problem, ProblemKind
from amends_saga.cel.environment import OWN
from amends_saga.definition import Node, Saga
from amends_saga.definition.offsets import place_at
from amends_saga.definition.saga_kind import STEP_NAME
from amends_saga.descriptors.inline import INPUT_MESSAGE
from amends_saga.findings import Code, Finding, choices, suggestion

_CODES = {
    ProblemKind.SYNTAX: codes.EXPRESSION_SYNTAX,
    ProblemKind.UNKNOWN_NAME: codes.UNKNOWN_NAME,
    ProblemKind.TYPE: codes.EXPRESSION_TYPE,
    ProblemKind.TOO_COMPLEX: codes.TOO_COMPLEX,
}
_HINTS = {
    ProblemKind.SYNTAX: "Mind brackets, commas and quotes near here.",
    ProblemKind.UNKNOWN_NAME: "Use `input`, `saga`, a step that comes before, or a message of the method's package.",
    ProblemKind.TYPE: "Give it a value of the type that is wanted; convert numbers with int(), uint() or double().",
    ProblemKind.TOO_COMPLEX: "Make it simpler, or let the participant compute this.",
}
_WORD = re.compile(r"\w+")
_FUNCTIONS = (
    *("size", "matches", "contains", "startsWith", "endsWith", "has", "int", "uint", "double", "string", "bytes"),
    *("bool", "timestamp", "duration", "dyn", "type", "map", "filter", "all", "exists", "exists_one", "orValue"),
    *("hasValue", "value", "getFullYear", "getMonth", "getDate", "getHours", "getMinutes", "getSeconds", "optional"),
)


def at(node: Node, offset: int, width: int, code: Code, message: str, hint: str) -> Finding:
    """Return a finding about a part of an expression, by its offset in the text."""
    return Finding(code.id, code.severity, message, hint, place_at(node, offset, width))


@dataclass(frozen=True, slots=True)
class Told:
    """The names of a saga that have a finding already, so that nothing is told about their uses."""

    steps: frozenset[str]
    """Words, in lower case, of names that cannot name a step."""
    doubled: bool
    """True when two steps have one name: a step that nobody knows is then probably one of them."""
    fields: frozenset[str]
    """Fields of an inline input; those that have a type are never unknown."""

    @classmethod
    def of(cls, saga: Saga) -> "Told":
        """Return what the reader and the analysis tell about names."""
        names = [step.name for step in saga.steps if step.name]
        misnamed = (word.lower() for name in names if not STEP_NAME.fullmatch(name) for word in _WORD.findall(name))
        fields = (key.value for key, _ in saga.input_node.pairs)
        return cls(frozenset(misnamed), len(set(names)) < len(names), frozenset(fields))

    def explains(self, problem: Problem, environment: Environment) -> bool:
        """Return whether a problem follows from such a name."""
        if problem.kind is not ProblemKind.UNKNOWN_NAME:
            return False
        if problem.struct:
            return problem.struct == INPUT_MESSAGE and problem.name in self.fields
        root = problem.name.partition(".")[0]
        lost = self.doubled and STEP_NAME.fullmatch(root) and suggestion(root, environment.variables) is None
        return root.lower() in self.steps or bool(lost)


def expression_findings(
    node: Node, problems: Iterable[Problem], environment: Environment, method: Method, target: str, told: Told
) -> Iterator[Finding]:
    """Yield a finding for each problem of an expression, but those that follow from what has been told."""
    for problem in problems:
        if told.explains(problem, environment):
            continue
        hint = problem.hint or _HINTS[problem.kind]
        if problem.kind is ProblemKind.SYNTAX and problem.name:
            hint = f"A field of this name is written in backticks: `` `{problem.name}` ``."
        elif problem.name:
            hint = _meant(problem, environment, method, target) or hint
        yield at(node, problem.offset, problem.width, _CODES[problem.kind], problem.message, hint)


def _values(enum: str, environment: Environment, method: Method) -> list[str]:
    """Return the values of an enum, which an expression names as CEL resolves it: from its package outwards."""
    package = method.package
    while True:
        try:
            return list(environment.pool.FindEnumTypeByName(f"{package}.{enum}" if package else enum).values_by_name)
        except KeyError:
            if not package:
                return []
            package = package.rpartition(".")[0]


def _meant(problem: Problem, environment: Environment, method: Method, target: str) -> str:
    if problem.struct:
        try:
            fields = environment.pool.FindMessageTypeByName(problem.struct).fields_by_name
        except KeyError:
            return choices(problem.name, _values(problem.struct, environment, method))
        many = "The message has many fields: look it up in the contract."
        return choices(problem.name, fields, many if fields else "The message has no fields at all.")
    root, _, rest = problem.name.partition(".")
    types = {type_ for type_ in (target, *environment.variables.values()) if "." in type_ and type_ not in OWN}
    if rest and rest.rpartition(".")[2][:1].isupper():  # a message or enum with its package, and no step
        near = suggestion(problem.name, types | {type_.rpartition(".")[2] for type_ in types})
        return f"Did you mean `{near}`?" if near is not None else ""
    messages = {target.rpartition(".")[2]} if target else set[str]()
    near = suggestion(root, {*environment.variables, *messages, *_FUNCTIONS})
    return f"Did you mean `{near}{'.' + rest if rest else ''}`?" if near is not None and near != root else ""
