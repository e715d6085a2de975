"""Durations on the command line: one grammar for every option, the one that definitions have. Called by commands."""

from datetime import timedelta

import typer
from amends_resilience.durations import parse_duration

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


def age_in_words(age: timedelta) -> str:
    """Return an age as people say it, to the precision that matters: 5s, 12m, 3h, 4d."""
    seconds = max(0, int(age.total_seconds()))
    for unit, size, below in (("s", 1, 120), ("m", 60, 7200), ("h", 3600, 172_800)):
        if seconds < below:
            return f"{seconds // size}{unit}"
    return f"{seconds // 86_400}d"
