"""Durations on the command line: one grammar for every option, the one that definitions have. Called by commands."""

from datetime import UTC, datetime, timedelta

import typer
from amends_resilience.durations import parse_duration

from amends_cli.failure import usage

LONGEST = timedelta(days=366)
SHORTEST = timedelta(milliseconds=1)


def duration(text: str | timedelta) -> timedelta:
    """Return the duration that a person wrote: `30s`, `1m30s`, `24h`; a bare number is in seconds.

    Raises BadParameter for anything else, for zero, and for more than a year.
    """
    if isinstance(text, timedelta):  # a default
        return text
    given = f"{text}s" if text.replace(".", "", 1).isdecimal() and text.isascii() else text
    try:
        value = parse_duration(given)
    except ValueError:
        raise typer.BadParameter(f"`{text}` is no duration; write it as 30s, 1m30s or 24h") from None
    if not SHORTEST <= value <= LONGEST:
        raise typer.BadParameter(f"`{text}` is not from 1ms to 366d")
    return value


def moment(option: str, text: str) -> datetime:
    """Return the moment that a person wrote: so long ago, or a date and time. Raises CliError (wrong use)."""
    if text[:4].isdecimal() and text[4:5] == "-":
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise usage(f"{option} `{text}` is no date and time", "Write it as 2026-01-31T10:00:00Z.") from None
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    try:
        return datetime.now(UTC) - duration(text)
    except typer.BadParameter as error:
        raise usage(f"{option}: {error.message}", "Or a date and time, as 2026-01-31T10:00:00Z.") from None


def age_in_words(age: timedelta) -> str:
    """Return an age as people say it, to the precision that matters: 5s, 12m, 3h, 4d."""
    seconds = max(0, int(age.total_seconds()))
    for unit, size, below in (("s", 1, 120), ("m", 60, 7200), ("h", 3600, 172_800)):
        if seconds < below:
            return f"{seconds // size}{unit}"
    return f"{seconds // 86_400}d"
