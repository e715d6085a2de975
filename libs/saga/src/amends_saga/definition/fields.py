"""Reads the fields of a mapping: each gives either its value or a finding that says where it is wrong.

Called by the readers of the four kinds.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TypeVar

from amends_resilience.durations import parse_duration

from amends_saga import codes
from amends_saga.definition.nodes import Node, NodeKind, scalar
from amends_saga.findings import Code, Finding, choices, suggestion

T = TypeVar("T")
MAX_ITEMS = 1_000
"""The most entries of a list, and fields of an inline input."""
MAX_WRONG = 100
"""The most findings about unknown or doubled fields of one mapping."""
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class Fields:
    """The fields of one mapping; `findings` gets every fault in them."""

    def __init__(
        self, node: Node, what: str, known: Sequence[str], findings: list[Finding], required: Iterable[str] = ()
    ) -> None:
        self.node, self.what, self._findings = node, what, findings
        self._values: dict[str, Node] = {}
        if node.kind is not NodeKind.MAPPING:
            self.add(codes.WRONG_TYPE, node, f"{what} must be a mapping, it is {describe(node)}.", _fields_hint(known))
            return
        self._take(known)
        for name in required:
            found = self._values.get(name)
            if found is None or found.is_null:
                self.add(codes.MISSING_FIELD, node, f"{what} has no `{name}`.", f"Add `{name}`.")
                self._values.pop(name, None)

    def _take(self, known: Sequence[str]) -> None:
        wrong = 0
        misspelt: list[tuple[str, Node]] = []
        for key, value in self.node.pairs:
            if key.value in known and key.value not in self._values:
                self._values[key.value] = value
                continue
            wrong += 1
            if wrong > MAX_WRONG:
                message = f"{self.what} has more than {MAX_WRONG} fields that mean nothing here."
                self.add(codes.TOO_LARGE, key, message, "Mend those above first.")
                break
            if key.value in known:
                self.add(codes.DUPLICATE_FIELD, key, f"`{key.value}` is given twice.", "Leave one of them out.")
            else:
                hint = choices(key.value, known, "Leave it out.")
                self.add(codes.UNKNOWN_FIELD, key, f"{self.what} has no field `{key.value[:80]}`.", hint)
                misspelt.append((suggestion(key.value, known) or "", value))
        for name, value in misspelt:  # read as what was probably meant: a mistake is told once
            if name:
                self._values.setdefault(name, value)

    def add(self, code: Code, node: Node, message: str, hint: str) -> None:
        """Add a finding to the list."""
        self._findings.append(node.finding(code, message, hint))

    def node_of(self, name: str) -> Node | None:
        """Return the node of a field, None when it is left out or null."""
        value = self._values.get(name)
        return None if value is None or value.is_null else value

    def text(self, name: str) -> str | None:
        """Return a text, None when it is left out or is not a text."""
        return self._read(name, self._text)

    def flag(self, name: str) -> bool | None:
        """Return a boolean, None when it is left out."""
        return self._read(name, self._flag)

    def whole(self, name: str) -> int | None:
        """Return a whole number, None when it is left out."""
        return self._read(name, self._whole)

    def number(self, name: str) -> float | None:
        """Return a number, None when it is left out."""
        return self._read(name, self._number)

    def duration(self, name: str) -> timedelta | None:
        """Return a duration, None when it is left out."""
        return self._read(name, self._duration)

    def choice(self, name: str, known: Iterable[str]) -> str | None:
        """Return a text that must be one of `known`."""
        value, node = self.text(name), self.node_of(name)
        names = list(known)
        if value is None or node is None or value in names:
            return value
        self.add(codes.BAD_VALUE, node, f"`{name}` cannot be `{value[:80]}`.", choices(value, names))
        return None

    def texts(self, name: str) -> tuple[tuple[str, Node], ...] | None:
        """Return a list of texts with their nodes; None when it is left out or no list."""
        node = self.node_of(name)
        if node is None:
            return None
        if node.kind is not NodeKind.SEQUENCE:
            self.add(
                codes.WRONG_TYPE, node, f"`{name}` must be a list, it is {describe(node)}.", "Write `[a, b]`, or `[]`."
            )
            return None
        found = ((self._text(name, item), item) for item in self.few(name, node.items))
        return tuple((text, item) for text, item in found if text is not None)

    def few(self, name: str, items: Sequence[Node]) -> Sequence[Node]:
        """Return the items of a list; of a longer list the first thousand, with a finding."""
        if len(items) > MAX_ITEMS:
            message = f"`{name}` has {len(items):,} entries, more than {MAX_ITEMS:,}."
            self.add(codes.TOO_LARGE, items[MAX_ITEMS], message, "Write fewer.")
        return items[:MAX_ITEMS]

    def part(self, name: str, known: Sequence[str], required: Iterable[str] = ()) -> "Fields | None":
        """Return the fields of a nested mapping, None when it is left out."""
        node = self.node_of(name)
        return None if node is None else Fields(node, f"`{name}`", known, self._findings, required)

    def _read(self, name: str, read: Callable[[str, Node], T | None]) -> T | None:
        node = self.node_of(name)
        return None if node is None else read(name, node)

    def _text(self, name: str, node: Node) -> str | None:
        if node.kind is NodeKind.SCALAR and isinstance(scalar(node), str):
            return node.value
        hint = f'Put it in quotes: "{node.value[:60]}".' if node.kind is NodeKind.SCALAR else "Write one value."
        self.add(codes.WRONG_TYPE, node, f"`{name}` must be text, it is {describe(node)}.", hint)
        return None

    def _flag(self, name: str, node: Node) -> bool | None:
        value = scalar(node) if node.kind is NodeKind.SCALAR else None
        if isinstance(value, bool):
            return value
        self.add(
            codes.WRONG_TYPE, node, f"`{name}` must be true or false, it is {describe(node)}.", "Write true or false."
        )
        return None

    def _whole(self, name: str, node: Node) -> int | None:
        value = scalar(node) if node.kind is NodeKind.SCALAR else None
        if isinstance(value, int) and not isinstance(value, bool):
            if abs(value) < 2**31:
                return value
            self.add(codes.BAD_VALUE, node, f"`{name}` is too large.", "Write a smaller number.")
            return None
        self.add(codes.WRONG_TYPE, node, f"`{name}` must be a whole number, it is {describe(node)}.", "Write e.g. 4.")
        return None

    def _number(self, name: str, node: Node) -> float | None:
        value = scalar(node) if node.kind is NodeKind.SCALAR else None
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9:
            return float(value)
        self.add(codes.WRONG_TYPE, node, f"`{name}` must be a number, it is {describe(node)}.", "Write e.g. 0.2.")
        return None

    def _duration(self, name: str, node: Node) -> timedelta | None:
        hint = "Write a number with a unit, e.g. 100ms, 60s, 1m30s, 24h or 30d."
        if node.kind is not NodeKind.SCALAR:
            self.add(codes.WRONG_TYPE, node, f"`{name}` must be a duration, it is {describe(node)}.", hint)
            return None
        try:
            value = parse_duration(node.value)
        except ValueError as error:
            self.add(codes.BAD_VALUE, node, f"`{name}`: {error}.", hint)
            return None
        if value <= timedelta(0):
            self.add(codes.BAD_VALUE, node, f"`{name}` must be more than zero.", hint)
            return None
        return value


def describe(node: Node) -> str:
    """Return a node's kind in words, e.g. `a number`."""
    if node.kind is not NodeKind.SCALAR:
        return node.kind.value
    value = scalar(node)
    names: Mapping[type, str] = {str: "text", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "empty")


def is_name(text: str) -> bool:
    """Return whether the text can name a resource: lower case letters, digits and dashes, at most 63."""
    return _NAME.fullmatch(text) is not None


def _fields_hint(known: Sequence[str]) -> str:
    return "Write " + ", ".join(f"`{name}: ...`" for name in known[:3]) + "."
