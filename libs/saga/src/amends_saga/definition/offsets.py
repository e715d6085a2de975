"""Finds the place of a scalar's character in the YAML text, despite quotes, escapes, folding and blocks.

Called when an expression has a finding, so that the caret stands under the mistake and not under the key.
"""

from amends_saga.definition.nodes import Node
from amends_saga.findings import Place

_LONG = {"x": 2, "u": 4, "U": 8}


def place_at(node: Node, offset: int, width: int = 1) -> Place:
    """Return where the character `offset` of a scalar's value stands in the text, block scalars included."""
    return node.source.place(source_index(node, offset), width)


def source_index(node: Node, offset: int) -> int:
    """Return the position in the source of character `offset` of the scalar's value.

    An offset behind the value's end points behind its last character.
    """
    raw = node.source.text[node.start : node.end]
    offset = max(0, min(offset, len(node.value)))
    if raw[:1] == '"':
        return node.start + _double_quoted(raw, node.value, offset)
    at = 0
    if raw[:1] in ("|", ">"):
        at = raw.find("\n") + 1
    elif raw[:1] == "'":
        at = 1
    single = raw[:1] == "'"
    last = at
    for index, wanted in enumerate(node.value):
        if not wanted.isspace():
            while at < len(raw) and raw[at] != wanted:
                at += 1
        last = at
        if index == offset:
            break
        if wanted.isspace():
            at += 1 if at < len(raw) and raw[at].isspace() else 0
        else:
            at += 2 if single and wanted == "'" else 1
    else:
        last = at
    return node.start + min(last, len(raw))


def _double_quoted(raw: str, value: str, offset: int) -> int:
    at = 1
    for index, wanted in enumerate(value):
        while at < len(raw) and raw[at] in " \t\r\n" and not wanted.isspace():
            at += 1
        while raw[at : at + 2] in ("\\\n", "\\\r"):
            at += 2
            while at < len(raw) and raw[at] in " \t\r\n":
                at += 1
        if index == offset:
            return at
        if raw[at : at + 1] == "\\":
            at += 2 + _LONG.get(raw[at + 1 : at + 2], 0)
        else:
            at += 1
    return min(at, len(raw))
