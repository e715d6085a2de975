"""Puts inputs and responses into answers as redacted JSON. A payload that does not fit is left out, with its size.

Called by every method that shows a run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import Any

from amends_chassis.errors import InvalidArgument
from google.protobuf.struct_pb2 import Struct

from amends.saga.v1 import run_pb2
from amends.saga.v1 import run_service_pb2 as pb

LARGEST = 256 * 1024
"""Bytes of the largest payload that an answer contains."""
ROOM = 1024 * 1024
"""The most bytes of payloads in one answer; never more than half of the largest message."""


class Form(Enum):
    """The form in which an answer shows payloads."""

    NONE = auto()
    STRUCT = auto()
    TEXT = auto()


_FORMS = {
    pb.PAYLOADS_UNSPECIFIED: Form.STRUCT,
    pb.PAYLOADS_STRUCT: Form.STRUCT,
    pb.PAYLOADS_TEXT: Form.TEXT,
    pb.PAYLOADS_NONE: Form.NONE,
}


def form_of(asked: pb.Payloads.ValueType) -> Form:
    """Return the form that a caller asks for. Raises InvalidArgument if there is no such form."""
    form = _FORMS.get(asked)
    if form is None:
        raise InvalidArgument("PAYLOADS_UNKNOWN", "payloads names a form that does not exist.", field="payloads")
    return form


def as_text(shown: Mapping[str, Any]) -> str:
    """Return JSON in one line, spaced for people."""
    return json.dumps(shown, ensure_ascii=False, separators=(", ", ": "))


class Payloads:
    """The payloads of one answer: puts each into its message, or its size if it does not fit."""

    def __init__(self, form: Form = Form.NONE, room: int = ROOM) -> None:
        self.form = form
        self._left = room

    def show_input(self, run: run_pb2.Run, data: bytes, read: Callable[[], Mapping[str, Any]]) -> None:
        """Put a run's input into its message; `read` makes JSON of `data`."""
        if self.form is Form.TEXT:
            run.input_json = self._text(data, read)
        elif self.form is Form.STRUCT:
            run.input.CopyFrom(self._struct(data, read))

    def show_response(self, step: run_pb2.StepStatus, data: bytes, read: Callable[[], Mapping[str, Any]]) -> None:
        """Put a step's response into its message; `read` makes JSON of `data`."""
        if self.form is Form.TEXT:
            step.response_json = self._text(data, read)
        elif self.form is Form.STRUCT:
            step.response.CopyFrom(self._struct(data, read))

    def _text(self, data: bytes, read: Callable[[], Mapping[str, Any]]) -> str:
        if len(data) <= min(self._left, LARGEST):
            text = as_text(read())
            if self._takes(len(text.encode())):
                return text
        return as_text(_omitted(data))

    def _struct(self, data: bytes, read: Callable[[], Mapping[str, Any]]) -> Struct:
        struct = Struct()
        if len(data) <= min(self._left, LARGEST):
            struct.update(dict(read()))
            if self._takes(struct.ByteSize()):
                return struct
        struct.Clear()
        struct.update(_omitted(data))
        return struct

    def _takes(self, size: int) -> bool:
        if size > self._left:
            return False
        self._left -= size
        return True


def _omitted(data: bytes) -> dict[str, Any]:
    return {"@omitted": f"{len(data):,} bytes"}
