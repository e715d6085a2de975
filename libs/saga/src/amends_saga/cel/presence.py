"""Makes explicit what a copy of an unset field means: copied as unset, or refused.

`Req{amount: quote.cost}` becomes `Req{amount: quote.?cost.value()}`, which fails when the cost is unset, and
`Req{?coupon: quote.?coupon}`, which leaves the coupon unset. A run is pinned to the explicit expression, so that it
keeps its meaning for ever. Called by the compiler.
"""

import re
from collections.abc import Iterable
from typing import Any

from amends_saga.cel.environment import Checked

_NAME = re.compile(r"\.\s*(?:`([^`]+)`|(\w+))")
_KEY = re.compile(r"(?:`[^`]+`|\w+)\s*$")


def write_out(checked: Checked, certain: Iterable[Any], optional: Iterable[tuple[Any, Any]]) -> str | None:
    """Return the expression's text with explicit copies; None when text and tree do not fit together.

    `certain` are selections that fail when their field is unset. `optional` are entries of message literals whose
    selections leave the entry's field unset.
    """
    inserted: list[tuple[int, str]] = []
    for node in certain:
        end = _end_of_selection(checked, node)
        if end is None:
            return None
        inserted += [(checked.offset(node.id) + 1, "?"), (end, ".value()")]
    for entry, node in optional:
        key = _KEY.search(checked.text, 0, checked.offset(entry.id))
        if key is None or _end_of_selection(checked, node) is None:
            return None
        inserted += [(key.start(), "?"), (checked.offset(node.id) + 1, "?")]
    text = checked.text
    for at, what in sorted(inserted, reverse=True):
        text = text[:at] + what + text[at:]
    return text


def _end_of_selection(checked: Checked, node: Any) -> int | None:
    """Return where the name of a selection's field ends; CEL gives where its dot stands."""
    found = _NAME.match(checked.text, checked.offset(node.id))
    if found is None or node.select_expr.field not in (found[1], found[2]):
        return None
    return found.end()
