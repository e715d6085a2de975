"""The service's own Postgres: one small asyncpg pool that waits for the server and survives its restarts and failovers.

Made by `service.Runtime`, used by every store. SQL is plain; the only helper is `transaction`. No session outlives its
use: one that is read-only, because its server is a standby by now, is replaced together with all others of the pool,
and each new one is opened with the URL as it is then, because passwords are changed in files while services run.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

import asyncpg
import structlog
from amends_barrier import BROKEN, database_away
from asyncpg.exceptions import ClientConfigurationError

from amends_chassis.errors import Unavailable
from amends_chassis.pool import OneEach

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
PROBE_RENEWED = timedelta(seconds=15)
"""So old the probe's session gets: a password that is refused shows in a new session only."""
ACQUIRE_TIMEOUT = timedelta(seconds=5)
IDLE_IN_TRANSACTION = timedelta(seconds=30)

READ_ONLY = "database.read_only"
REFUSED = "database.refused"
DROPPED = "database.session_dropped"

_SELECT_READ_ONLY = "SELECT current_setting('transaction_read_only')::boolean"
# Its tag says how many rows there are: one for a session that cannot write, none for one that can.
_COUNT_READ_ONLY = "SELECT WHERE current_setting('transaction_read_only')::boolean"
_CAN_WRITE = "SELECT 0"
# Answers to the start of a session that come of the URL, and that no later attempt changes.
_URL_WRONG = (
    ClientConfigurationError,
    asyncpg.UndefinedObjectError,
    asyncpg.InvalidParameterValueError,
    asyncpg.CantChangeRuntimeParamError,
)


class Executes(Protocol):
    """Executes statements: a connection of asyncpg, of a pool or not, or a pool that lends one for each statement."""

    async def execute(self, query: str, /, *args: Any) -> str:
        """Execute a statement and return its tag, such as `UPDATE 1`."""
        ...

    async def fetch(self, query: str, /, *args: Any) -> Sequence[Any]:
        """Return all rows."""
        ...

    async def fetchrow(self, query: str, /, *args: Any) -> Any:
        """Return the first row; None when there is none."""
        ...

    async def fetchval(self, query: str, /, *args: Any) -> Any:
        """Return the first column of the first row; None when there is none."""
        ...


class Transacts(Executes, Protocol):
    """Executes statements in transactions of its own: one connection of asyncpg, of a pool or not."""

    @property
    def transaction(self) -> Callable[..., AbstractAsyncContextManager[Any]]:
        """Return the function that makes a transaction for a block; its options are those of asyncpg."""
        ...

    async def executemany(self, command: str, /, args: Any) -> None:
        """Execute a statement once for each of `args`."""
        ...


class Lends(Protocol):
    """Lends connections, one for a block: a pool of asyncpg."""

    def acquire(self) -> AbstractAsyncContextManager[Any]:
        """Return a context manager that yields a connection."""
        ...


