"""Claims runs that need an owner and hands them to the fleet: due runs, and runs of processes that died.

A background task with its own connection. As long as it finds a full batch and there is room, it claims again at once;
else it waits until the next run is due, at most `poll`. Batches and memory are limited, so that a recovery does not
cause an outage of its own.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Protocol
from uuid import UUID

import asyncpg
import structlog
from amends_saga.engine import events as ev
from amends_saga.engine.ledger import UnreadableJournalError
from amends_saga.journal import RULES_VERSION

from amends_orchestrator.journal import claims
from amends_orchestrator.journal.connection import Connect
from amends_orchestrator.journal.records import Claimed, RunRow
from amends_orchestrator.observe import RUNS_CLAIMED
from amends_orchestrator.runner.fleet import CLAIM_AGAIN_AFTER, Fleet
from amends_orchestrator.runner.live import LiveRun
from amends_orchestrator.runner.ports import DefinitionError, PinnedDefinitions

RUNS_TAKEN = "claims.taken"
RUN_UNREADABLE = "claims.unreadable"
RUN_ADRIFT = "claims.adrift"
CLAIM_FAILED = "claims.failed"
UNREADABLE = "UNREADABLE"
"""The reason of a run that is released because its journal or definition cannot be read."""
ADRIFT_EVERY = timedelta(seconds=3)
_log = structlog.get_logger(__name__)


class People(Protocol):
    """The requests that people made about runs before those were claimed."""

    async def asked(self, connection: asyncpg.Connection[Any], runs: list[UUID]) -> Mapping[UUID, ev.Signal]:
        """Return the signals that these runs must hear before they do anything."""
        ...

    async def adopted(self, connection: asyncpg.Connection[Any], runs: list[LiveRun]) -> None:
        """Answer the requests about runs that are driven now."""
        ...


class Claimer:
    """Claims runs for one process."""

    def __init__(
        self, fleet: Fleet, definitions: PinnedDefinitions, connect: Connect, people: People, poll: timedelta
    ) -> None:
        self._fleet = fleet
        self._definitions = definitions
        self._connect = connect
        self._people = people
        self._poll = poll
        self._connection: asyncpg.Connection[Any] | None = None
        self._adrift: dict[UUID, int] = {}
        self._looked = 0.0

    async def run(self) -> None:
        """Claim runs for ever. Raises nothing: a failed round is tried again after `poll`."""
        while True:
            try:
                pause = await self._round()
            except Exception as error:  # the database is away, or a fault that the next round may not have
                _log.warning(CLAIM_FAILED, error=type(error).__name__, detail=str(error))
                self._drop()
                pause = self._poll
            if pause > timedelta():
                await self._sleep(pause)

    def close(self) -> None:
        """Close the claimer's connection."""
        self._drop()

    async def take_one(self, run_id: UUID, asked: ev.Signal | None = None) -> LiveRun | None:
        """Claim one run now, for a person's request; None if it cannot be had.

        `asked` is the signal that it hears before it does anything.
        """
        async with self._borrowed() as connection:
            row = await claims.claim_one(connection, self._fleet.process, run_id, rules=RULES_VERSION)
            if row is None:
                return None
            runs = await self._adopt(connection, [row], asked)
            return runs[0] if runs else None

    async def _round(self) -> timedelta:
        """Claim once; return how long to wait before the next claim."""
        self._fleet.shed()
        room = min(self._fleet.spare_runs, claims.BATCH)
        if room <= 0:
            return self._poll
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._connect()
        self._fleet.capacity_changed.clear()
        size = min(self._fleet.spare_bytes, claims.BATCH_BYTES)
        rows = await claims.claim(self._connection, self._fleet.process, rules=RULES_VERSION, limit=room, room=size)
        await self._look_for_adrift(self._connection)
        if rows:
            _log.info(RUNS_TAKEN, runs=len(rows))
            await self._adopt(self._connection, rows)
        if len(rows) == room:
            return timedelta()
        due = await claims.next_due(self._connection)
        return self._poll if due is None else min(max(due, timedelta(milliseconds=5)), self._poll)

    async def _look_for_adrift(self, connection: asyncpg.Connection[Any]) -> None:
        """Release runs that the database says we own and that are not in memory, seen twice in a row.

        Such a run comes from a claim or a decision that was committed although its answer was lost. It would wait for
        ever.
        """
        now = asyncio.get_running_loop().time()
        if now - self._looked < ADRIFT_EVERY.total_seconds():
            return
        self._looked = now
        mine = await claims.owned(connection, self._fleet.process)
        adrift = {run: fence for run, fence in mine.items() if self._fleet.get(run) is None}
        for run, fence in adrift.items():
            if self._adrift.get(run) == fence:
                _log.warning(RUN_ADRIFT, run_id=str(run), fence=fence)
                await claims.release(connection, run, fence, timedelta(), "", "")
        self._adrift = adrift

    async def _adopt(
        self, connection: asyncpg.Connection[Any], rows: list[RunRow], asked: ev.Signal | None = None
    ) -> list[LiveRun]:
        RUNS_CLAIMED.inc(len(rows))
        adopted: list[LiveRun] = []
        before = await self._people.asked(connection, [row.id for row in rows])
        for claimed in await claims.load(connection, rows):
            run = await self._adopt_one(connection, claimed, before.get(claimed.run.id, asked))
            if run is not None:
                adopted.append(run)
        await self._people.adopted(connection, adopted)
        return adopted

    async def _adopt_one(
        self, connection: asyncpg.Connection[Any], claimed: Claimed, asked: ev.Signal | None
    ) -> LiveRun | None:
        row = claimed.run
        try:
            definition = await self._definitions.pinned(row.digest)
            return self._fleet.adopt(definition, claimed, asked)
        except (UnreadableJournalError, DefinitionError) as error:
            _log.error(RUN_UNREADABLE, run_id=str(row.id), error=str(error))
            host = self._fleet.host
            info = host.info(row.id, row.namespace, row.saga, row.key, row.traceparent, row.rules)
            event = host.announcer.undrivable(info, UNREADABLE)
            await claims.release(connection, row.id, row.fence, CLAIM_AGAIN_AFTER, UNREADABLE, str(error)[:500], event)
            return None

    async def _sleep(self, pause: timedelta) -> None:
        seconds = pause.total_seconds() * random.uniform(0.8, 1.0)  # noqa: S311 - spreads replicas
        try:
            async with asyncio.timeout(seconds):
                await self._fleet.capacity_changed.wait()
        except TimeoutError:
            return
        # Under load runs leave all the time: claim others a little later, not after each one.
        await asyncio.sleep(0.02)

    def _borrowed(self) -> Any:
        return _Borrowed(self._connect)

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None


class _Borrowed:
    """A connection that is opened for one request of a person."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._connection: asyncpg.Connection[Any] | None = None

    async def __aenter__(self) -> asyncpg.Connection[Any]:
        self._connection = await self._connect()
        return self._connection

    async def __aexit__(self, *_: object) -> None:
        if self._connection is not None:
            await self._connection.close()
