"""A YAML or JSON text as a tree of nodes that know their places. No text can make the reader slow.

Composed from libyaml's events without recursion: no aliases, no tags, and limits on depth, size and number of nodes.
Called by `documents`.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

import yaml

from amends_saga import codes
from amends_saga.findings import Code, Finding, Place

MAX_CHARACTERS = 1_500_000
"""About the largest object of a Kubernetes API server."""
MAX_DEPTH = 64
MAX_NODES = 50_000
MAX_DOCUMENTS = 200
MAX_ALL_CHARACTERS = 4_000_000
MAX_ALL_NODES = 100_000
"""The most values of all texts that are read together."""
_TAGS = {None, "!", "tag:yaml.org,2002:str", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class NodeKind(StrEnum):
    """The kind of a node."""

    SCALAR = "a single value"
    MAPPING = "a mapping"
    SEQUENCE = "a list"


@dataclass(frozen=True)
class SourceText:
    """A text and its name; turns positions into lines and columns."""

    name: str
    text: str

    @cached_property
    def _lines(self) -> list[int]:
        starts, at = [0], self.text.find("\n")
        while at >= 0:
            starts.append(at + 1)
            at = self.text.find("\n", at + 1)
        return starts

    def place(self, index: int, width: int = 1) -> Place:
        """Return line, column and the line's text for a position in the text."""
        index = max(0, min(index, len(self.text)))
        number = bisect_right(self._lines, index) - 1
        start = self._lines[number]
        end = self.text.find("\n", start)
        excerpt = self.text[start : end if end >= 0 else len(self.text)].rstrip("\r")
        column = index - start
        return Place(self.name, number + 1, column + 1, excerpt[:400], max(1, min(width, len(excerpt) - column)))


@dataclass(eq=False, slots=True, repr=False)
class Node:
    """One node of a document. `value` is the text of a scalar; `plain` tells that it was written without quotes."""

    kind: NodeKind
    source: SourceText
    start: int
    end: int
    value: str = ""
    plain: bool = False
    items: "list[Node]" = field(default_factory=list)
    pairs: "list[tuple[Node, Node]]" = field(default_factory=list)

    def __repr__(self) -> str:
        return f"Node({self.kind.name.lower()} at {self.start}: {self.value[:40]!r})"

    def place(self) -> Place:
        """Return where the node begins, underlined to its end if that is on the same line."""
        return self.source.place(self.start, max(1, self.end - self.start))

    def get(self, key: str) -> "Node | None":
        """Return the value of a mapping's key, None without such a key."""
        return next((value for name, value in self.pairs if name.value == key), None)

    @property
    def is_null(self) -> bool:
        """Return whether the value is empty, `null` or `~`."""
        return self.kind is NodeKind.SCALAR and self.plain and self.value in ("", "null", "~", "Null", "NULL")

    def finding(self, code: Code, message: str, hint: str) -> Finding:
        """Return a finding about this node."""
        return Finding(code.id, code.severity, message, hint, self.place())


class _RefusedError(Exception):
    """The text contains something that definitions must not contain."""

    def __init__(self, code: Code, message: str, hint: str, at: int) -> None:
        super().__init__(message)
        self.code, self.message, self.hint, self.at = code, message, hint, at


@dataclass(slots=True)
class Count:
    """The size of all texts that are read together, so far."""

    characters: int = 0
    nodes: int = 0

    def take_text(self, text: str) -> None:
        """Count a text. Raises _RefusedError when it, or all texts together, are too long."""
        self.characters += len(text)
        if self.characters > MAX_ALL_CHARACTERS:
            message = f"All texts together have {self.characters:,} characters, more than {MAX_ALL_CHARACTERS:,}."
            raise _RefusedError(codes.TOO_LARGE, message, "Send fewer at once.", 0)

    def take_node(self, at: int) -> None:
        """Count a value. Raises _RefusedError when there are too many."""
        self.nodes += 1
        if self.nodes > MAX_ALL_NODES:
            message = f"All texts together have more than {MAX_ALL_NODES:,} values."
            raise _RefusedError(codes.TOO_LARGE, message, "Send fewer at once.", at)