class Database:
    """A pool of connections to one database."""

    def __init__(self, url: str | Callable[[], str], *, application: str = "amends", size: int = 8) -> None:
        """Take a postgresql:// URL, or what says it for each new session; nothing is opened before `connect`."""
        self._source = url
        self._size = size
        self._pool: Pool | None = None
        self._server_settings = {
            "application_name": application,
            # A forgotten transaction holds back vacuum for everybody; measured at -87 % of throughput within seconds.
            "idle_in_transaction_session_timeout": str(int(IDLE_IN_TRANSACTION.total_seconds() * 1000)),
            # What is acknowledged is on disk, also where the database's default differs.
            "synchronous_commit": "on",
            "timezone": "UTC",
            "jit": "off",
        }

    @property
    def pool(self) -> "Pool":
        """Return the pool. Raises Unavailable before `connect` has succeeded."""
        if self._pool is None:
            raise Unavailable("DATABASE_UNAVAILABLE", "The database has not been reached yet.")
        return self._pool

    async def connect(self) -> None:
        """Open the pool; wait as long as the server is away and say so every few seconds.

        Raises ValueError for a URL that can never work.
        """
        check_url(self._url())
        loop = asyncio.get_running_loop()
        pause, began, said = RETRY, loop.time(), float("-inf")
        while self._pool is None:
            try:
                self._pool = await self._open_pool()
            except _URL_WRONG as error:
                raise ValueError(f"the database URL is wrong: {error}") from error
            except BROKEN as error:
                if loop.time() - said >= SAY_SO_EVERY.total_seconds():
                    said = loop.time()
                    waited = round(said - began, 1)
                    _log.warning("database.waiting", seconds=waited, error=f"{type(error).__name__}: {error}")
                await asyncio.sleep(pause.total_seconds())
                pause = min(pause * 2, RETRY_MAX)
        _log.info("database.connected", seconds=round(loop.time() - began, 3))

    async def _open_pool(self) -> "Pool":
        return await OneEach(
            size=self._size,
            connect=self._open,
            reset=self._cleaned,
            timeout=5.0,
            server_settings=self._server_settings,
        )

    def _url(self) -> str:
        return self._source if isinstance(self._source, str) else self._source()

    async def _open(self, *_: Any, **settings: Any) -> "asyncpg.Connection[asyncpg.Record]":
        connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(self._url(), **settings)
        return connection

    async def _cleaned(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        """Clean a session before it goes back to the pool; end one that is broken.

        When it is read-only, all sessions of the pool are replaced before their next use.
        """
        try:
            cleaning = connection.get_reset_query()
            tag = await connection.execute(f"{cleaning}\n{_COUNT_READ_ONLY}")
        except BROKEN as error:
            _log.info(DROPPED, error=type(error).__name__)
            connection.terminate()
        else:
            if tag != _CAN_WRITE:
                await self._expire()

    async def _expire(self) -> None:
        if self._pool is not None:
            await self._pool.expire_connections()

    async def open_connection(self) -> "asyncpg.Connection[asyncpg.Record]":
        """Open one connection beside the pool, with the same settings, for work that needs it for long."""
        return await self._open(timeout=5.0, server_settings=self._server_settings)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["Connection"]:
        """Give a connection in a transaction: committed at the end of the block, rolled back if it raises.

        Raises Unavailable when no connection is free in time or the server is away.
        """
        pool = self.pool
        try:
            connection = await pool.acquire(timeout=ACQUIRE_TIMEOUT.total_seconds())
        except TimeoutError as error:
            raise Unavailable("DATABASE_BUSY", "No database connection became free in time.") from error
        except BROKEN as error:
            if not database_away(error) and not isinstance(error, OSError):
                raise
            raise Unavailable("DATABASE_UNAVAILABLE", "The database cannot be reached now.") from error
        try:
            async with connection.transaction():
                yield connection
        finally:
            try:
                await pool.release(connection)
            except BROKEN as error:  # the pool has dropped it, which changes nothing of what was committed
                _log.info(DROPPED, error=type(error).__name__)

    async def watch(self, report: Callable[[bool], Awaitable[None]]) -> None:
        """Probe for ever, telling `report` each time whether the database can be written to by a new session."""
        probe = _Probe(self.open_connection)
        try:
            while True:
                usable = await probe.look()
                if probe.replaces:
                    await self._expire()
                await report(usable)
                await asyncio.sleep((PROBE_EVERY if usable else PROBE_AGAIN).total_seconds())
        finally:
            probe.close()

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


class _Probe:
    """Looks at the database on a session of its own: a pool that is merely busy must not look like a database that is
    gone.
    """

    def __init__(self, connect: Callable[[], Awaitable["asyncpg.Connection[asyncpg.Record]"]]) -> None:
        self.replaces = False
        """Whether what the last look found says that sessions from before are of no use."""
        self._connect = connect
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self._opened = 0.0
        self._read_only = False

    async def look(self) -> bool:
        """Return whether a session can be opened, answers, and can write."""
        before = self._read_only
        try:
            async with asyncio.timeout(PROBE_TIMEOUT.total_seconds()):
                self._read_only = await self._is_read_only()
        except asyncpg.InvalidAuthorizationSpecificationError as error:
            _log.warning(REFUSED, error=f"{type(error).__name__}: {error}")
            self.close()
            return False
        except BROKEN:
            self.close()
            return False
        if self._read_only:
            self.close()  # the next one may reach the server that takes writes
            if not before:
                _log.warning(READ_ONLY)
        self.replaces = before or self._read_only
        return not self._read_only

    async def _is_read_only(self) -> bool:
        now = asyncio.get_running_loop().time()
        if self._connection is None or self._connection.is_closed():
            self._connection, self._opened = await self._connect(), now
        elif now - self._opened >= PROBE_RENEWED.total_seconds():
            await self._renew(now)
        return bool(await self._connection.fetchval(_SELECT_READ_ONLY))

    async def _renew(self, now: float) -> None:
        """Open another session in place of this one; if only the server is full this one goes on.

        Raises InvalidAuthorizationSpecificationError when the role is not let in any more.
        """
        former, self._opened = self._connection, now
        try:
            self._connection = await self._connect()
        except asyncpg.InsufficientResourcesError:
            return
        if former is not None:
            former.terminate()

    def close(self) -> None:
        """Close the session without giving it back to the pool."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None


def check_url(url: str) -> None:
    """Refuse a URL whose user name or password holds what must be percent-encoded. Raises ValueError.

    Else a part of the password could be taken for the host, which cannot be found, and be awaited for ever.
    """
    try:
        parts = urlsplit(url)
        misplaced = bool(parts.fragment) or "@" in parts.path or ("@" in parts.query and "@" not in parts.netloc)
        misplaced = misplaced or parts.netloc.rpartition("@")[0].count("@") > 0
    except ValueError:
        misplaced = True
    if misplaced:
        raise ValueError(
            "the database URL is wrong: in a user name or a password # must be written %23, / %2F, ? %3F, @ %40, [ %5B"
        )
