"""Runs a checked expression within its limits, with one error class for all of CEL's failures.

CEL reports errors as values of type ERROR, as RuntimeError and as EncodeError. They become ExpressionError, whose text
contains no values of the run. Called by `CompiledSaga`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cel_expr_python import cel  # type: ignore[import-untyped]
from google.protobuf.message import EncodeError, Message

from amends_saga.cel.copying import Made
from amends_saga.cel.environment import Checked, Environment, children, selected
from amends_saga.cel.syntax import counting
from amends_saga.cel.wellknown import to_message
from amends_saga.plan import ExpressionError

MAX_ELEMENTS = 1_000
MAX_RESULT = 1024 * 1024
MAX_WORK = 64 * 1024 * 1024
"""The most bytes that an evaluation may touch, estimated before: uses times sizes times rounds."""
STATES_A_BYTE = 4
"""States of a regular expression that cost as much for a byte as touching it once more."""
_LOOP_VARIABLES = ("@result",)
_SMALL = 16


@dataclass(frozen=True)
class Program:
    """An expression that is ready to run."""

    name: str
    """Its name in errors, e.g. `the request of step charge`."""
    checked: Checked
    uses: frozenset[str]
    """The variables that it reads."""
    count: cel.Expression | None
    """Gives the number of rounds of its comprehension, None when it has none."""
    once: tuple[tuple[str, ...], ...]
    """Each use of a variable outside the comprehension's body: its name and the fields that are selected."""
    rounds: tuple[tuple[str, ...], ...]
    """Each use in it."""
    made: type[Message] | None
    """The class of the message that it gives, None for a condition."""
    simple: Made | None
    """How to make the message without CEL, None when only CEL can."""

    @classmethod
    def of(
        cls, name: str, checked: Checked, environment: Environment, container: str, made: type[Message] | None
    ) -> "Program":
        """Return the program of a checked expression. `made` is the class of its result, None for a condition."""
        once: list[tuple[str, ...]] = []
        rounds: list[tuple[str, ...]] = []
        _find_uses(checked.root, checked, frozenset(), once, rounds)
        count = None
        if checked.comprehension is not None:
            count = environment.environment(container).deserialize(
                counting(checked.proto, checked.comprehension.iter_range)
            )
        uses = frozenset(name for name in checked.free if name in environment.variables)
        simple = Made.of(checked, made, environment) if made is not None else None
        return cls(name, checked, uses, count, tuple(once), tuple(rounds), made, simple)

    def run(self, data: Mapping[str, Message]) -> Any:
        """Return the plain Python value. Raises ExpressionError; `data` has a message for each variable used."""
        turns = 0
        if self.count is not None:
            turns = int(self._evaluate(self.count, data))
            if turns > MAX_ELEMENTS:
                raise ExpressionError(f"{self.name} runs over {turns:,} elements, more than {MAX_ELEMENTS:,}")
        allowed = MAX_WORK // (1 + self.checked.states // STATES_A_BYTE)
        if self._at_most(data, turns) > allowed:  # otherwise no closer look is needed
            body = sum(_size(data, use) for use in self.rounds) if turns else 0
            if sum(_size(data, use) for use in self.once) + turns * body > allowed:
                raise ExpressionError(f"{self.name} would touch more than {allowed // 1024:,} KiB")
        return self._evaluate(self.checked.compiled, data)

    def _at_most(self, data: Mapping[str, Message], turns: int) -> int:
        """Return how many bytes an evaluation could touch, if every use had the largest possible size."""
        return (_SMALL + sum([_size(data, (name,)) for name in self.uses])) * (
            len(self.once) + turns * len(self.rounds)
        )

    def message(self, data: Mapping[str, Message]) -> bytes:
        """Return the message of the expression, serialised deterministically. Raises ExpressionError."""
        found = self._at_once(data)
        if found is None:
            found = self._by_cel(data)
        if len(found) > MAX_RESULT:
            raise ExpressionError(f"{self.name} is larger than {MAX_RESULT // 1024:,} KiB")
        return found

    def _at_once(self, data: Mapping[str, Message]) -> bytes | None:
        """Return the serialised message without asking CEL; None when CEL must evaluate it."""
        if self.simple is None or self._at_most(data, 0) > MAX_WORK:
            return None
        try:
            return serialized(self.simple.value(data))
        except Exception:  # CEL decides: it reports the error, or makes the message
            return None

    def _by_cel(self, data: Mapping[str, Message]) -> bytes:
        assert self.made is not None
        plain = self.run(data)
        try:
            value = to_message(plain, self.made)
            if value is None:
                raise ExpressionError(f"{self.name} gives no message")
            return serialized(value)
        except ExpressionError:
            raise
        except Exception as error:  # EncodeError, ValueError: its text may contain values of the run
            raise ExpressionError(f"{self.name} cannot be serialised") from error

    def condition(self, data: Mapping[str, Message]) -> bool:
        """Return the boolean result of the condition. Raises ExpressionError."""
        value = self.run(data)
        if not isinstance(value, bool):
            raise ExpressionError(f"{self.name} gives no boolean")
        return value

    def _evaluate(self, program: cel.Expression, data: Mapping[str, Message]) -> Any:
        try:
            value = program.eval(data={name: _ReadMessage(data[name]) for name in self.uses})
            if value.type() == cel.Type.ERROR:
                raise ExpressionError(f"{self.name} failed: {_reason(str(value.value()))}")
            return value.plain_value()
        except ExpressionError:
            raise
        except Exception as error:  # the binding raises any class; its text may contain values of the run
            raise ExpressionError(f"{self.name} failed: {_reason(str(error))}") from error


