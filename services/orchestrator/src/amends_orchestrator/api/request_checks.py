"""Checks the texts, lists and durations of every request before anything is done for it.

Each method of both services calls this first. A fault is INVALID_ARGUMENT with the field's name; nothing was done then.
"""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, cast

from amends_chassis.errors import InvalidArgument
from amends_chassis.text import UNSAFE
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

LONGEST_NAME = 255
LONGEST_TEXT = 1000
MOST_ITEMS = 1000
LONGEST_DURATION = timedelta(days=3_652_500)
_PAYLOADS = frozenset({"text", "json_text", "result_json"})
"""Texts that a parser reads and checks later, so they are not checked here."""
_LONG = {"actor": LONGEST_TEXT, "reason": LONGEST_TEXT, "source": LONGEST_TEXT}


@dataclass(frozen=True, slots=True)
class _Shape:
    """The fields of a message that are checked: its texts with their longest length, and the messages in it."""

    texts: tuple[tuple[str, int], ...]
    lists_of_texts: tuple[tuple[str, int], ...]
    messages: tuple[str, ...]
    lists_of_messages: tuple[str, ...]


@cache
def _shape(descriptor: Descriptor) -> _Shape:
    texts, messages = [], []
    for field in descriptor.fields:
        if field.message_type is not None and not field.message_type.full_name.startswith("google.protobuf."):
            messages.append(field)
        elif field.type == FieldDescriptor.TYPE_STRING and field.name not in _PAYLOADS:
            texts.append(field)
    longest = {field.name: _LONG.get(field.name, LONGEST_NAME) for field in texts}
    return _Shape(
        tuple((field.name, longest[field.name]) for field in texts if not field.is_repeated),
        tuple((field.name, longest[field.name]) for field in texts if field.is_repeated),
        tuple(field.name for field in messages if not field.is_repeated),
        tuple(field.name for field in messages if field.is_repeated),
    )


def check_request(request: Message, path: str = "") -> None:
    """Refuse a request with a text that no column can hold or that is too long. Raises InvalidArgument."""
    shape = _shape(cast(Descriptor, request.DESCRIPTOR))
    for name, longest in shape.texts:
        _check_text(path, name, getattr(request, name), longest)
    for name, longest in shape.lists_of_texts:
        for text in _counted(path, name, getattr(request, name)):
            _check_text(path, name, text, longest)
    for name in shape.messages:
        if request.HasField(name):
            check_request(getattr(request, name), f"{path}{name}.")
    for name in shape.lists_of_messages:
        for i, item in enumerate(_counted(path, name, getattr(request, name))):
            check_request(item, f"{path}{name}[{i}].")


def _counted(path: str, name: str, items: Sized) -> Any:
    """Return the list if it has at most MOST_ITEMS entries. Raises InvalidArgument."""
    if len(items) > MOST_ITEMS:
        raise _invalid(path + name, f"{path}{name} takes at most {MOST_ITEMS:,} entries, not {len(items):,}.")
    return items


def _check_text(path: str, name: str, text: str, longest: int) -> None:
    if len(text) > longest:
        raise _invalid(path + name, f"{path}{name} takes at most {longest} characters, not {len(text):,}.")
    if "\0" in text:
        raise _invalid(path + name, f"{path}{name} holds the character NUL.")


def check_said(field: str, text: str) -> None:
    """Refuse a person's text that is empty, has several lines or control characters. Raises InvalidArgument."""
    if not text.strip():
        raise InvalidArgument(f"{field.upper()}_REQUIRED", f"Say {field}: it is kept in the journal.")
    found = UNSAFE.search(text)
    if found is not None:
        raise _invalid(field, f"{field} holds the control character U+{ord(found[0]):04X}; write it in one line.")


def duration_of(field: str, value: Duration) -> timedelta:
    """Return a request's duration. Raises InvalidArgument if it is malformed or longer than LONGEST_DURATION."""
    seconds, nanos = value.seconds, value.nanos
    if abs(nanos) > 999_999_999 or (seconds < 0 < nanos) or (nanos < 0 < seconds):
        raise _invalid(field, f"{field} is no duration: {seconds} s and {nanos} ns.")
    if abs(seconds) > LONGEST_DURATION.total_seconds():
        raise _invalid(field, f"{field} takes at most 10,000 years.")
    return timedelta(seconds=seconds, microseconds=nanos / 1000)


def _invalid(path: str, sentence: str, **facts: Any) -> InvalidArgument:
    name = path.rpartition(".")[2].partition("[")[0]
    return InvalidArgument(f"{name.upper()}_INVALID", sentence, field=path, **facts)
