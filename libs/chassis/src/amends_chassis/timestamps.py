"""Moments as messages have them. Used by the APIs of services."""

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp


def timestamp(moment: datetime) -> Timestamp:
    """Return an aware datetime as a Timestamp."""
    made = Timestamp()
    made.FromDatetime(moment)
    return made
