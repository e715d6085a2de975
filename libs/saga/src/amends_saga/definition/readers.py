"""Finds unquoted values that kubectl, helm and Argo CD read differently, because they read YAML 1.1.

These tools apply definitions that the checker accepted, so a value must mean the same to all of them. Called by
`documents`.
"""

import re
from collections.abc import Iterator

from amends_saga import codes
from amends_saga.definition.nodes import Node, NodeKind
from amends_saga.findings import Finding

MAX_TOLD = 20
"""The most findings for one document."""
_SKIPPED = frozenset({"status", "managedFields"})
"""Fields that only a server writes."""
_READ: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile("y|Y|yes|Yes|YES|on|On|ON"), "true"),
    (re.compile("n|N|no|No|NO|off|Off|OFF"), "false"),
    (re.compile("[-+]?0[0-7]+"), "an octal number"),
    (re.compile("[-+]?0(b[01_]+|x[0-9a-fA-F_]+|o[0-7_]+)"), "a number"),
    (re.compile("[-+]?[0-9][0-9_]*_[0-9_]*([.][0-9_]*)?"), "a number"),
    (re.compile("[-+]?[1-9][0-9_]*(:[0-5]?[0-9])+([.][0-9_]*)?"), "a number to the base of 60"),
    (re.compile("[-+]?[.](inf|Inf|INF)|[.](nan|NaN|NAN)"), "no number that JSON has"),
)


def odd_values(root: Node) -> list[Finding]:
    """Return a warning for each of the first twenty values that other readers understand differently."""
    return [finding for _, finding in zip(range(MAX_TOLD), _odd(root), strict=False)]


def _odd(root: Node) -> Iterator[Finding]:
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if node.kind is NodeKind.SCALAR:
            meant = next((what for pattern, what in _READ if node.plain and pattern.fullmatch(node.value)), None)
            if meant is not None:
                message = f"kubectl, helm and Argo CD read `{node.value[:60]}` as {meant}."
                yield node.finding(codes.YAML_READERS, message, f'Put it in quotes: "{node.value[:60]}".')
            continue
        inner = [*node.items]
        for key, value in node.pairs:
            inner += [key] if key.value in _SKIPPED else [key, value]
        waiting += reversed(inner)
