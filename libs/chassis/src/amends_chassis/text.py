r"""Makes texts of others safe to show: a message of a participant, a reason, an actor, a key, an expression.

A terminal obeys control characters: one can move the cursor, set the title, write to the clipboard, or add a line that
was never said. Code that prints such a text, logs it as plain text or puts it on a page calls `escape` first.
"""

import re

UNSAFE = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # control characters, of C0 and C1
    "\xad\u061c\u180e\u200b\u200e\u200f\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"  # invisible ones
    "\u2028-\u202e"  # line and paragraph separators, and what turns the direction of a text
    "\ud800-\udfff"  # halves of pairs, which no encoding takes
    "]"
)
"""Characters that do something, or hide something, instead of being seen."""


def escape(text: str) -> str:
    r"""Return `text` as one line in which every unsafe character is written out, e.g. `\n`, `\x1b`, `\u202e`."""
    return UNSAFE.sub(_written_out, text) if UNSAFE.search(text) else text


def brief(text: str) -> str:
    """Return at most 100 characters of a hostile text, as printable ASCII without backticks: to quote in a sentence."""
    return text[:100].encode("unicode_escape").decode().replace("`", "'")


def _written_out(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")
