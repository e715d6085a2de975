"""Durations as resources write them: `100ms`, `60s`, `1m30s`, `24h`, `30d`.

Called by the reader of resources and by whoever shows a duration to a person.
"""

import re
from datetime import timedelta

LONGEST = timedelta(days=36_600)
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
        total += float(match[1]) * _UNITS[match[2]]
        position = match.end()
    if position == 0 or position != len(text) or len(text) > 40:
        raise ValueError(f"`{text[:40]}` is no duration")
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
