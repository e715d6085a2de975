"""Pages of lists: how large one is, and the token by which the next one is asked for.

A token has the sort key of the last thing on a page, so that a page costs the same wherever it is, and nothing that is
added or removed meanwhile moves what is still to come.
"""

import base64
import binascii
import json
from datetime import UTC, datetime

from amends_chassis.domain import RefusedError

DEFAULT_SIZE = 50
LARGEST_SIZE = 100


class PageInvalidError(RefusedError):
    """The page is too large, or its token was never given out."""

    reason = "PAGE_INVALID"


def page_size(asked: int, *, default: int = DEFAULT_SIZE, largest: int = LARGEST_SIZE) -> int:
    """Return how many things are on a page: `default` for 0. Raises PageInvalidError beyond the largest."""
    if not 0 <= asked <= largest:
        raise PageInvalidError(f"page_size must be 0 (for {default}) to {largest}")
    return asked or default


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
        raise never_given_out()
    return tuple(key)


def moment_of(part: str) -> datetime:
    """Return the moment that a part of a sort key says, as `isoformat` wrote it. Raises PageInvalidError."""
    try:
        moment = datetime.fromisoformat(part)
        if moment.tzinfo is None:
            raise ValueError("a moment without its time zone")
        return moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise never_given_out() from error


def never_given_out() -> PageInvalidError:
    """Return the refusal of a token that no answer has had."""
    return PageInvalidError("page_token must come from the answer before")


def _is_plain(part: object) -> bool:
    """Return whether it is a text that Postgres takes: no zero byte, no half of a character."""
    return isinstance(part, str) and part.isprintable()
