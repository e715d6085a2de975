"""The one grammar of durations: `100ms`, `60s`, `1m30s`, `24h`, `30d`, at most a hundred years.

Sagas, retry policies, SagaRuns, settings and options all write durations, so all of them read them here.
"""

import re
from datetime import timedelta

LONGEST = timedelta(days=36_600)
"""A hundred years: far beyond any use, and far below what `datetime` arithmetic overflows at."""
LONGEST_TEXT = 40
_UNITS = {
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
    "us": timedelta(microseconds=1),
}
_PART = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(d|h|ms|us|m|s)", re.ASCII)


def parse_duration(text: str) -> timedelta:
    """Return the duration that `text` writes.

    Raises ValueError, with a sentence for people, if it is none, or is longer than a hundred years.
    """
    total, position = timedelta(0), 0
    while match := _PART.match(text, position):
        if float(match[1]) * _UNITS[match[2]].total_seconds() > LONGEST.total_seconds():
            raise ValueError(f"`{text[:LONGEST_TEXT]}` is longer than a hundred years")
        total += float(match[1]) * _UNITS[match[2]]
        position = match.end()
    if position == 0 or position != len(text) or len(text) > LONGEST_TEXT:
        raise ValueError(f"`{text[:LONGEST_TEXT]}` is no duration")
    if total > LONGEST:
        raise ValueError(f"`{text}` is longer than a hundred years")
    return total


def format_duration(value: timedelta) -> str:
    """Return the shortest exact text that `parse_duration` reads back, e.g. `1m30s`; `0s` for zero.

    A negative duration is written with a minus sign, which only people read.
    """
    if value < timedelta(0):
        return "-" + format_duration(-value)
    parts, rest = [], value
    for unit in ("d", "h", "m", "s", "ms", "us"):
        count, rest = divmod(rest, _UNITS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"