def serialized(message: Message) -> bytes:
    """Return the deterministic bytes of a message. A field may be called like a method, so the class is asked."""
    return type(message).SerializeToString(message, deterministic=True)


class _ReadMessage:
    """A message as cel-expr-python reads it: through two attributes, which may be hidden by fields of these names."""

    __slots__ = ("_message",)

    def __init__(self, message: Message) -> None:
        self._message = message

    @property
    def DESCRIPTOR(self) -> Any:
        """Return the descriptor of the message."""
        return type(self._message).DESCRIPTOR

    def SerializePartialToString(self) -> bytes:
        """Return the bytes of the message, which may lack required fields."""
        return type(self._message).SerializePartialToString(self._message)


_REASONS = {
    "index error": "an index is out of bounds",
    "key not found": "a key is not there",
    "no such key": "a key is not there",
    "divide by zero": "a division by zero",
    "modulus by zero": "a division by zero",
    "overflow": "a number does not fit",
    "out of range": "a number does not fit",
    "regular expression": "a regular expression is malformed",
    "optional.none()": "a field that it copies is not set",
    "Iteration budget": "too many iterations",
}


def _reason(text: str) -> str:
    """Return the kind of failure, without the parts of the message that may quote values of the run."""
    return next(
        (words for sign, words in _REASONS.items() if sign.lower() in text.lower()), "the value cannot be computed"
    )


def _size(data: Mapping[str, Message], use: tuple[str, ...]) -> int:
    """Return about how many bytes a value has; for a list or map, those of the message that contains it."""
    value: Any = data.get(use[0])
    if value is None:
        return _SMALL
    for field in use[1:]:
        found = getattr(value, field, None)
        if isinstance(found, str | bytes):
            return len(found) + _SMALL
        if isinstance(found, bool | int | float):
            return _SMALL
        if not isinstance(found, Message):
            break
        value = found
    try:
        return int(type(value).ByteSize(value)) + _SMALL
    except EncodeError:  # a required field is not set, as in the empty response of a skipped step
        return _SMALL


def _find_uses(
    node: Any,
    checked: Checked,
    bound: frozenset[str],
    into: list[tuple[str, ...]],
    rounds: list[tuple[str, ...]],
) -> None:
    kind = node.WhichOneof("kind")
    at, fields = selected(node)
    if at.WhichOneof("kind") == "ident_expr":
        name = at.ident_expr.name
        if at.id not in checked.type_names and name not in _LOOP_VARIABLES and name not in bound:
            into.append((name, *fields))
    elif kind == "comprehension_expr":
        inner = node.comprehension_expr
        _find_uses(inner.iter_range, checked, bound, into, rounds)
        _find_uses(inner.accu_init, checked, bound, into, rounds)
        now = bound | {inner.iter_var, inner.iter_var2, inner.accu_var}
        for part in (inner.loop_condition, inner.loop_step, inner.result):
            _find_uses(part, checked, now, rounds, rounds)
    else:
        for child in children(node):
            _find_uses(child, checked, bound, into, rounds)
