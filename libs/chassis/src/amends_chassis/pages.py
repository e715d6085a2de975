"""Pages of lists: how large one is, and the token by which the next one is asked for.

A token has the sort key of the last thing on a page, so that a page costs the same wherever it is, and nothing that is
added or removed meanwhile moves what is still to come.
"""

import base64
import binascii
import json

from amends_chassis.domain import RefusedError

DEFAULT_SIZE = 50
LARGEST_SIZE = 100


class PageInvalidError(RefusedError):
    """The page is too large, or its token was never given out."""

    reason = "PAGE_INVALID"


def page_size(asked: int) -> int:
    """Return how many things are on a page: 0 is 50. Raises PageInvalidError beyond 100."""
    if not 0 <= asked <= LARGEST_SIZE:
        raise PageInvalidError(f"page_size must be 0 (for {DEFAULT_SIZE}) to {LARGEST_SIZE}")
    return asked or DEFAULT_SIZE


def page_token(*key: str) -> str:
    """Return the token of the page behind the thing that sorts by `key`."""
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode()


def parts_of(token: str, parts: int) -> tuple[str, ...] | None:
    """Return the sort key of a token, of so many parts; None for the first page. Raises PageInvalidError."""
    if not token:
        return None
    try:
        key = json.loads(base64.b64decode(token, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):  # and bytes that are no text
        key = None
    if not isinstance(key, list) or len(key) != parts or not all(_is_plain(part) for part in key):
        raise PageInvalidError("page_token must come from the answer before")
    return tuple(key)


def _is_plain(part: object) -> bool:
    """Return whether it is a text that Postgres takes: no zero byte, no half of a character."""
    return isinstance(part, str) and part.isprintable()
