"""Run ids: version 7 UUIDs on the database's clock, made by the orchestrator and never by a caller.

The journal is partitioned by run id, so the time in an id must be the database's, even if this machine's clock is
wrong. The heartbeat measures the difference every few seconds.
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from uuid import UUID

from asyncpg.pgproto.pgproto import UUID as FastUUID


class RunIds:
    """Makes run ids. Seventy-four bits of each are random, so that ids cannot be guessed or collide."""

    def __init__(self) -> None:
        self._offset = 0.0

    def synchronise(self, database_now: datetime) -> None:
        """Set the clock to the database's time; until the next call it only moves forward."""
        self._offset = database_now.timestamp() - time.monotonic()

    def now(self) -> datetime:
        """Return the database's time, as this process estimates it."""
        return datetime.fromtimestamp(self._offset + time.monotonic(), UTC)

    def next(self) -> UUID:
        """Return a new run id on the database's clock."""
        milliseconds = int((self._offset + time.monotonic()) * 1000)
        chance = int.from_bytes(os.urandom(10), "big")
        value = (milliseconds & 0xFFFFFFFFFFFF) << 80 | chance
        value = value & ~(0xF << 76) | 0x7 << 76
        # The class of the ids that the database returns: it is hashed and encoded without Python code.
        return FastUUID((value & ~(0x3 << 62) | 0x2 << 62).to_bytes(16, "big"))
