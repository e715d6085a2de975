"""The limits of one piece of work in the worker process."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class WorkLimits:
    """The bounds of the worker process."""

    processor: timedelta = timedelta(seconds=10)
    """Processor time of one piece of work."""
    wall: timedelta = timedelta(seconds=30)
    """Time of one piece of work, including waiting for the processor."""
    memory: int = 192 * 1024 * 1024
    """Bytes of address space, of which the process itself needs about 50 MiB."""
    waiting: int = 16
    """How many pieces of work may wait for their turn."""
    idle: timedelta = timedelta(seconds=30)
    """How long an idle process is kept."""
