"""What may be asked of reporting: periods and pages. Free of gRPC and SQL."""

import base64
import binascii
import json
from dataclasses import dataclass
from datetime import UTC, date, datetime

from amends_chassis.domain import RefusedError

DEFAULT_PAGE, MAX_PAGE = 100, 500


class PeriodInvalid(RefusedError):
    """A day is none, or the last comes before the first."""

    reason = "PERIOD_INVALID"


class PageInvalid(RefusedError):
    """A page is too large, or its token is of another question."""

    reason = "PAGE_INVALID"


class OrderUnknown(RefusedError):
    """Nobody has told of such an order."""

    reason = "ORDER_UNKNOWN"


@dataclass(frozen=True, slots=True)
class Period:
    """Days of UTC, both included."""

    first: date
    last: date


def period(first_day: str, last_day: str) -> Period:
    """Read a period; an empty day is no bound. Raises PeriodInvalid."""
    try:
        first = date.fromisoformat(first_day) if first_day else date.min
        last = date.fromisoformat(last_day) if last_day else date.max
    except ValueError as error:
        raise PeriodInvalid("a day must be written as in 2026-11-30") from error
    if last < first:
        raise PeriodInvalid("last_day must not be before first_day")
    return Period(first, last)


def page_size(asked: int) -> int:
    """Return how many rows a page has. Raises PageInvalid."""
    if not 0 <= asked <= MAX_PAGE:
        raise PageInvalid(f"page_size must be 0 (for {DEFAULT_PAGE}) to {MAX_PAGE}")
    return asked or DEFAULT_PAGE


def token_of_day(day: date, name: str) -> str:
    """Return the token of the page behind a row of a day."""
    return _token(day.isoformat(), name)


def day_of(token: str) -> tuple[date, str] | None:
    """Read a token of `token_of_day`; None for an empty one. Raises PageInvalid."""
    if not token:
        return None
    day, name = _parts(token)
    try:
        return date.fromisoformat(day), name
    except ValueError as error:
        raise _wrong() from error


def token_of_order(open_since: datetime, order_id: str) -> str:
    """Return the token of the page behind an open order."""
    return _token(open_since.isoformat(), order_id)


def order_of(token: str) -> tuple[datetime, str] | None:
    """Read a token of `token_of_order`; None for an empty one. Raises PageInvalid."""
    if not token:
        return None
    moment, order_id = _parts(token)
    try:
        since = datetime.fromisoformat(moment)
        if since.tzinfo is None:
            raise ValueError("a moment without its time zone")
        return since.astimezone(UTC), order_id
    except (ValueError, OverflowError) as error:
        raise _wrong() from error


def _token(*parts: str) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()


def _parts(token: str) -> tuple[str, str]:
    try:
        first, second = json.loads(base64.urlsafe_b64decode(token))
    except (binascii.Error, ValueError, TypeError) as error:
        raise _wrong() from error
    if not isinstance(first, str) or not isinstance(second, str) or "\x00" in second:
        raise _wrong()
    return first, second


def _wrong() -> PageInvalid:
    return PageInvalid("page_token must come from the answer before")
