"""Estimates the cost of a regular expression: the size of the program that RE2 makes of it.

CEL compiles that program each time an expression runs, in the event loop that drives all runs, so a pattern must be
small. Called by the rule about patterns and by the runtime.
"""

import re
from collections.abc import Iterator

_TOKEN = re.compile(
    r"""
    \\Q(?P<quoted>.*?)(?:\\E|$)
  | (?P<unicode>\\[pP](?:\{[^}]*\}|.))
  | (?P<escape>\\(?:x\{[^}]*\}|x..|[0-7]{1,3}|.))
  | (?P<class>\[\^?\]?(?:\[:\^?\w*:\]|\\[pP]\{[^}]*\}|\\.|[^\]\\])*\]?)
  | (?P<repeat>\{(?P<least>[0-9]{1,9})(?:,(?P<most>[0-9]{0,9}))?\})
  | (?P<any>[.])
  | (?P<open>\((?:\?(?:P?<[^>]*>|[a-zA-Z-]*:?))?)
  | (?P<close>\))
  | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_ANY = 12
"""States of a class that holds most characters."""
_UNICODE = 1_000
"""States of a class of Unicode, such as all letters."""


def states(pattern: str) -> int:
    """Return about how many states the program of a pattern has, rather more than less."""
    groups, last = [0], 0
    for name, match in _tokens(pattern):
        if name == "repeat":
            times = max(int(match["least"]), int(match["most"] or 0), 1)
            groups[-1] += last * (times - 1)
            last *= times
        elif name == "close" and len(groups) > 1:
            last = groups.pop() + 2
            groups[-1] += last
        elif name == "open":
            groups.append(0)
            last = 0
        else:
            last = _size(name, match[0])
            groups[-1] += last
    return sum(groups)


def _tokens(pattern: str) -> Iterator[tuple[str, re.Match[str]]]:
    for match in _TOKEN.finditer(pattern):
        yield match.lastgroup or "quoted", match


def _size(name: str, text: str) -> int:
    if name == "unicode":
        return _UNICODE
    if name == "class":
        wide = _UNICODE * len(re.findall(r"\\[pP]", text))
        return wide + (_ANY if text.startswith("[^") or "[:^" in text else 0) + 2 * len(text)
    return _ANY if name == "any" else 2 * len(text)
