"""Wakes the watchers of runs when there is more to read: one statement asks for all runs together.

A waiting watcher costs an entry in a table. A run that has not changed is asked about less and less often. Called by
WatchRun; `run` is a background task of the process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from amends_chassis.database import Executes
from amends_chassis.errors import ResourceExhausted

from amends_orchestrator.journal.reader import last_records

FIRST_LOOK = timedelta(milliseconds=50)
LONGEST_LOOK = timedelta(milliseconds=500)
SLOWER = 1.5


@dataclass(slots=True)
class Watched:
    """One run that somebody watches."""

    seq: int = 0
    """The last record that is known to be durable."""
    due: float = 0.0
    pause: float = FIRST_LOOK.total_seconds()
    watchers: int = 0
    moved: asyncio.Event = field(default_factory=asyncio.Event)


class WatchedRuns:
    """The runs that are watched through this process."""

    def __init__(self, database: Executes, most: int) -> None:
        """Set up without watchers. `most` is how many there may be at a time."""
        self._database = database
        self._most = most
        self._count = 0
        self._runs: dict[UUID, Watched] = {}
        self._wake = asyncio.Event()

    @contextmanager
    def watching(self, run_id: UUID) -> Iterator[Watched]:
        """Count a watcher for as long as it watches. Raises ResourceExhausted when there are too many."""
        if self._count >= self._most:
            raise ResourceExhausted("TOO_MANY_WATCHERS", f"This replica has {self._most} watchers; watch another.")
        watched = self._runs.setdefault(run_id, Watched())
        watched.watchers += 1
        self._count += 1
        try:
            yield watched
        finally:
            self._count -= 1
            watched.watchers -= 1
            if not watched.watchers:
                del self._runs[run_id]

    async def more(self, watched: Watched, seen: int) -> None:
        """Return when a run has a record after `seq` number `seen`."""
        self._wake.set()
        while watched.seq <= seen:
            await watched.moved.wait()

    async def run(self) -> None:
        """Look for news for ever. Raises the database's errors; the caller starts it again."""
        while True:
            if not self._runs:
                self._wake.clear()
                await self._wake.wait()
            await self.look()
            await asyncio.sleep(FIRST_LOOK.total_seconds())

    async def look(self) -> None:
        """Ask once about the runs that are due, and wake the watchers of those that have new records."""
        now = asyncio.get_running_loop().time()
        due = {run_id: watched for run_id, watched in self._runs.items() if watched.due <= now}
        if not due:
            return
        last = await last_records(self._database, due)
        now = asyncio.get_running_loop().time()
        for run_id, watched in due.items():
            seq = last.get(run_id, 0)
            if seq > watched.seq:
                watched.seq, watched.pause = seq, FIRST_LOOK.total_seconds()
                watched.moved.set()
                watched.moved = asyncio.Event()
            else:
                watched.pause = min(watched.pause * SLOWER, LONGEST_LOOK.total_seconds())
            watched.due = now + watched.pause
