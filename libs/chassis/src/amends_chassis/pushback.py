"""The pause that a server asks of its callers before they call again: google.rpc.RetryInfo, and gRPC's push-back.

Read by everything of ours that retries: the clients of services, and the orchestrator.
"""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

from amends_chassis.types import DETAILS_KEY

PUSHBACK_KEY = "grpc-retry-pushback-ms"
LONGEST = timedelta(minutes=5)
"""So long a server may ask for at most; what it says beyond counts as this."""
NEVER = timedelta(milliseconds=-1)
"""Stands for "do not call again", which a push-back says with anything but a number from 0 on."""


def asked_pause(trailing: Iterable[tuple[str, Any]] | None) -> timedelta | None:
    """Return the pause that the trailing metadata of a failed call ask for; None when they say nothing of it.

    NEVER when the server asks not to be called again. A push-back outranks a RetryInfo.
    """
    said = dict(trailing or ())
    if PUSHBACK_KEY in said:
        text = str(said[PUSHBACK_KEY])
        return min(timedelta(milliseconds=int(text[:9])), LONGEST) if text.isascii() and text.isdigit() else NEVER
    try:
        for detail in Status.FromString(said.get(DETAILS_KEY, b"")).details:
            if detail.Is(RetryInfo.DESCRIPTOR):
                delay = RetryInfo.FromString(detail.value).retry_delay
                seconds = min(max(delay.seconds + delay.nanos / 1e9, 0.0), LONGEST.total_seconds())
                return timedelta(seconds=seconds)
    except (DecodeError, TypeError):
        return None
    return None
