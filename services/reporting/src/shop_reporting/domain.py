"""What may be asked of reporting: periods and pages. Free of gRPC and SQL."""

from dataclasses import dataclass
from datetime import date, datetime

from amends_chassis.domain import RefusedError
from amends_chassis.pages import moment_of, never_given_out, page_token, parts_of

DEFAULT_PAGE, MAX_PAGE = 100, 500


class PeriodInvalid(RefusedError):
    """A day is none, or the last comes before the first."""

    reason = "PERIOD_INVALID"


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


def token_of_day(day: date, name: str) -> str:
    """Return the token of the page behind a row of a day."""
    return page_token(day.isoformat(), name)


def day_of(token: str) -> tuple[date, str] | None:
    """Read a token of `token_of_day`; None for an empty one. Raises PageInvalidError."""
    key = parts_of(token, 2)
    if key is None:
        return None
    day, name = key
    try:
        return date.fromisoformat(day), name
    except ValueError as error:
        raise never_given_out() from error


def token_of_order(open_since: datetime, order_id: str) -> str:
    """Return the token of the page behind an open order."""
    return page_token(open_since.isoformat(), order_id)


def order_of(token: str) -> tuple[datetime, str] | None:
    """Read a token of `token_of_order`; None for an empty one. Raises PageInvalidError."""
    key = parts_of(token, 2)
    return None if key is None else (moment_of(key[0]), key[1])
