"""The messages between the orchestrator and its worker process: a length, a JSON object, and bytes.

Reading them can produce plain values only.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from struct import Struct
from typing import Any

LENGTHS = Struct(">QI")
"""The length of the frame that follows, and of its JSON."""
MAX_FRAME = 64 * 1024 * 1024


class FrameError(Exception):
    """Bytes that are not a valid frame."""


def pack(head: dict[str, Any], blobs: Sequence[bytes] = ()) -> bytes:
    """Return a frame with its length. Raises FrameError when it is too large."""
    text = json.dumps({"head": head, "blobs": [len(blob) for blob in blobs]}).encode()
    size = len(text) + sum(map(len, blobs))
    if size > MAX_FRAME:
        raise FrameError(f"{size:,} bytes are more than the {MAX_FRAME:,} of a frame")
    return b"".join((LENGTHS.pack(size, len(text)), text, *blobs))


def unpack(text_size: int, body: bytes) -> tuple[dict[str, Any], list[bytes]]:
    """Return the JSON object and the bytes of a frame's body. Raises FrameError."""
    try:
        whole = json.loads(body[:text_size])
        head, sizes = whole["head"], whole["blobs"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise FrameError("the frame does not begin with its JSON") from None
    blobs, at = [], text_size
    for size in sizes:
        blobs.append(body[at : at + size])
        at += size
    if at != len(body):
        raise FrameError("the frame is not as long as it says")
    return head, blobs
