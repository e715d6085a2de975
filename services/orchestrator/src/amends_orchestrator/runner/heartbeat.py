"""Renews this process's lease, and synchronises its clock with the database's time.

A background task. If the database cannot be reached, the lease runs out by itself. This process then makes no new
calls, because another process may take the runs, and the fence refuses everything that it writes later.
"""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import structlog

from amends_orchestrator.journal import leases
from amends_orchestrator.journal.connection import Connect
from amends_orchestrator.journal.ids import RunIds
from amends_orchestrator.runner.host import RunHost

LEASE_RAN_OUT = "lease.ran_out"
HEARTBEAT_FAILED = "lease.heartbeat_failed"
_log = structlog.get_logger(__name__)


class Heartbeat:
    """The lease of one process."""

    def __init__(self, process: UUID, name: str, lease: timedelta, connect: Connect, ids: RunIds) -> None:
        self._process = process
        self._name = name
        self._lease = lease
        self._connect = connect
        self._ids = ids
        self._connection: asyncpg.Connection[Any] | None = None

    async def beat(self, host: RunHost) -> None:
        """Renew the lease once. Raises the database's errors."""
        loop = asyncio.get_running_loop()
        asked = loop.time()  # before the database reads its clock: our view of the lease ends first
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._connect()
        renewal = await leases.renew(self._connection, self._process, self._name, self._lease)
        self._ids.synchronise(renewal.now)
        host.hold_lease(asked + self._lease.total_seconds())
        if renewal.late:
            _log.warning(LEASE_RAN_OUT, process=str(self._process))

    async def run(self, host: RunHost) -> None:
        """Renew the lease for ever, three times per lease; more often while renewing fails."""
        while True:
            pause = self._lease / 3
            try:
                await self.beat(host)
            except Exception as error:  # without a lease all runs are lost, so no error ends this loop
                _log.warning(HEARTBEAT_FAILED, error=type(error).__name__, detail=str(error))
                self._drop()
                pause = self._lease / 10
            await asyncio.sleep(pause.total_seconds() * random.uniform(0.9, 1.0))  # noqa: S311 - spreads replicas

    async def end(self) -> None:
        """End the lease, so that other processes can claim the remaining runs at once."""
        try:
            if self._connection is None:
                self._connection = await self._connect()
            await leases.end(self._connection, self._process)
        except Exception as error:  # the lease will run out by itself
            _log.warning(HEARTBEAT_FAILED, error=type(error).__name__, detail=str(error))
        self._drop()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
