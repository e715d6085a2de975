"""What relay and consumer tell whoever counts. The chassis makes Prometheus metrics of it; `Silent` counts nothing."""

from datetime import timedelta
from enum import StrEnum
from typing import Protocol


class Result(StrEnum):
    """What became of an event at its consumer."""

    HANDLED = "handled"
    DUPLICATE = "duplicate"
    SKIPPED = "skipped"
    PARKED = "parked"


class Meter(Protocol):
    """Counts what happens to events."""

    def published(self, topic: str, events: int, duplicates: int, took: timedelta) -> None:
        """Count a batch that the broker has acknowledged, `duplicates` of it for the second time."""

    def publish_failed(self, topic: str, reason: str) -> None:
        """Count a batch that will be tried again; `reason` is the name of an error."""

    def backlog(self, rows: int, oldest: timedelta) -> None:
        """Note what waits in the outbox."""

    def handled(self, consumer: str, event_type: str, result: Result, events: int = 1) -> None:
        """Count what became of events of one type; empty for what is no event, or of a type that nobody handles."""

    def took(self, consumer: str, topic: str, batch: timedelta, since_occurred: timedelta) -> None:
        """Note how long a batch took, and how old its last event was when it was committed."""

    def lag(self, consumer: str, topic: str, partition: int, events: int) -> None:
        """Note how many records of a partition are still to be read."""

    def keys_blocked(self, consumer: str, topic: str, partition: int, keys: int) -> None:
        """Note how many keys of a partition wait behind a parked event."""

    def fence_lost(self, consumer: str) -> None:
        """Count a partition that another process has taken over."""

    def position_lost(self, consumer: str, topic: str, partition: int, lost: bool) -> None:
        """Note whether a partition stands still because its log does not go on at its position."""


class Silent:
    """The meter of whoever counts nothing."""

    def published(self, topic: str, events: int, duplicates: int, took: timedelta) -> None:
        """Count nothing."""

    def publish_failed(self, topic: str, reason: str) -> None:
        """Count nothing."""

    def backlog(self, rows: int, oldest: timedelta) -> None:
        """Note nothing."""

    def handled(self, consumer: str, event_type: str, result: Result, events: int = 1) -> None:
        """Count nothing."""

    def took(self, consumer: str, topic: str, batch: timedelta, since_occurred: timedelta) -> None:
        """Note nothing."""

    def lag(self, consumer: str, topic: str, partition: int, events: int) -> None:
        """Note nothing."""

    def keys_blocked(self, consumer: str, topic: str, partition: int, keys: int) -> None:
        """Note nothing."""

    def fence_lost(self, consumer: str) -> None:
        """Count nothing."""

    def position_lost(self, consumer: str, topic: str, partition: int, lost: bool) -> None:
        """Note nothing."""
