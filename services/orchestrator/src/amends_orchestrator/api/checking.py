"""What every request of both services must be before anything is done for it: texts that can be kept and shown.

Called by each method first. Whatever is wrong is INVALID_ARGUMENT with the field's name, and nothing was done.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from amends_chassis.errors import InvalidArgument
from amends_chassis.text import UNSAFE
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

LONGEST_NAME = 255
LONGEST_TEXT = 1000
LONGEST_DURATION = timedelta(days=3_652_500)
_PAYLOADS = frozenset({"text", "json_text", "result_json"})
"""Texts that are read by a parser, which says itself what it does not take."""
_LONG = {"actor": LONGEST_TEXT, "reason": LONGEST_TEXT, "source": LONGEST_TEXT}


def check_request(request: Message, path: str = "") -> None:
    """Raises InvalidArgument for a text that no column can hold, or that is longer than any name."""
    for field, value in request.ListFields():
        here = f"{path}{field.name}"
        if field.message_type is not None:
            if not field.message_type.full_name.startswith("google.protobuf."):
                for i, item in enumerate(value) if field.is_repeated else ((None, value),):
                    check_request(item, f"{here}." if i is None else f"{here}[{i}].")
        elif field.type == FieldDescriptor.TYPE_STRING and field.name not in _PAYLOADS:
            for text in value if field.is_repeated else (value,):
                _check_text(here, text, _LONG.get(field.name, LONGEST_NAME))


def _check_text(path: str, text: str, longest: int) -> None:
    if len(text) > longest:
        raise _invalid(path, f"{path} takes at most {longest} characters, not {len(text):,}.")
    if "\0" in text:
        raise _invalid(path, f"{path} holds the character NUL.")


def check_said(field: str, text: str) -> None:
    """Raises InvalidArgument unless a person said something that a terminal shows as it is, in one line."""
    if not text.strip():
        raise InvalidArgument(f"{field.upper()}_REQUIRED", f"Say {field}: it is kept in the journal.")
    found = UNSAFE.search(text)
    if found is not None:
        raise _invalid(field, f"{field} holds the control character U+{ord(found[0]):04X}; write it in one line.")


def duration_of(field: str, value: Duration) -> timedelta:
    """A duration of a request. Raises InvalidArgument for one that is none, or longer than LONGEST_DURATION."""
    seconds, nanos = value.seconds, value.nanos
    if abs(nanos) > 999_999_999 or (seconds < 0 < nanos) or (nanos < 0 < seconds):
        raise _invalid(field, f"{field} is no duration: {seconds} s and {nanos} ns.")
    if abs(seconds) > LONGEST_DURATION.total_seconds():
        raise _invalid(field, f"{field} takes at most 10,000 years.")
    return timedelta(seconds=seconds, microseconds=nanos / 1000)


def _invalid(path: str, sentence: str, **facts: Any) -> InvalidArgument:
    name = path.rpartition(".")[2].partition("[")[0]
    return InvalidArgument(f"{name.upper()}_INVALID", sentence, field=path, **facts)