def compose(name: str, text: str, count: Count | None = None) -> tuple[list[Node], list[Finding]]:
    """Return the root node of each document, and the finding that stopped the reading; never raises.

    The documents before a mistake are returned too. `count` is shared by texts that are read together.
    """
    source = SourceText(name, text.removeprefix("\ufeff"))
    count = count or Count()
    roots: list[Node] = []
    try:
        count.take_text(source.text)
        if len(source.text) > MAX_CHARACTERS:
            raise _RefusedError(
                codes.TOO_LARGE,
                f"The text has {len(source.text):,} characters, more than {MAX_CHARACTERS:,}.",
                "Split it into several files.",
                0,
            )
        for root in _documents(source, count):
            if len(roots) == MAX_DOCUMENTS:
                raise _RefusedError(
                    codes.TOO_LARGE,
                    f"The text has more than {MAX_DOCUMENTS} documents.",
                    "Split it into several files.",
                    root.start,
                )
            roots.append(root)
    except _RefusedError as refused:
        place = source.place(refused.at)
        return roots, [Finding(refused.code.id, refused.code.severity, refused.message, refused.hint, place)]
    except yaml.MarkedYAMLError as error:
        mark: Any = error.problem_mark or error.context_mark
        place = source.place(mark.index if mark is not None else 0)
        if source.text[mark.index : mark.index + 1] == "\t" if mark is not None else False:
            return roots, [_syntax("A tab stands here, where YAML takes blanks only.", place)]
        return roots, [_syntax(f"This is not YAML: {error.problem or error.context}.", place)]
    except yaml.reader.ReaderError as error:
        at = error.position if isinstance(error.position, int) else 0
        return roots, [_syntax(f"This is not YAML: {error.reason}.", source.place(at))]
    except (yaml.YAMLError, ValueError) as error:
        return roots, [_syntax(f"This is not YAML: {str(error).splitlines()[0][:200]}.", Place(name))]
    return roots, []


def _syntax(message: str, place: Place) -> Finding:
    code = codes.NOT_YAML
    return Finding(code.id, code.severity, message, "Mind indentation, quotes and brackets near here.", place)


def _documents(source: SourceText, total: Count) -> Iterator[Node]:
    stack: list[Node] = []
    keys: list[Node | None] = []
    count = 0
    for event in yaml.parse(source.text, Loader=_LOADER):
        if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent):
            count += 1
            total.take_node(_at(event))
            node = _node(source, event, count, len(stack))
        elif isinstance(event, yaml.AliasEvent):
            raise _RefusedError(
                codes.YAML_FEATURE, f"The alias `*{event.anchor}` is not allowed.", "Write the value out.", _at(event)
            )
        elif isinstance(event, yaml.CollectionEndEvent):
            node = stack.pop()
            keys.pop()
            node.end = _end(event)
            if not stack:
                yield node
            continue
        else:
            continue
        if stack:
            _attach(stack[-1], keys, node)
        elif node.kind is NodeKind.SCALAR:
            yield node
        if node.kind is not NodeKind.SCALAR:
            stack.append(node)
            keys.append(None)


def _attach(parent: Node, keys: list[Node | None], node: Node) -> None:
    if parent.kind is NodeKind.SEQUENCE:
        parent.items.append(node)
        return
    key = keys[-1]
    if key is None:
        if node.kind is not NodeKind.SCALAR:
            raise _RefusedError(codes.YAML_FEATURE, "A key must be a name.", "Write the key as plain text.", node.start)
        keys[-1] = node
        return
    parent.pairs.append((key, node))
    keys[-1] = None


def _at(event: Any) -> int:
    return int(event.start_mark.index)


def _end(event: Any) -> int:
    return int(event.end_mark.index)


def _node(source: SourceText, event: Any, count: int, depth: int) -> Node:
    if count > MAX_NODES:
        raise _RefusedError(
            codes.TOO_LARGE, f"The text has more than {MAX_NODES:,} values.", "Split it into several files.", _at(event)
        )
    if depth >= MAX_DEPTH:
        raise _RefusedError(
            codes.TOO_LARGE, f"Values are nested deeper than {MAX_DEPTH}.", "Flatten the document.", _at(event)
        )
    if event.anchor is not None:
        raise _RefusedError(
            codes.YAML_FEATURE, f"The anchor `&{event.anchor}` is not allowed.", "Write the value out.", _at(event)
        )
    if event.tag not in _TAGS:
        raise _RefusedError(
            codes.YAML_FEATURE, f"The tag `{event.tag[:60]}` is not allowed.", "Leave the tag out.", _at(event)
        )
    start, end = _at(event), _end(event)
    if isinstance(event, yaml.ScalarEvent):
        plain = bool(event.implicit[0]) and event.tag is None
        return Node(NodeKind.SCALAR, source, start, end, event.value, plain)
    kind = NodeKind.MAPPING if isinstance(event, yaml.MappingStartEvent) else NodeKind.SEQUENCE
    return Node(kind, source, start, end)


def to_json(node: Node) -> Any:
    """Return the value of a node as JSON: the form of SagaRun inputs."""
    if node.kind is NodeKind.SEQUENCE:
        return [to_json(item) for item in node.items]
    if node.kind is NodeKind.MAPPING:
        return {key.value: to_json(value) for key, value in node.pairs}
    return scalar(node)


def scalar(node: Node) -> str | int | float | bool | None:
    """Return the value of a scalar: quoted text is text, plain text may be null, a boolean or a number."""
    if not node.plain:
        return node.value
    if node.is_null:
        return None
    lowered = node.value.lower()
    if lowered in ("true", "false"):
        return lowered == "true"
    if len(node.value) <= 40:
        for number in (int, float):
            try:
                if node.value.lstrip("+-")[:1].isdigit() and node.value.isascii() and "_" not in node.value:
                    return number(node.value)
            except ValueError:
                continue
    return node.value
